"""Whether every seed learns: how networks are born, and the held-out PSNR of short runs that differ in their seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark
from benchmarks.model import random_cameras
from dnnlib.command import run_command
from experiments.plot import draw_curves
from genvs.config import PRESETS
from genvs.snapshot import build_net
from training.config import TRAIN_PRESETS

BIRTHS = 24
MODEL, NEAREST, MEAN = "PSNR/1_input", "PSNR/1_input_nearest", "PSNR/mean_image"


@launch.data_option
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--kimg", type=click.FloatRange(min=0, min_open=True), default=6.0, show_default=True, help="Of a run.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="A PNG file for the curves.")
@benchmark("seeds")
def main(preset: str, meter: Meter, data: Path | None, seeds: int, kimg: float, plot: Path | None) -> Iterator[Result]:
    """Networks that are born dead: their rendering is empty, and no gradient will ever reach what is before it. Then
    runs that beat both baselines, the nearest input view copied and the mean training image, on held-out scenes."""
    for numerics, name in (
        ("genvs", "of ours"),
        ("unofficial", "with the unofficial numerics and torch's initialisation"),
    ):
        dead = sum(is_born_dead(preset, numerics, seed) for seed in range(BIRTHS))
        yield Result(f"born dead, {name}", dead, f"of {BIRTHS} seeds", "fp32", 1)
    batch = TRAIN_PRESETS[preset].batch_size
    embedded = TRAIN_PRESETS[preset].embedded
    curves: dict[int, np.ndarray] = {}
    with launch.dataset(
        data, preset, scenes=embedded.scenes, views=embedded.views, held_out=embedded.val_scenes
    ) as path:
        for seed in range(seeds):
            updates = round(kimg * 1000 / batch)
            run = launch.train(path, preset, f"--seed={seed}", "--snap=2", batch=batch, updates=updates)
            measured = [record for record in run.records if MODEL in record]
            curves[seed] = np.array([record[MODEL] for record in measured])
            baselines = {"nearest input copied": measured[-1][NEAREST], "mean training image": measured[-1][MEAN]}
            gain = curves[seed][-1] - max(baselines.values())
            yield Result(f"seed {seed}: above the better baseline", gain, "dB", "fp32", batch, note=f"{kimg:g} kimg")
            if plot is not None:
                flat = {name: np.full(len(curves[seed]), level) for name, level in baselines.items()}
                title = f"Held-out PSNR (dB) of {preset}, 1 input view, one step: {len(curves)} seeds, {kimg:g} kimg"
                draw_curves(flat, title, list(curves.values()), linear=True).save(plot)
    won = sum(bool(curve[-1] > max(baselines.values())) for curve in curves.values())
    spread = [curve[-1] for curve in curves.values()]
    note = f"of {seeds}; {min(spread):.2f} to {max(spread):.2f} dB"
    kept = {f"seed {seed}": curve.tolist() for seed, curve in curves.items()}
    yield Result("seeds that beat both baselines", won, "seeds", "fp32", batch, note=note, curves=kept)


@torch.no_grad()
def is_born_dead(preset: str, numerics: str, seed: int) -> bool:
    """Whether what a new network of the preset renders is zero everywhere, for random images and cameras."""
    torch.manual_seed(seed)
    net = build_net(dataclasses.replace(PRESETS[preset], numerics=numerics))
    if numerics != "genvs":
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                module.reset_parameters()
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = (random_cameras(net.config, (2, 1), generator) for _ in range(2))
    images = torch.rand(2, 1, 3, net.config.resolution, net.config.resolution, generator=generator) * 2 - 1
    return not net.render(net.encode(images), inputs, targets).any()


if __name__ == "__main__":
    run_command(main)
