"""Whether every new network renders something, so that a gradient reaches its encoder."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.common import Result, benchmark, size_option
from benchmarks.model import random_views
from genvs.config import PRESETS
from genvs.snapshot import build_net


@torch.no_grad()
def renders_nothing(preset: str, numerics: str, seed: int) -> bool:
    """Whether a new network of the preset renders nothing but zeros of two fixed sets of random images and cameras."""
    torch.manual_seed(seed)
    net = build_net(dataclasses.replace(PRESETS[preset], numerics=numerics))
    if numerics != "genvs":
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                module.reset_parameters()
    inputs, targets = (random_views(net.config, (2, 1), torch.Generator().manual_seed(number)) for number in range(2))
    return not net.render(net.encode(inputs.images, inputs.cameras), inputs.cameras, targets.cameras).any()


@benchmark
@size_option("seeds", 24, 24, "New networks of each kind.")
def main(preset: str, seeds: int) -> Iterator[Result]:
    """Count new networks that render nothing, here and with the unofficial numerics and torch's initialisation."""
    for numerics, name in (("genvs", "here"), ("unofficial", "with the unofficial numerics")):
        empty = sum(renders_nothing(preset, numerics, seed) for seed in range(seeds))
        yield Result(f"new networks that render nothing, {name}", empty, f"of {seeds} seeds", "fp32")
