"""Data in other formats, trained on and drawn from: `transforms.json`, COLMAP, and a user's own class."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genvs
from genvs.data.scenes import SampleRequest
from genvs.models import GeNVS
from inference import evaluate, inference
from tests.programs import exit_code_of
from tests.small_model import saved, small_net
from tests.small_training import BATCH, kimg, records, resume, small_run, train
from tests.unit.colmap_folder import write_model
from tests.unit.srn_folder import some_c2w
from tests.unit.test_data_class import EXAMPLE, write_npz
from tests.unit.transforms_folder import frame, write_capture, write_transforms
from training.data import RunData, open_data
from training.run_folder import find_resume_state


def test_train_on_captures_and_draw_from_one(tmp_path, capsys):
    """Large scenes away from the origin, in folders of a `transforms.json` each; the drawn one has test cameras."""
    poses = some_c2w(9, radius=8.0)
    poses[:, :3, 3] += [50.0, 0.0, -20.0]
    for scene in range(4):
        write_capture(tmp_path / "captures" / f"scene{scene}", seed=scene, c2w=poses[:6])
    run_dir = tmp_path / "run"
    train(small_run(tmp_path / "captures", updates=2, normalize=True), run_dir, held_out=True)
    assert "scene0 moved by (-50, 0, 20)" in capsys.readouterr().out
    assert any("PSNR/1_input" in record for record in records(run_dir))

    folder = tmp_path / "captures" / "scene3"
    write_transforms(folder / "transforms_test.json", [frame("a", poses[7]), frame("b", poses[8])], camera_angle_x=0.9)
    arguments = ["--in_dir", folder, "--out_dir", tmp_path / "out", "--ckpt_path", *run_dir.glob("*.pkl")]
    assert exit_code_of(inference.main, *arguments, "--denoising_steps=1", "--device=cpu", "--normalize") == 0
    said = capsys.readouterr()
    assert said.err.count("Warning") == 1 and "trained on" in said.err
    assert "--normalize: the scene is moved by (-50, 0, 20), then scaled by 0.1625; its cameras are now 1.3" in said.out
    for name in "ab":
        with Image.open(tmp_path / "out" / "steps=1" / "pred" / f"{name}.png") as image:
            assert image.size == (32, 32) and np.asarray(image).std() > 1


def test_a_run_with_a_class_of_ones_own_resumes_with_it(tmp_path):
    config = small_run(write_npz(tmp_path / "captures"), updates=2, data_class=EXAMPLE, convention="opencv")
    train(config, tmp_path / "run")
    assert find_resume_state(str(tmp_path / "run"), "")[1]["config"] == config
    assert resume(tmp_path / "run", duration_kimg=kimg(3))["cur_nimg"] == 3 * BATCH


@pytest.fixture
def given(snapshot, tmp_path) -> list[object]:
    """Options of a short evaluation."""
    return ["--ckpt_path", snapshot, "--out_dir", tmp_path / "out", "--device=cpu", "--denoising_steps=1"]


def test_what_a_class_of_ones_own_reads_is_evaluated_with_it(given, tmp_path):
    data = ["--data", write_npz(tmp_path / "captures"), f"--data-class={EXAMPLE}", "--convention=opencv"]
    assert exit_code_of(evaluate.main, *given, *data, "--metrics=none") == 0
    objects = json.loads((tmp_path / "out" / "results.json").read_text())["objects"]
    assert list(objects) == ["0000-0", "0001-1", "0002-2"]


def test_evaluation_normalizes_to_the_distance_that_the_network_knows(tmp_path, capsys):
    config = small_net().config
    config = dataclasses.replace(config, scene=dataclasses.replace(config.scene, near=1.5, far=2.5, radius=2.0))
    snapshot = saved(tmp_path / "far.pkl", GeNVS(config))
    given = [f"--ckpt_path={snapshot}", f"--data={write_npz(tmp_path / 'captures')}", "--device=cpu"]
    given += [f"--data-class={EXAMPLE}", "--metrics=none", "--dry-run"]
    for options, warned in (["--normalize"], False), ([], True):
        assert exit_code_of(evaluate.main, *given, *options) == 0
        assert ("outside near=1.5" in capsys.readouterr().err) == warned


def test_consistency_needs_the_background_that_images_have(given, cars, tmp_path, capsys):
    split = shutil.copytree(Path(f"{cars}_val"), tmp_path / "cars_val")
    for picture in split.glob("*/rgb/*.png"):
        with Image.open(picture) as image:
            inverted = 255 - np.asarray(image.convert("RGB"))
        Image.fromarray(inverted).save(picture)
    for options, code, said in (([], 2, "do not have the background"), (["--background=black"], 0, "")):
        assert exit_code_of(evaluate.main, *given, "--data", split, "--metrics=consistency", *options) == code
        assert said in capsys.readouterr().err


def test_photos_of_one_object_train_and_are_drawn_from(tmp_path, capsys):
    """A COLMAP scene with distortion, masks, images that are not square and another background; views are held out."""
    folder, poses = tmp_path / "cup", some_c2w(9)
    for view in range(9):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(view).integers(0, 200, (24, 36, 3), dtype=np.uint8)
            pixels = pixels if kind == "images" else np.uint8(255) * (pixels > 20)
            Image.fromarray(pixels).save(folder / kind / f"{view}.png")
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (30, 3))
    lens = {"model": "OPENCV", "parameters": (36, 36, 18, 12, 0.1, 0.02, 0.001, 0.002), "size": (36, 24)}
    write_model(folder / "sparse" / "0", [f"{view}.png" for view in range(9)], poses, points, **lens)
    config = small_run(folder, updates=2, fit="crop", background=(0, 40, 80))
    data = open_data(config)
    assert data.train.held_out_views(0).tolist() == [0, 8] and "2 of 9" in capsys.readouterr().out
    drawn = {int(view) for batch in range(40) for view in views_of(data, batch)}
    assert drawn == set(range(1, 8)), "the others"
    train(config, tmp_path / "run", held_out=True)
    assert "held-out PSNR" in capsys.readouterr().out
    snapshot = max((tmp_path / "run").glob("*.pkl"))
    for file in (snapshot, max((tmp_path / "run").glob("*.pt"))):
        scene = genvs.load_snapshot(file).config.scene
        assert (scene.fit, scene.background, scene.own_depths) == ("crop", (0, 40, 80), True)
    arguments = [f"--in_dir={folder}", f"--out_dir={tmp_path / 'out'}", f"--ckpt_path={snapshot}", "--inputs=0,3"]
    for more in ("--targets=5", "--video --frames=1", "--targets=4 --fit=pad --background=black --near=0.7 --far=1.9"):
        code = exit_code_of(inference.main, *arguments, *more.split(), "--denoising_steps=1", "--device=cpu")
        assert code == 0, capsys.readouterr().err
        shutil.rmtree(tmp_path / "out")


def views_of(data: RunData, sample: int) -> list[int]:
    """The numbers of the views of a sample, by their cameras."""
    batch = data.train[[SampleRequest(0, sample, 2, 1)]]
    cameras = data.train.load(0, range(data.train.num_views(0))).cameras.centers
    used = torch.cat([batch.inputs.cameras.centers[0], batch.targets.cameras.centers[0]])
    return torch.cdist(used, cameras).argmin(dim=1).tolist()
