"""What samples are measured beside: views that are made of the same inputs without sampling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from genvs.config import UNOFFICIAL, WHITE
from genvs.data.baselines import mean_training_image, nearest_input
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import Conditioned
from inference.protocol import Source

BASELINES = {
    "colours": "feature image's colours",
    "nearest": "nearest input view",
    "mean": "mean training image",
}


def check_baselines(names: list[str], net: GeNVS) -> None:
    """Raise InputError for a baseline that the network has not."""
    if "colours" in names and net.config.numerics == UNOFFICIAL:
        raise InputError(
            "--baselines: a snapshot of the unofficial implementation renders features that are no colours: leave "
            "colours out"
        )


def open_mean_image(source: Source, split: str, net: GeNVS) -> Tensor:
    """The mean training image of a dataset, `[3, H, W]` in [-1, 1].

    source, split: of the evaluation. Raises InputError where the dataset has no train split.
    """
    try:
        train = source.find("train")
    except InputError:
        train = None
    # A folder of scenes that is given by its own name stands for any split.
    if train is None or (split != "train" and train == source.find(split)):
        raise InputError(
            f"--data={source.path}: has no train split by name, which the baseline mean is made of: name the folders "
            "NAME_train and NAME_test and give NAME, or leave mean out of --baselines"
        )
    dataset = source.open(train, net.config)
    return mean_training_image(dataset, range(len(dataset)))


def draw_baseline(
    name: str,
    inputs: Views,
    targets: Cameras,
    mean_image: Tensor | None,
    denoise: FastDenoiser,
    batch_size: int,
) -> Iterable[Tensor]:
    """Images `[3, H, W]` in [-1, 1] on the CPU, one for each target camera, in their order.

    name: of BASELINES. inputs: `[1, V]`, uint8. targets: `[1, T]`. mean_image: for 'mean'. denoise: of the network that
    'colours' renders with, `batch_size` views at a time.
    """
    if name == "colours":
        return draw_colours(inputs, targets, denoise, batch_size)
    if name == "nearest":
        return nearest_input(inputs.to("cpu"), targets)[0]
    assert mean_image is not None
    return mean_image.expand(targets.shape[1], *mean_image.shape)


@torch.inference_mode()
def draw_colours(inputs: Views, targets: Cameras, denoise: FastDenoiser, batch_size: int) -> Iterator[Tensor]:
    """The feature rendering, without denoising: the colours that training's auxiliary loss (`--rgb_weight`) asks of a
    feature image's first three channels, which is what can be expected of the view, as in pixelNeRF (arXiv 2012.02190).
    """
    conditioned = Conditioned(denoise, inputs.to(denoise.device), batch_size=batch_size, max_generated=0)
    for start in range(0, targets.shape[1], batch_size):
        feature_images = conditioned.render(targets[:, start : start + batch_size].to(denoise.device))
        yield from (feature_images[:, :3] + WHITE).clamp(-1, 1).cpu()
