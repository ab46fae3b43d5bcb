"""The standing benchmark of quality: the sets that it makes, and that its commands run."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import quality
from genvs.data.stored import StoredScenes
from genvs.metrics import psnr
from genvs.modalities import to_levels
from tests.programs import exit_code_of
from tests.small_model import SIZE

FAST = ("--denoising_steps", 1, "--metrics", "none", "--baselines", "nearest", "--device", "cpu")


@pytest.fixture(autouse=True)
def sets(tmp_path, monkeypatch) -> Path:
    """Where the sets are made."""
    monkeypatch.setattr(quality, "SETS", tmp_path / "sets")
    return tmp_path / "sets"


run = functools.partial(exit_code_of, quality.main)


@pytest.fixture
def scene(cars, tmp_path) -> Path:
    """Two views of a car."""
    source, folder = cars.with_name("cars_val") / "000000", tmp_path / "scene"
    for name in ("rgb/000001.png", "pose/000001.txt", "rgb/000004.png", "pose/000004.txt", "intrinsics.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, folder / name)
    return folder


def test_each_of_two_views_is_drawn_from_the_other(scene, snapshot, sets, tmp_path):
    command = ("views", "--data", scene, "--ckpt_path", snapshot, *FAST, "--seeds", 3)
    assert run(*command, "--out_dir", tmp_path / "out") == 0
    assert run(*command, "--out_dir", tmp_path / "out") == 0, "the set is the same one"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["objects"]) == ["0000-000001-to-000004", "0001-000004-to-000001"]
    assert results["protocol"]["sampler"] == "unipc" and results["protocol"]["seeds"] == [3]
    images = to_levels(StoredScenes(scene, resolution=SIZE).load(0, [0, 1]).images)
    between = psnr(images[:1], images[1:].double()).item()
    assert results["baselines"]["nearest"]["summary"]["psnr"]["mean"] == pytest.approx(between, abs=1e-4)
    pairs = StoredScenes(sets / "views_test", resolution=SIZE)
    there, back = (pairs.load(index, [0, 1]) for index in (0, 1))
    assert torch.equal(there.images, back.images.flip(0)) and not torch.equal(there.images[0], there.images[1])
    assert torch.equal(there.cameras.c2w, back.cameras.c2w.flip(0))


def test_held_out_cars(snapshot, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "PUBLISHED_RESOLUTION", SIZE)  # drawn faster
    command = ("cars", "--objects", 1, "--ckpt_path", snapshot, "--out_dir", tmp_path)
    assert run(*command, *FAST, "--seeds", 0) == 0
    protocol = json.loads((tmp_path / "results.json").read_text())["protocol"]
    assert protocol["input_views"] == [64] and len(protocol["target_views"]) == 11


def test_what_is_missing_is_named(scene, capsys):
    assert run("vehicles") == 2 and "--data" in capsys.readouterr().err
    assert run("vehicles", "--data", scene) == 2 and quality.VEHICLES[0] in capsys.readouterr().err
    (scene / "pose/000004.txt").unlink()
    assert run("views", "--data", scene) == 2 and "000004.txt" in capsys.readouterr().err
    (scene / "rgb/000004.png").unlink()
    assert run("views", "--data", scene) == 2 and "two views" in capsys.readouterr().err
