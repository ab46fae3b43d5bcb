"""What an evaluation refuses before it draws anything: one line that says what to do, and exit code 2."""

import os
import sys

import pytest

from tests.integration.test_evaluate import run
from tests.programs import one_error
from tests.published import published_weights, write_snapshot
from torch_utils import distributed


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--split", "test"], "no test split"),
        (["--data", "nothing/there"], "no such folder"),
        (["--seeds", "0-"], "--seeds"),
        (["--metrics", "diversity"], "--metrics diversity compares samples of several seeds: give --seeds 0-3"),
        (["--metrics", "lpips_vgg,fid"], "--metrics"),
        (["--views", "some"], "--views=some"),
        (["--guide", "old.pkl"], "old.pkl has no effect"),
        (["--churn", 3], "--churn=3 has no effect with --sampler=unipc: leave it out, or choose heun"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, wrong, named, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert run(*options, "--out_dir", tmp_path / "out", *wrong) == 2
    assert named in one_error(capsys).replace("'", "") and list(tmp_path.iterdir()) == []


def test_one_view_is_no_set(options, tmp_path, capsys):
    (tmp_path / "views.txt").write_text("3")
    options = [*options, "--objects", 1, "--metrics", "swd", "--out_dir", tmp_path / "out"]
    assert run(*options, "--views", tmp_path / "views.txt") == 2
    assert "--metrics swd: compares sets of images, and one view is no set" in one_error(capsys)


def test_baselines_that_cannot_be_are_refused_in_one_line(options, cars, tmp_path, capsys):
    theirs = write_snapshot(tmp_path / "network-snapshot-004000.pkl", published_weights())
    for wrong, named in (
        (["--baselines", "best"], "choose from colours, nearest, mean"),
        (["--baselines", "all", "--ckpt_path", theirs], "leave colours out"),
        (["--baselines", "mean", "--data", cars.with_name("cars_val")], "no train split"),
    ):
        assert run(*options, *wrong, "--out_dir", tmp_path / "out") == 2
        assert named in one_error(capsys) and not (tmp_path / "out").exists()


def test_more_processes_than_objects_are_refused(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    distributed.announce(4)
    assert run(*options, "--out_dir", tmp_path / "out", "--dry-run") == 2
    assert "3 object(s) for 4 processes" in one_error(capsys)
