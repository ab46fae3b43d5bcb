"""Whether every seed learns: what new networks render, and the held-out PSNR of short runs of many seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from torch import nn

from benchmarks.common import Result, benchmark
from benchmarks.model import data_option, dataset, random_views
from experiments.curves import plot_option, subplots
from experiments.recipe import MODEL, POSITIVE, train
from genvs.config import PRESETS
from genvs.snapshot import build_net
from training.config import TRAIN_PRESETS

NETWORKS = 24
BASELINES = {"PSNR/1_input_nearest": "nearest input copied", "PSNR/mean_image": "mean training image"}


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


def draw(runs: list[list[dict]], title: str, plot: Path) -> None:
    """The held-out PSNR of each run as a faint line, and the baselines."""
    figure, (axes,) = subplots()
    for run in runs:
        axes.plot([record["nimg"] / 1000 for record in run], [record[MODEL] for record in run], color="C0", alpha=0.4)
    for (name, label), colour in zip(BASELINES.items(), ("C1", "0.5"), strict=True):
        axes.axhline(runs[-1][-1][name], color=colour, label=label)
    axes.set(xlabel="thousand images", ylabel=f"held-out PSNR (dB) of {title}")
    axes.legend()
    figure.savefig(plot)


@benchmark
@data_option
@click.option("--seeds", type=click.IntRange(min=1), default=20)
@click.option("--kimg", type=POSITIVE, default=6.0, help="Of a run.")
@plot_option
def main(
    preset: str, seconds: float, data: Path | None, seeds: int, kimg: float, plot: Path | None
) -> Iterator[Result]:
    """New networks whose rendering is empty, so that no gradient reaches the encoder. Then runs that beat both
    baselines, the nearest input view copied and the mean training image, on held-out scenes."""
    unofficial = "with the unofficial numerics and torch's initialisation"
    for numerics, name in (("genvs", "here"), ("unofficial", unofficial)):
        empty = sum(renders_nothing(preset, numerics, seed) for seed in range(NETWORKS))
        yield Result(f"new networks that render nothing, {name}", empty, f"of {NETWORKS} seeds", "fp32")
    config, gains, runs = TRAIN_PRESETS[preset], [], []
    with dataset(data, preset) as path:
        for seed in range(seeds):
            run, *_ = train(config, path, kimg, kimg / 5, seed)
            runs.append(run)
            psnr = [record[MODEL] for record in run]
            gains.append(psnr[-1] - max(run[-1][baseline] for baseline in BASELINES))
            name, note = f"seed {seed}: above the better baseline", f"{psnr[-1]:.2f} dB after {kimg:g} kimg"
            yield Result(name, gains[-1], "dB", "fp32", config.batch_size, note=note)
    if plot is not None:
        draw(runs, f"{preset}, {seeds} seeds", plot)
    won = sum(gain > 0 for gain in gains)
    yield Result("seeds that beat both baselines", won, "seeds", "fp32", config.batch_size, note=f"of {seeds}")
