"""An evaluation, from a snapshot and a dataset to figures: what it draws, measures, keeps and refuses."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.data.stored import StoredScenes
from genvs.data.types import Views
from genvs.metrics import hull_agreement, psnr, ssim
from genvs.metrics.wasserstein import random_patches, sliced_wasserstein
from genvs.sampling.synthesis import synthesize_views
from inference import evaluate
from inference import options as shared_options
from tests.conftest import ROOT
from tests.programs import exit_code_of, one_error
from tests.published import published_weights, write_snapshot
from tests.small_model import SIZE, saved, small_net
from torch_utils import distributed

INPUT, TARGETS = 1, [0, 2, 3, 4, 5]  # of six views the one that stands for SRN's 64, and the others
METRICS = "consistency,swd"
OBJECTS = ["0000-000000", "0001-000001", "0002-000002"]
run = functools.partial(exit_code_of, evaluate.main)


@pytest.fixture(scope="module")
def done(options, tmp_path_factory) -> Path:
    """The results of two seeds."""
    out = tmp_path_factory.mktemp("evaluation") / "new" / "out"
    assert run(*options, "--seeds", "0,5", "--metrics", METRICS, "--out_dir", out) == 0
    return out


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def drawn(out: Path, name: str, seed: int, views: Sequence[int] = TARGETS) -> torch.Tensor:
    """uint8 `[5, 3, SIZE, SIZE]`."""
    folder = out / "images" / f"seed={seed}" / name
    assert sorted(path.name for path in folder.iterdir()) == [f"{view:06d}.png" for view in views]
    images = [np.array(Image.open(folder / f"{view:06d}.png")) for view in views]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2)


def change_times(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}


@pytest.fixture
def dataset(cars) -> StoredScenes:
    return StoredScenes(cars.with_name("cars_val"), resolution=SIZE)


def test_images_are_the_algorithms(done, net, dataset):
    for seed in (0, 5):
        inputs, targets = dataset.load(1, [INPUT]), dataset.load(1, TARGETS)
        fresh = {"noise": "fresh", "first_view": 1 << 20, "seed": seed}
        views = synthesize_views(net, inputs[None], targets.cameras[None], num_steps=1, progress=False, **fresh)
        expected = torch.stack([image for image, _ in views]) * 127.5 + 127.5
        assert (drawn(done, OBJECTS[1], seed) - expected).abs().max() <= 1


def test_figures_are_those_of_the_images(done, dataset):
    content = results(done)
    assert sorted(content["objects"]) == OBJECTS and content["protocol"]["num_objects"] == 3
    means, of_sets = [], []
    for index, name in enumerate(OBJECTS):
        targets = dataset.load(index, TARGETS).to("cpu")
        samples = torch.stack([drawn(done, name, seed) for seed in (0, 5)]).double() / 127.5 - 1
        wanted = targets.images.double()
        figures = content["objects"][name]
        for metric, values, of_mean in (
            ("psnr", psnr(samples, wanted), psnr(samples.mean(0), wanted)),
            ("ssim", ssim(samples, wanted), ssim(samples.mean(0), wanted)),
            ("ssim_uniform", ssim(samples, wanted, "uniform"), ssim(samples.mean(0), wanted, "uniform")),
        ):
            expected = {"mean": values.mean(), "best": values.amax(0).mean(), "mean_image": of_mean.mean()}
            assert figures[metric] == pytest.approx({key: float(value) for key, value in expected.items()}, abs=1e-6)
        views = Views.cat([dataset.load(index, [INPUT]).to("cpu"), targets])
        agreements = [hull_agreement(torch.cat([views.images[:1], s.float()]), views.cameras) for s in samples]
        assert figures["consistency"] == pytest.approx({"mean": sum(agreements) / 2, "best": max(agreements)})
        means.append(figures["psnr"]["mean"])
        of_sets.append([random_patches(images.float(), 128) for images in (wanted, *samples)])
    summary = content["summary"]["psnr"]
    assert summary["mean"] == pytest.approx(np.mean(means))
    real, *others = map(torch.cat, zip(*of_sets, strict=True))
    expected = 1000 * float(sliced_wasserstein(real, torch.cat(others)).mean())
    assert content["summary"]["swd"]["mean"] == pytest.approx(expected, rel=1e-4)
    assert summary["standard_error"] == pytest.approx(np.std(means, ddof=1) / 3**0.5)


def test_everything_is_written_down(done, snapshot):
    content = results(done)
    expected = {"snapshot": str(snapshot), "num_inputs": 1, "views": "all", "num_steps": 1, "seeds": [0, 5]}
    assert expected.items() <= content["protocol"].items()
    assert content["protocol"]["input_views"] == [INPUT] and content["protocol"]["target_views"] == TARGETS
    table = (done / "table.md").read_text()
    assert "best of 2** (not comparable)" in table and "* num_objects: 3\n" in table and "* seeds: 0, 5\n" in table
    with Image.open(done / "contact_sheet.png") as sheet:
        assert sheet.width > 5 * 192 and sheet.height > 3 * 5 * 192, "input, target, two samples, error, of three"


def test_an_interrupted_evaluation_continues(done, options, tmp_path):
    done = shutil.copytree(done, tmp_path / "out")
    before, content = change_times(done), results(done)
    again = [*options, "--seeds", "0,5", "--metrics", METRICS, "--out_dir", done]
    # What a killed run and a power cut leave: a part of an object, and half of an image.
    missing, damaged = (done / "images" / "seed=5" / name for name in OBJECTS[1:])
    (missing / "000003.png").rename(missing / ".000003.png.999999999.tmp")
    whole = (damaged / "000002.png").read_bytes()
    (damaged / "000002.png").write_bytes(whole[: len(whole) // 2])
    (done / "results.json").unlink()
    assert run(*again) == 0 and results(done) == content
    assert len(drawn(done, OBJECTS[1], 5)) == 5, "and nothing else is in the folder"
    after = change_times(done)
    redrawn = {path for path in after if after[path] != before.get(path)}
    assert redrawn == {str(folder / f"{view:06d}.png") for folder in (missing, damaged) for view in TARGETS}
    # Another seed is drawn beside, and nothing else.
    assert run(*again, "--seeds", "0,5,7") == 0
    added = {path for path, time in change_times(done).items() if time != after.get(path)}
    assert len(added) == 3 * len(TARGETS) and all("seed=7" in path for path in added)


FEWER = {
    "--seeds=0": "--seeds 5",
    "--metrics=none": f"--metrics {METRICS}",
    "--objects=2": "--objects 3",
    "--baselines=none": "--baselines nearest",
}


def test_figures_are_not_overwritten_by_fewer(done, options, tmp_path, capsys):
    out = shutil.copytree(done, tmp_path / "out")
    finished = results(out)
    (out / "results.json").write_text(json.dumps({"protocol": {**finished["protocol"], "baselines": ["nearest"]}}))
    before = results(out)
    same = [*options, "--seeds", "0,5", "--metrics", METRICS, "--baselines", "nearest", "--out_dir", out]
    for fewer, named in FEWER.items():
        assert run(*same, fewer) == 2 and results(out) == before
        assert f"has figures for {named}, which would be lost" in one_error(capsys)
    assert run(*same, "--dry-run") == 0


def test_images_of_other_data_are_not_taken_for_these(options, cars, tmp_path, capsys):
    data = shutil.copytree(Path(f"{cars}_val"), tmp_path / "cars_val")
    arguments = [*options, "--data", data, "--objects", 1, "--metrics", "none", "--out_dir", tmp_path / "out"]
    assert run(*arguments) == 0
    first, second = sorted((data / "000000" / "rgb").glob("*.png"))[:2]
    first.write_bytes(second.read_bytes())
    capsys.readouterr()
    assert run(*arguments) == 2 and "drawn with other contents of the data" in one_error(capsys)


def test_two_evaluations_at_once_need_two_folders(options, tmp_path, capsys):
    arguments = [*options, "--objects", 1, "--metrics", "none", "--out_dir", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    hold = f"import fcntl\nfile = open('{tmp_path}/out/.lock', 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)"
    hold += "\nprint(flush=True)\ninput()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as other:
        other.stdout.readline()
        assert run(*arguments) == 2 and "another process writes there" in one_error(capsys)
        other.communicate("\n")
    assert run(*arguments) == 0


def test_two_processes_draw_and_measure_the_same(done, options, dataset, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NGPU": "2", "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [ROOT / "inference" / "evaluate.sh", *options, "--seeds=0", "--baselines=mean", "--metrics=swd"]
    command = [*map(str, command), "--out_dir", "out"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("results.json") == 1 and result.stdout.count("sampler: unipc") == 1
    objects, of_sets = results(tmp_path / "out")["objects"], []
    assert sorted(objects) == OBJECTS == sorted(results(tmp_path / "out")["baselines"]["mean"]["objects"])
    for index, name in enumerate(OBJECTS):
        images = drawn(tmp_path / "out", name, 0)
        assert (images.int() - drawn(done, name, 0).int()).abs().max() <= 1
        both = [dataset.load(index, TARGETS).to("cpu").images, images / 127.5 - 1]
        by_hand = psnr(*map(torch.Tensor.double, both)).mean().item()
        assert objects[name]["psnr"]["mean"] == pytest.approx(by_hand, abs=1e-5)
        of_sets.append([random_patches(images.float(), 128) for images in both])
    expected = 1000 * float(sliced_wasserstein(*map(torch.cat, zip(*of_sets, strict=True))).mean())
    assert results(tmp_path / "out")["summary"]["swd"]["mean"] == pytest.approx(expected, rel=1e-4), "of both processes"


def test_baselines_stand_beside_the_samples(options, net, cars, tmp_path):
    """Made by hand: the feature image's colours, the input with the nearest camera, the mean of the training images."""
    assert run(*options, "--num_inputs", 2, "--baselines", "all", "--out_dir", tmp_path) == 0
    split, train = (StoredScenes(cars.with_name(f"cars_{name}"), resolution=SIZE) for name in ("val", "train"))
    mean = torch.cat([train.load(scene, range(6)).images for scene in range(12)]).double().mean(dim=0)
    content, copied = results(tmp_path), set()
    for index, name in enumerate(OBJECTS):
        inputs, targets = (split.load(index, places).to("cpu") for places in ([1, 2], [0, 3, 4, 5]))
        features = net.render(net.encode(inputs.images[None]), inputs.cameras[None], targets.cameras[None])[0]
        nearest = (targets.cameras.centers[:, None] - inputs.cameras.centers).norm(dim=-1).argmin(dim=-1)
        copied |= set(nearest.tolist())
        expected = {
            "colours": (features[:, :3] + 1).clamp(-1, 1) * 127.5 + 127.5,
            "nearest": split.load(index, [1, 2]).images[nearest],
            "mean": mean.expand(4, -1, -1, -1),
        }
        assert (expected["colours"] == 255).float().mean() < 0.9, "more than background"
        for baseline, images in expected.items():
            paths = [tmp_path / "images" / f"baseline={baseline}" / name / f"{view:06d}.png" for view in (0, 3, 4, 5)]
            found = torch.stack([torch.tensor(np.array(Image.open(path))).permute(2, 0, 1) for path in paths])
            assert (found - images.double()).abs().max() <= (0 if baseline == "nearest" else 0.51)
            figures = content["baselines"][baseline]["objects"][name]
            by_hand = psnr(found.double() / 127.5 - 1, targets.images.double()).mean().item()
            assert figures["psnr"] == pytest.approx({"mean": by_hand}, abs=1e-5)
    assert copied == {0, 1}, "each input is the nearest somewhere"
    table = (tmp_path / "table.md").read_text()
    for figures in (content["summary"]["psnr"], *(of["summary"]["psnr"] for of in content["baselines"].values())):
        assert f" | {figures['mean']:.2f} ± {figures['standard_error']:.2f} | " in table
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.height > 3 * (1 + 6) * 192, "input; target, sample, three baselines, error; of three objects"


def test_other_views_inputs_and_sampling(options, snapshot, net, dataset, tmp_path):
    file = tmp_path / "views.txt"
    file.write_text("5 0\n")
    arguments = [*options, "--sampler", "heun", "--denoising_steps", 2, "--metrics", "none", "--objects", 1]
    arguments += ["--guidance", 1.5, "--guide", snapshot, "--noise", "fresh"]
    assert run(*arguments, "--num_inputs", 2, "--views", file, "--out_dir", tmp_path / "out") == 0
    content = results(tmp_path / "out")
    assert content["protocol"]["input_views"] == [1, 2] and content["protocol"]["target_views"] == [5, 0]
    assert content["summary"].keys() == {"psnr", "ssim", "ssim_uniform"}
    assert "standard_error" not in content["summary"]["psnr"]
    assert content["protocol"]["guide_sha256"] == content["protocol"]["snapshot_sha256"]
    inputs, targets = dataset.load(0, [1, 2]), dataset.load(0, [5, 0])
    # Guidance by the network itself changes nothing.
    sampling = {"sampler": "heun", "num_steps": 2, "noise": "fresh"}
    views = synthesize_views(net, inputs[None], targets.cameras[None], progress=False, **sampling)
    for view, (image, _) in zip([5, 0], views, strict=True):
        path = tmp_path / "out" / "images" / "seed=0" / OBJECTS[0] / f"{view:06d}.png"
        assert np.abs(np.array(Image.open(path)) - (image.movedim(0, -1).numpy() * 127.5 + 127.5)).max() <= 1.5
    assert len(change_times(tmp_path / "out")) == 2


def test_the_default_folder_follows_from_the_options(options, snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shared_options, "ROOT", tmp_path)
    assert run(*options, "--views", "list", "--objects", 1, "--metrics", "none") == 0
    assert capsys.readouterr().out.count("snapshot: ") == 1, "what was drawn is said once"
    folder = f"evaluation-{snapshot.parent.name}-000001-cars_val-steps=1_noise=fresh-*"
    assert len(list(tmp_path.glob(f"inference/output/{folder}/table.md"))) == 1
    for view in "05":  # in files of the same name
        file = tmp_path / view / "views.txt"
        file.parent.mkdir()
        file.write_text(view)
        assert run(*options, "--views", file, "--objects", 1, "--metrics", "none") == 0
    assert len(list((tmp_path / "inference" / "output").iterdir())) == 3
    assert run("--data", "x") == 2 and "train.sh" in one_error(capsys), "without a snapshot"
    (tmp_path / "models").mkdir()
    (tmp_path / shared_options.DEMO).write_bytes(snapshot.read_bytes())
    assert run(*options[2:], "--dry-run") == 0
    assert f"snapshot: {tmp_path / shared_options.DEMO}" in capsys.readouterr().out


def test_another_protocol_has_to_go_elsewhere(done, options, tmp_path, capsys):
    before = change_times(done)
    assert run(*options, "--num_inputs", 2, "--out_dir", done) == 2
    error = one_error(capsys)
    assert "num_inputs 1, not 2" in error and "--out_dir" in error and change_times(done) == before
    damaged = shutil.copytree(done, tmp_path / "out")
    (damaged / "protocol.json").write_text("{}")
    assert run(*options, "--out_dir", damaged) == 2 and "protocol.json: cannot be read" in one_error(capsys)


def test_the_network_is_given_the_classes(options, cars, tmp_path, capsys):
    snapshot = saved(tmp_path / "network-snapshot-000001.pkl", small_net(num_classes=2))
    data = shutil.copytree(Path(f"{cars}_val"), tmp_path / "cars_val")
    arguments = [*options, "--ckpt_path", snapshot, "--data", data, "--objects", 1]
    assert run(*arguments, "--out_dir", tmp_path / "without") == 2 and "labels.json" in one_error(capsys)
    images = []
    for class_id in (0, 1):
        names = sorted(path.name for path in data.iterdir() if path.is_dir())
        (data / "labels.json").write_text(json.dumps(dict.fromkeys(names, class_id)))
        assert run(*arguments, "--out_dir", tmp_path / f"{class_id}") == 0
        images.append(drawn(tmp_path / f"{class_id}", OBJECTS[0], 0))
    assert not torch.equal(*images)


# What is refused before anything is drawn: one line says what to do


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (["--split", "test"], "no test split"),
        (["--data", "nothing/there"], "no such folder"),
        (["--seeds", "0-"], "--seeds"),
        (["--metrics", "diversity"], "--metrics diversity compares samples of several seeds: give --seeds 0-3"),
        (["--metrics", "lpips_vgg,fid"], "--metrics"),
        (["--views", "some"], "--views=some"),
        (["--background", "red"], "white, black or"),
        (["--background", "1,2,300"], "white, black or"),
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
