"""PSNR, SSIM, and the baselines that they are compared with."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from genvs.data.baselines import mean_training_image, nearest_input
from genvs.data.stored import StoredScenes
from genvs.metrics import psnr, ssim
from tests.small_model import SIZE, small_net
from tests.unit.srn_folder import write_split
from torch_utils import distributed
from training.data import RunData
from training.evaluation import Evaluation, summary


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Path:
    return write_split(tmp_path_factory.mktemp("data") / "cars_val", num_scenes=5, num_views=7)


@pytest.fixture(scope="module")
def scenes(split) -> StoredScenes:
    return StoredScenes(split, resolution=SIZE)


@pytest.mark.parametrize("error", [2.0, 0.5, 0.01])
def test_psnr_is_of_each_image_and_clamps(error):
    target = torch.full((2, 4, 3, 8, 8), -1.0)
    assert_close(psnr(-target + 5, -target), torch.full((2, 4), 100.0))
    assert_close(psnr(target + error, target), torch.full((2, 4), -20 * math.log10(error / 2)), rtol=1e-4, atol=1e-4)


def brute_force_mean(split: Path, scenes: list[str], views: list[int]) -> torch.Tensor:
    paths = [split / scene / "rgb" / f"{view + 1}.png" for scene in scenes for view in views]
    images = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) for path in paths]
    return torch.from_numpy(np.mean(images, axis=0) / 127.5 - 1).permute(2, 0, 1).float()


def test_the_mean_training_image_is_the_mean_of_the_images(split, scenes):
    everything = mean_training_image(scenes, range(5), min_views=7)
    assert_close(everything, brute_force_mean(split, [f"car{i}" for i in range(1, 6)], list(range(7))))
    # Held-out scenes are left out; of many, some are chosen evenly.
    first_two = brute_force_mean(split, ["car1", "car2"], list(range(7)))
    assert_close(mean_training_image(scenes, range(2), min_views=7), first_two)
    some = mean_training_image(scenes, range(4), min_scenes=2, min_views=2)
    assert_close(some, brute_force_mean(split, ["car1", "car3"], [0, 3, 6]))


def evaluation(dataset: StoredScenes, train: range, held_out: range) -> Evaluation:
    return Evaluation(RunData(dataset, train, dataset, held_out, dataset.scene_config()), torch.device("cpu"))


@pytest.fixture(scope="module")
def held_out(scenes) -> Evaluation:
    return evaluation(scenes, range(1), range(1, 5))


def test_inputs_and_targets_are_fixed_and_apart(scenes, held_out):
    again = evaluation(scenes, range(1), range(1, 5))
    assert torch.equal(held_out.inputs.images, again.inputs.images)
    assert torch.equal(held_out.targets["rgb"][1].images, again.targets["rgb"][1].images)
    assert held_out.inputs.shape == (4, 3) and held_out.targets["rgb"][1].shape == (4, 3)
    together = torch.cat([held_out.inputs.cameras.centers, held_out.targets["rgb"][1].cameras.centers], dim=1)
    assert all(len(centers.unique(dim=0)) == 6 for centers in together), "no target is an input"


def test_a_scene_that_is_not_evaluated_does_not_matter(tmp_path, monkeypatch):
    split = write_split(tmp_path / "cars_val", num_scenes=3, num_views=7)
    for view in range(2, 8):
        for file in split.glob(f"car3/*/{view}.*"):
            file.unlink()
    monkeypatch.setattr("training.evaluation.MAX_SCENES", 2)
    data = StoredScenes(split, resolution=SIZE)
    assert [data.num_views(scene) for scene in range(3)] == [7, 7, 1]
    assert evaluation(data, range(1), range(3)).inputs.shape == (2, 3)


def test_scores_are_those_of_the_images(held_out):
    net = small_net()
    scores = held_out.measure(net, 9)
    of_inputs = {f"PSNR/{count}_input{kind}" for count in (1, 3) for kind in ("", "_nearest")}
    assert scores.keys() == {"PSNR/mean_image"} | of_inputs
    inputs, targets = held_out.inputs, held_out.targets["rgb"][1]
    mean = psnr(held_out.mean_images["rgb"].expand_as(targets.images), targets.images).mean().item()
    assert scores["PSNR/mean_image"] == pytest.approx(mean, abs=1e-4)
    for count in (1, 3):
        given = inputs[:, :count]
        copied = psnr(nearest_input(given, targets.cameras), targets.images).mean().item()
        assert scores[f"PSNR/{count}_input_nearest"] == pytest.approx(copied, abs=1e-4)
        with torch.no_grad():
            features = net.render(net.encode(given.images), given.cameras, targets.cameras).flatten(0, 1)
            one_step = net.denoise(80 * held_out.noise.flatten(0, 1), torch.tensor(80.0), features)
        expected = psnr(one_step, targets.images.flatten(0, 1)).mean().item()
        assert scores[f"PSNR/{count}_input"] == pytest.approx(expected, abs=1e-3)
    assert held_out.measure(net, 1) == pytest.approx(scores, abs=1e-3)


def test_ranks_share_the_scenes_out_though_some_get_none(held_out, monkeypatch):
    net = small_net()
    scores = held_out.measure(net, 3)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 6)
    parts = []

    def gather_own(part: dict) -> list[dict]:
        parts.append(part)
        return [part]

    monkeypatch.setattr(distributed, "gather_objects", gather_own)
    for rank in range(6):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        held_out.measure(net, 3)
    assert parts[5] == {}
    monkeypatch.setattr(distributed, "gather_objects", lambda part: parts)
    assert held_out.measure(net, 3) == pytest.approx(scores, abs=1e-3)


def test_scenes_of_two_views_are_judged_too(tmp_path):
    split = write_split(tmp_path / "cars_val", num_scenes=2, num_views=2)
    dataset = StoredScenes(split, resolution=SIZE)
    held_out = evaluation(dataset, range(2), range(2))
    assert held_out.inputs.shape == held_out.targets["rgb"][1].shape == (2, 1)
    assert "PSNR/1_input" in held_out.measure(small_net(), 8)


def test_the_summary_compares_with_the_better_baseline():
    line = summary({"PSNR/1_input": 15.5, "PSNR/1_input_nearest": 12.0, "PSNR/mean_image": 13.25})
    assert "15.50 dB" in line and "+2.25 dB" in line and "\n" not in line
    assert "-1.50 dB" in summary({"PSNR/1_input": 12.5, "PSNR/1_input_nearest": 14.0, "PSNR/mean_image": 13.25})


# SSIM


# structural_similarity of scikit-image 0.26.0, data_range=1 and channel_axis=-1, for `pair(height, width, mixed)`: with
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False; and with its defaults.
EXPECTED = [
    ((32, 32, 1), 0.9312987782112848, 0.9484445539522003),
    ((24, 40, 3), 0.7053413451493905, 0.7140723604369961),
    ((128, 128, 6), 0.16405483466307522, 0.20509431481180476),
]


def pair(height: int, width: int, mixed: int) -> tuple[np.ndarray, np.ndarray]:
    """A pattern and one that has tenths of another mixed in: uint8 `[height, width, 3]`."""
    y, x = np.mgrid[:height, :width]
    first = np.stack([(7 * x + 3 * y + 40 * channel) % 256 for channel in range(3)], axis=-1)
    second = (first * (10 - mixed) + (x * y)[..., None] % 256 * mixed) // 10
    return first.astype(np.uint8), second.astype(np.uint8)


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).double() / 127.5 - 1


@pytest.mark.parametrize(("sizes", "gaussian", "uniform"), EXPECTED)
def test_ssim_is_that_of_scikit_image(sizes, gaussian, uniform):
    first, second = map(as_tensor, pair(*sizes))
    assert ssim(first, second).item() == pytest.approx(gaussian, abs=1e-9)
    assert ssim(first, second, window="uniform").item() == pytest.approx(uniform, abs=1e-9)
    assert ssim(first.float(), second.float()).item() == pytest.approx(gaussian, abs=1e-6)
    assert ssim(first, first).item() == pytest.approx(1, abs=1e-12)


def test_ssim_is_of_each_image_and_clamps():
    first, second = map(as_tensor, pair(32, 32, 3))
    images = torch.stack([first, second, first]).unflatten(0, (3, 1))
    targets = torch.stack([second, second, 3 * first]).unflatten(0, (3, 1))
    result = ssim(images, targets)
    assert result.shape == (3, 1)
    expected = [ssim(first, second), torch.ones((), dtype=torch.float64), ssim(first, (3 * first).clamp(-1, 1))]
    torch.testing.assert_close(result[:, 0], torch.stack(expected))
    torch.testing.assert_close(ssim(images[:2, 0], second), torch.stack(expected[:2]))
