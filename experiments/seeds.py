"""Whether every seed learns: what new networks render, and the held-out PSNR of short runs of many seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import nn

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark
from benchmarks.model import random_views
from dnnlib.command import run_command
from experiments.plot import plot_option, subplots
from genvs.config import PRESETS
from genvs.snapshot import build_net
from training.config import TRAIN_PRESETS

NETWORKS = 24
MODEL = "PSNR/1_input"
BASELINES = {"PSNR/1_input_nearest": "nearest input copied", "PSNR/mean_image": "mean training image"}


@launch.data_option
@click.option("--seeds", type=click.IntRange(min=1), default=20)
@click.option("--kimg", type=click.FloatRange(min=0, min_open=True), default=6.0, help="Of a run.")
@plot_option
@benchmark("seeds")
def main(preset: str, meter: Meter, data: Path | None, seeds: int, kimg: float, plot: Path | None) -> Iterator[Result]:
    """New networks whose rendering is empty, so that no gradient reaches the encoder. Then runs that beat both
    baselines, the nearest input view copied and the mean training image, on held-out scenes."""
    for numerics, name in (
        ("genvs", "here"),
        ("unofficial", "with the unofficial numerics and torch's initialisation"),
    ):
        empty = sum(renders_nothing(preset, numerics, seed) for seed in range(NETWORKS))
        yield Result(f"new networks that render nothing, {name}", empty, f"of {NETWORKS} seeds", "fp32", 1)
    recipe = TRAIN_PRESETS[preset]
    size = {"scenes": recipe.embedded.scenes, "views": recipe.embedded.views, "held_out": recipe.embedded.val_scenes}
    batch, gains, figure_and_axes = recipe.batch_size, [], subplots() if plot else None
    with launch.dataset(data, preset, **size) as path:
        for seed in range(seeds):
            updates = round(kimg * 1000 / batch)
            run = launch.train(path, preset, f"--seed={seed}", "--snap=2", batch=batch, updates=updates)
            scores = [record for record in run.records if MODEL in record]
            psnr = [record[MODEL] for record in scores]
            gains.append(psnr[-1] - max(scores[-1][name] for name in BASELINES))
            note, curves = f"{psnr[-1]:.2f} dB after {kimg:g} kimg", {MODEL: psnr}
            name = f"seed {seed}: above the better baseline"
            yield Result(name, gains[-1], "dB", "fp32", batch, note=note, curves=curves)
            if figure_and_axes is not None:
                figure_and_axes[1][0].plot([record["nimg"] / 1000 for record in scores], psnr, color="C0", alpha=0.4)
    if figure_and_axes is not None:
        figure, (axes,) = figure_and_axes
        for (name, label), colour in zip(BASELINES.items(), ("C1", "0.5"), strict=True):
            axes.axhline(scores[-1][name], color=colour, label=label)
        axes.set(xlabel="thousand images", ylabel=f"held-out PSNR (dB) of {preset}, {seeds} seeds")
        axes.legend()
        figure.savefig(plot)
    won = sum(gain > 0 for gain in gains)
    yield Result("seeds that beat both baselines", won, "seeds", "fp32", batch, note=f"of {seeds}")


@torch.no_grad()
def renders_nothing(preset: str, numerics: str, seed: int) -> bool:
    """Whether what a new network of the preset renders is zero everywhere, for random images and cameras."""
    torch.manual_seed(seed)
    net = build_net(dataclasses.replace(PRESETS[preset], numerics=numerics))
    if numerics != "genvs":
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                module.reset_parameters()
    inputs, targets = (random_views(net.config, (2, 1), torch.Generator().manual_seed(seed)) for seed in range(2))
    return not net.render(net.encode(inputs.images), inputs.cameras, targets.cameras).any()


if __name__ == "__main__":
    run_command(main)
