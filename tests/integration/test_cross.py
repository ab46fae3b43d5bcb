"""Every modality drawn from others: the experiments' views and runs, their figures by hand, and what is refused."""

import csv
import dataclasses
import functools
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import agreement
from genvs.data.baselines import mean_training_image, nearest_input
from genvs.data.stored import StoredScenes
from genvs.data.types import Views
from genvs.metrics import overlap, psnr, silhouettes
from genvs.modalities import MODALITIES, depth_decoded
from genvs.models import GeNVS
from genvs.random import normal, sample_keys
from genvs.sampling.synthesis import sampler_of, synthesize_views
from inference import evaluate, inference
from inference import options as shared_options
from inference.cross import FUSED, NUM_TARGETS, Cross, Experiment
from tests.programs import exit_code_of, one_error
from tests.small_model import SIZE, saved, small_config, small_net
from tests.unit.srn_folder import add_sensors, write_split

ALL = tuple(MODALITIES)
BLACK = (-1.0, -1.0, -1.0)


@pytest.fixture(scope="module")
def net() -> GeNVS:
    """It back-projects its inputs, as every network does at first, and its denoisers add some noise."""
    net = GeNVS(small_config(modalities=ALL)).eval().requires_grad_(False)
    for denoiser in net.denoisers.values():
        denoiser.unet.conv_out.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    return net


@pytest.fixture(scope="module")
def options(snapshot, tmp_path_factory) -> list[object]:
    """Of a network for all modalities; scene 2 of its data has no sonar."""
    folder = tmp_path_factory.mktemp("cross")
    for split in ("train", "test"):
        seed = len(split)
        for number, scene in enumerate(sorted(write_split(folder / f"cars_{split}", 3, 9, seed).iterdir())):
            sensors = ("lidar_depth", "sar") if number == 1 else ("lidar_depth", "sar", "sonar")
            add_sensors(scene, sensors, seed=10 * seed + number)
            for path in scene.glob("*/*.png"):  # something before a background
                picture = np.array(Image.open(path))
                seen = np.pad(np.ones((16, 16), bool), 8)
                picture[~seen] = 255 if path.parent.name == "rgb" else 0
                Image.fromarray(picture).save(path)
    return ["--ckpt_path", snapshot, "--data", folder / "cars", "--denoising_steps", 1, "--device", "cpu"]


run = functools.partial(exit_code_of, evaluate.main)
draw = functools.partial(exit_code_of, inference.main)


def table(path: Path) -> dict[tuple[str, ...], dict[str, float]]:
    with open(path) as file:
        rows = list(csv.DictReader(file))
    keys = ("inputs", "target", "drawing")
    return {
        tuple(row[key] for key in keys): {k: float(v) for k, v in row.items() if k not in keys and v} for row in rows
    }


@pytest.mark.parametrize(("name", "runs", "pictures"), [("pairs", 4, 12), ("fusion", 18, 14), ("sensors", 15, 4)])
def test_runs_share_their_views_and_take_none_twice(name, runs, pictures):
    experiment = Experiment(name, ALL, ALL)
    assert len(experiment.runs) == runs
    for scene in range(5):
        targets, views, kinds = experiment.choose(scene, 12)
        assert len(set(targets)) == NUM_TARGETS and not set(targets) & set(views) and len(views) == pictures
        one_pair = Experiment(name, ALL[2:3], ALL[:1]).choose(scene, 12)[0]
        assert (targets == one_pair).all(), "whatever the modalities"
        for name_of_run, places in experiment.runs.items():
            seen = list(zip(views[places], kinds[places], strict=True))
            assert len(set(seen)) == len(seen), name_of_run
            if name != "sensors":
                assert len(set(views[places])) == len(places)
    if name == "pairs":
        assert [set(kinds[places]) for places in experiment.runs.values()] == [{0}, {1}, {2}, {3}]
    elif name == "sensors":
        assert len(set(views)) == 1 and len({tuple(places) for places in experiment.runs.values()}) == 15
    else:
        together = [experiment.runs[f"all {number}"] for number in FUSED]
        assert sum(together, []) == list(range(pictures)) and list(map(len, together)) == list(FUSED)


def test_figures_of_a_pair_are_those_of_the_algorithm(options, net, tmp_path, capsys):
    assert run(*options, "--inputs", "sar", "--targets", "eo,depth", "--num_inputs", 2, "--out_dir", tmp_path) == 0
    found = table(tmp_path / "pairs.csv")
    drawings = ("network", "mean image", "nearest input")
    assert set(found) == {("sar", target, drawing) for target in ("rgb", "depth") for drawing in drawings}
    data, train = (
        StoredScenes(options[3].with_name(f"cars_{split}"), resolution=SIZE, modalities=ALL[:3])
        for split in ("test", "train")
    )
    mean = mean_training_image(train, range(3), "rgb")
    figures, agreements = [], []
    for scene in range(3):
        targets, views, kinds = Experiment("pairs", ("sar",), ("rgb", "depth"), 2).choose(scene, 9)
        inputs, drawn = data.load(scene, views, kinds).to("cpu"), {}
        for name in ("rgb", "depth"):
            wanted = data.load(scene, targets, MODALITIES[name].index).to("cpu")
            volume = net.encode(inputs.images[None], inputs.cameras[None])
            shown = net.render(volume, inputs.cameras[None], wanted.cameras[None], modality=name)[0]
            numbers = (scene << 20) + torch.from_numpy(targets)
            noise = normal(sample_keys(MODALITIES[name].index, numbers), (3, SIZE, SIZE))

            def denoise(noisy, sigma, shown=shown, name=name):
                return net.denoise(noisy, sigma, shown, modality=name)

            images = sampler_of(net, "heun", 1)(denoise, noise).clamp(-1, 1)
            images = images if name == "rgb" else images.mean(dim=1, keepdim=True).expand_as(images)
            drawn[name] = (images * 127.5 + 127.5).round() / 127.5 - 1
            copied = nearest_input(inputs[None], wanted.cameras[None])[0]
            if name == "rgb":
                every = (drawn[name], (mean * 127.5 + 127.5).round() / 127.5 - 1, copied)
                figures.append([psnr(pictures, wanted.images).mean() for pictures in every])
                folder = tmp_path / "pairs-images" / "sar-to-rgb"
                strip = np.asarray(Image.open(folder / f"{scene:04d}-car{scene + 1}.png"))
        assert np.abs(strip / 127.5 - 1 - np.concatenate(drawn["rgb"].movedim(1, -1).numpy(), axis=1)).max() < 0.02
        masks = silhouettes(drawn["rgb"]), silhouettes(drawn["depth"], BLACK)
        agreements.append(overlap(*masks).mean())
    for drawing, expected in zip(drawings, np.mean(figures, axis=0), strict=True):
        assert found["sar", "rgb", drawing]["psnr"] == pytest.approx(expected, abs=0.02)
    assert found["sar", "depth", "network"]["agreement"] == pytest.approx(np.mean(agreements), abs=0.01)
    assert 0 <= found["sar", "depth", "network"]["depth_error"] <= 1
    assert "depth_error" not in found["sar", "rgb", "network"]
    folders = [str(tmp_path / "pairs-images" / f"sar-to-{target}") for target in ("rgb", "depth")]
    capsys.readouterr()
    assert exit_code_of(agreement.main, *folders) == 0
    shown = re.fullmatch(r"IoU of silhouettes: ([\d.]+) \(3 scenes\)\n", capsys.readouterr().out)
    assert float(shown[1]) == pytest.approx(found["sar", "depth", "network"]["agreement"], abs=1e-3)
    assert exit_code_of(agreement.main, folders[0], tmp_path) == 2 and "does not have the scenes" in one_error(capsys)
    check_columns((tmp_path / "pairs.md").read_text(), found)


def check_columns(page: str, found: dict[tuple[str, ...], dict[str, float]]) -> None:
    """The page shows by how much photos from radar are better than the better baseline, and counts them."""
    for title, measure, digits in (("## PSNR", "gray_psnr", 2), ("## IoU", "iou", 3)):
        header, _, line, _, better = page.partition(title)[2].splitlines()[2:7]
        column = header.split(" | ").index("rgb in gray" if measure == "gray_psnr" else "rgb")
        own, *others = (found["sar", "rgb", drawing][measure] for drawing in ("network", "mean image", "nearest input"))
        value, margin = re.fullmatch(r"\**([\d.]+)\** \(([+-][\d.]+)\)", line.strip("| ").split(" | ")[column]).groups()
        assert float(value) == pytest.approx(own, abs=10**-digits)
        assert float(margin) == pytest.approx(own - max(others), abs=2 * 10**-digits)
        assert better.strip("| ").split(" | ")[column] == f"{int(own > max(others))} of 1"
        assert ("**" in line.split(" | ")[column]) == (own > max(others))


@pytest.mark.parametrize(("name", "runs"), [("pairs", 4), ("fusion", 18), ("sensors", 15)])
def test_every_experiment_makes_its_table_and_sheet(options, tmp_path, name, runs):
    assert run(*options, "--cross", name, "--targets", "rgb,sonar", "--objects", 1, "--out_dir", tmp_path) == 0
    found = table(tmp_path / f"{name}.csv")
    assert len(found) == 3 * 2 * runs and all(0 < row["psnr"] < 60 and 0 <= row["iou"] <= 1 for row in found.values())
    folders = [path.name for path in (tmp_path / f"{name}-images").iterdir()]
    assert len(folders) == 2 * runs
    with Image.open(next((tmp_path / f"{name}-images").glob("*-to-sonar/0000-car1.png"))) as gray:
        assert gray.mode == "L" and gray.size == (NUM_TARGETS * SIZE, SIZE)
    with Image.open(tmp_path / f"{name}.png") as sheet:
        assert sheet.width > 5 * 192 and sheet.height > 5 * 192
    assert (tmp_path / "fusion-curves.png").exists() == (name == "fusion")
    page = (tmp_path / f"{name}.md").read_text()
    assert ("alone → together" in page) == (name == "fusion")
    assert "* scenes: 1 of 3" in page


def test_an_interrupted_experiment_continues(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shared_options, "ROOT", tmp_path)
    drawn: list[str | None] = []
    draw = Cross._draw

    def counted(cross, name, *rest):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(name)
        return draw(cross, name, *rest)

    pairs = [*options, "--inputs", "rgb,sar", "--targets", "rgb,sar", "--objects", 1]
    pairs += ["--sampler", "heun", "--denoising_steps", 5, "--churn", 20]
    assert run(*pairs, "--out_dir", tmp_path / "whole") == 0
    monkeypatch.setattr(Cross, "_draw", counted)
    assert run(*pairs) not in (0, 2) and "the same command again" in capsys.readouterr().err
    (out,) = (tmp_path / "inference" / "output").iterdir()
    first, _ = sorted(out.glob("pairs-images/*/*.png"))
    assert not (out / "pairs.csv").exists()
    first.write_bytes(first.read_bytes()[:200])  # of a power cut
    (first.parent / f".{first.name}.999999999.tmp").touch()
    drawn[:] = [None] * 3
    assert run(*pairs) == 0
    assert len(drawn) == 3 + 3 and [path.name for path in first.parent.iterdir()] == [first.name]
    assert (out / "pairs.csv").read_text() == (tmp_path / "whole" / "pairs.csv").read_text()
    assert run(*pairs) == 0 and len(drawn) == 3 + 3, "nothing new"
    capsys.readouterr()
    assert run(*pairs, "--targets", "sar", "--out_dir", out) == 2
    assert "drawn with targets rgb, sar, not sar" in one_error(capsys)


def test_batches_do_not_matter_and_scenes_without_a_sensor_are_left_out(options, tmp_path, capsys):
    pages = []
    for size in (1, 64):
        out = tmp_path / str(size)
        assert run(*options, "--inputs", "sonar", "--targets", "depth", "--batch_size", size, "--out_dir", out) == 0
        assert "scenes: 2 of 3" in capsys.readouterr().out
        assert {path.name for path in out.glob("*/*/*.png")} == {"0000-car1.png", "0002-car3.png"}
        pages.append(table(out / "pairs.csv")["sonar", "depth", "network"]["psnr"])
    assert pages[0] == pytest.approx(pages[1], abs=0.01)


def test_a_copied_input_is_of_the_targets_modality_where_there_is_one(options):
    data = StoredScenes(options[3].with_name("cars_test"), resolution=SIZE, modalities=ALL[:3])
    inputs = data.load(0, [0, 1, 2], np.array([0, 1, 0])).to("cpu")
    targets = data.load(0, [0, 2], np.array([1, 2])).cameras
    copied = nearest_input(inputs[None], targets[None])[0]
    assert torch.equal(copied[0], inputs.images[1]) and torch.equal(copied[1], inputs.images[2])
    photos = Views(inputs.images, dataclasses.replace(inputs.cameras, modality=torch.zeros(3, dtype=torch.int64)))
    assert torch.equal(nearest_input(photos[None], targets[None])[0], inputs.images[[0, 2]])


def test_a_sensor_that_no_scene_has_is_named(options, tmp_path, capsys):
    write_split(tmp_path / "cars_test", 2, 6)
    photos = [*options, "--data", tmp_path / "cars", "--near", 0.8, "--far", 1.8]
    assert run(*photos, "--inputs", "rgb", "--targets", "sonar") == 2
    assert "cars_test: no scene has all of rgb, sonar: add their pictures" in one_error(capsys)
    assert run(*photos, "--inputs", "sar", "--targets", "sonar") == 2
    assert "car1: has no sar/ or sonar/; add one with pictures" in one_error(capsys)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--inputs", "infrared"], "--inputs=infrared: the network was trained on rgb, depth, sar, sonar"),
        (["--cross", "pairs", "--views", "list"], "--views has no effect"),
        (["--cross", "fusion", "--seeds", "0-3"], "--seeds has no effect"),
        (["--cross", "sensors", "--num_inputs", 2], "--num_inputs has no effect with --cross=sensors"),
        (["--cross", "sensors", "--split", "val"], "no val split"),
    ],
)
def test_refusals(options, wrong, named, tmp_path, capsys):
    assert run(*options, *wrong, "--out_dir", tmp_path / "out") == 2
    assert named in one_error(capsys) and not (tmp_path / "out").exists()


def test_without_matplotlib_there_are_no_curves(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    arguments = [*options, "--cross", "fusion", "--objects", 1, "--targets", "sar", "--out_dir", tmp_path]
    assert run(*arguments) == 0 and "matplotlib: pip install" in capsys.readouterr().err
    assert (tmp_path / "fusion.png").exists() and not (tmp_path / "fusion-curves.png").exists()


def test_a_network_draws_what_it_knows_and_results_are_not_overwritten(options, tmp_path, capsys):
    pair = [*options, "--ckpt_path", saved(tmp_path / "photos.pkl", small_net()), "--out_dir", tmp_path / "out"]
    assert run(*pair, "--inputs", "sar") == 2
    assert "--inputs=sar: the network was trained on rgb" in one_error(capsys)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pairs.md").touch()
    assert run(*pair, "--inputs", "rgb") == 2 and "pairs.md exists and is not overwritten" in one_error(capsys)


def test_the_ordinary_evaluation_says_that_it_measures_photos(options, tmp_path, capsys):
    assert run(*options, "--dry-run") == 0
    assert "Measured: rgb drawn from rgb; for others of rgb, depth, sar, sonar" in capsys.readouterr().out
    blind = saved(tmp_path / "blind.pkl", small_net(modalities=("depth", "sar")))
    assert run(*options, "--ckpt_path", blind) == 2
    assert "draws depth, sar" in (error := one_error(capsys)) and "--cross" in error


@pytest.mark.parametrize("target", ["rgb", "depth", "sar"])
def test_a_folder_is_drawn_from_all_that_it_has(options, net, tmp_path, target):
    """Three views in three modalities are nine inputs; the pictures can be read as files of a dataset."""
    scene = options[3].with_name("cars_test") / "car2"
    arguments = [*options[:2], *options[4:], "--in_dir", scene, "--inputs", "0,1,2", "--targets", "3,4"]
    planes = ["--near", 0.8, "--far", 1.8]
    assert draw(*arguments, *planes, "--target", target, "--out_dir", tmp_path / "out") == 0
    folder = tmp_path / "out" / ("steps=1" if target == "rgb" else f"steps=1_target={target}")
    data = StoredScenes(scene, resolution=SIZE, modalities=ALL, near=0.8, far=1.8)
    given = data.load(0, [0, 1, 2] * 3, np.repeat([0, 1, 2], 3))
    cameras = data.load(0, [3, 4], MODALITIES[target].index).cameras
    views = synthesize_views(net, given[None], cameras[None], num_steps=1, modality=target, progress=False)
    for name, (image, _) in zip(("4", "5"), views, strict=True):
        with Image.open(folder / "pred" / f"{name}.png") as file:
            assert file.mode == {"rgb": "RGB", "depth": "I;16", "sar": "L"}[target]
            picture = np.asarray(file).astype(float)
        if target == "depth":
            picture *= json.loads((folder / "scene.json").read_text())["depth_scale"]
            levels = image[0].double().numpy() * 127.5 + 127.5
            seen = levels > 8
            assert seen.any() and ((picture > 0) == seen).all()
            assert np.abs(picture - depth_decoded(levels, 0.8, 1.8))[seen].max() < 1e-4
        else:
            expected = image.movedim(0, -1).numpy() * 127.5 + 127.5
            assert np.abs(picture - (expected if target == "rgb" else expected[..., 0])).max() <= 0.51
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 8 * 192


def test_a_video_of_radar_and_what_is_not_known_is_refused(options, tmp_path, capsys):
    scene = options[3].with_name("cars_test") / "car1"
    video = [*options[:2], *options[4:], "--in_dir", scene, "--video", "--frames", 2, "--cond_method", "autoreg"]
    assert draw(*video, "--target", "raysar", "--out_dir", tmp_path) == 0
    assert len(list(tmp_path.glob("*.mp4"))) == 1
    photos = saved(tmp_path / "photos.pkl", small_net())
    capsys.readouterr()
    assert draw(*video, "--ckpt_path", photos, "--target", "sar") == 2
    assert "--target=sar: the network was trained on rgb" in one_error(capsys)
    assert draw(*video, "--guide", photos, "--guidance", 2) == 2
    assert "photos.pkl: was trained on rgb: give a snapshot of the same run" in capsys.readouterr().err
