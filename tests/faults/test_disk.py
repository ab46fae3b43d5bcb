"""Full, read-only and failing disks: an error with the file's name, and what was there stays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.launcher import completed
from tests.faults.test_loaders import own_mounts
from tests.small_training import fresh_state, last_state, limited, reporter_of, small_run, train
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
    out, _ = completed(run_dir, f"--kimg={(before + 8) / 1000}")
    assert "Done" in out and last_state(run_dir)["cur_nimg"] == before + 8


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
def test_a_disk_that_has_become_read_only_ends_the_run(cars, tmp_path):
    """As after a fault of the disk, in a separate process with separate mounts."""
    train(small_run(cars, 1), tmp_path)
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && "$@"'
    command = [*own_mounts(), "sh", "-c", mount, str(tmp_path), sys.executable, "train.py", f"--resume={tmp_path}"]
    done = subprocess.run([*command, "--duration=1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Read-only" in done.stderr, done.stderr
    assert f"{tmp_path}" in done.stderr
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert last_state(Path(tmp_path / "copy"))["cur_nimg"] == 4
