"""Full, read-only and failing disks: an error with the file's name, and what was there stays."""

import os
import shutil

import pytest

from tests.faults.launcher import completed
from tests.faults.test_loaders import own_mounts
from tests.small_training import fresh_state, last_state, limited, reporter_of, resume, small_run
from training.state import save_network_snapshot, save_training_state


def test_a_full_disk_ends_the_run_and_it_goes_on_when_there_is_room(started, tmp_path):
    """A disk of 3 MB, which has no room for a third state."""
    disk, run_dir = tmp_path / "disk", tmp_path / "run"
    disk.mkdir()
    steps = 'mount -t tmpfs -o size=3m tmpfs "$0" && cp -r "$1" "$0/run" && shift && "$@"; code=$?'
    steps += '; cp -r "$0/run" "$OUT"; exit $code'
    prefix = [*own_mounts(), "sh", "-c", steps, str(disk), str(started)]
    options = ["--duration=1", "--dump=1", "--tick=0.004", "--snap=1000"]
    _, err = completed(disk / "run", *options, code=2, prefix=prefix, OUT=str(run_dir))
    assert err.count("\n") == 1 and f"Error: {disk}/run" in err and "No space left" in err
    assert not [path for path in run_dir.iterdir() if path.suffix == ".tmp"]
    before = last_state(run_dir)["cur_nimg"]
    assert resume(run_dir, duration_kimg=(before + 8) / 1000)["cur_nimg"] == before + 8


@pytest.mark.parametrize("file", ["training-state-", "network-snapshot-", "samples-"])
def test_each_file_that_does_not_fit_is_named_and_not_left_behind(cars, tmp_path, file):
    config = small_run(cars, 3)
    state = fresh_state(config)
    with pytest.raises(OSError, match=f"could not be saved: File too large: '{tmp_path}/{file}"):
        with reporter_of(config, state, tmp_path, held_out=True) as reporter, limited(20_000):
            state.cur_nimg += config.batch_size
            if file == "samples-":
                reporter.evaluate()
            else:
                reporter._save(save_training_state if file == "training-state-" else save_network_snapshot)
            reporter.files.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["stats.jsonl"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a folder read-only")
def test_a_disk_that_has_become_read_only_ends_the_run(started, tmp_path):
    """As after a fault of the disk, in a separate process with separate mounts."""
    run_dir = shutil.copytree(started, tmp_path / "run")
    prefix = [*own_mounts(), "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && "$@"', run_dir]
    _, err = completed(run_dir, code=2, prefix=prefix)
    assert err.count("\n") == 1 and f"{run_dir}" in err and "Read-only" in err
