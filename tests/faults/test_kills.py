"""SIGKILL at named points of a write and at random instants: files stay whole, and the run goes on bit for bit."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from genvs import files
from tests.conftest import ROOT, counted
from tests.faults.points import POINTS, fail, set_point
from tests.small_training import fresh_state, last_state, reporter_of, small_run
from training.run_folder import find_resume_state
from training.state import save_training_state


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(cars, tmp_path, every_fault):
    kills = 100 if every_fault else 14
    command = [sys.executable, "-m", "tests.faults.kills", str(cars), str(tmp_path), str(kills), "1"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["found"] == [] and result["kills"] == kills
    counted("kills survived, with the run's end equal bit for bit", kills, kills)


@pytest.mark.parametrize("point", [name for name in POINTS if name not in ("half written", "while removing orphans")])
def test_an_error_at_any_point_of_a_write_ends_the_run_and_names_the_file(cars, started, tmp_path, point, monkeypatch):
    monkeypatch.setattr(torch, "save", torch.save)  # restored afterwards, as are the others
    for module, name in ((os, "fsync"), (os, "replace")):
        monkeypatch.setattr(module, name, getattr(module, name))
    config = small_run(cars, 6, snapshot_ticks=1, state_ticks=1)
    run_dir, state = shutil.copytree(started, tmp_path / "run"), fresh_state(config)
    with pytest.raises(OSError, match="could not be saved: Input/output error: '.*/training-state-"):
        with reporter_of(config, state, run_dir) as reporter:
            set_point(point, fail)
            state.cur_nimg += config.batch_size * 2
            reporter._save(save_training_state)
    _, found = find_resume_state(str(run_dir), "")
    assert found["cur_nimg"] in (0, state.cur_nimg) and not list(run_dir.glob(".*.tmp"))


def test_the_newest_valid_state_wins(started, tmp_path, capsys):
    """By its number, not by its time; whatever else lies there."""
    content = last_state(started)
    valid = tmp_path / "training-state-000010.pt"
    files.save_atomic({**content, "cur_nimg": 10_000}, valid)
    (tmp_path / "training-state-000009.pt").write_bytes(valid.read_bytes())  # newer by its time
    whole = valid.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 1
    for number, data in {11: b"", 12: whole[:-100], 13: bytes(spoilt), 14: b"PK\3\4"}.items():
        (tmp_path / f"training-state-{number:06d}.pt").write_bytes(data)
    (tmp_path / ".training-state-000015.pt.1.tmp").write_bytes(whole)
    (tmp_path / "training-state-000016.pt.partial").write_bytes(whole)
    path, found = find_resume_state(str(tmp_path), "")
    assert path == valid and found["cur_nimg"] == 10_000
    assert capsys.readouterr().out.count("Passing over") == 4
