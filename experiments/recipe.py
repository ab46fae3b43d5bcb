"""What each choice of the recipe does: held-out PSNR and consistency of runs that differ in it, on the same data."""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks import common
from benchmarks.common import Result
from benchmarks.model import data_option, dataset
from experiments.curves import plot_option, subplots
from genvs.errors import InputError
from genvs.metrics import hull_agreement
from genvs.models import GeNVS
from genvs.sampling.synthesis import synthesize_views
from genvs.settings import set_by_path
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import RunData, open_data, pack_data
from training.state import create_state
from training.training_loop import training_loop

MODEL = "PSNR/1_input"
BASELINES = {"PSNR/1_input_nearest": "nearest input copied", "PSNR/mean_image": "mean training image"}
# What the unofficial implementation trains with.
REFERENCE = (
    "net.numerics=unofficial net.denoiser.centre_on_colours=false loss.rgb_weight=0 loss.P_mean=-1 loss.P_std=1.4 "
    "loss.input_noise_probability=0.5 num_targets=1 lr=2e-5 lr_rampup_kimg=0 bf16=false cuda_graphs=false"
)
SHORT = {"preset": "", "reference": REFERENCE}
OBJECTS, VIEWS = 8, 12  # drawn for consistency
POSITIVE = click.FloatRange(min=0, min_open=True)


def variant_of(config: TrainConfig, variant: str) -> TrainConfig:
    """`config` with a variant's settings. Raises InputError for an unknown or wrong one."""
    words = " ".join(SHORT.get(word, word) for word in variant.split()).split()
    return set_by_path(config, dict(word.partition("=")[::2] for word in words))


def train(config: TrainConfig, data: Path, kimg: float, every: float, seed: int) -> tuple[list[dict], GeNVS, RunData]:
    """Train as train.py does. Returns the records with held-out PSNR, the moving average of the weights, and the data.

    Raises KeyboardInterrupt if the run is stopped.
    """
    run = {"data": str(data), "duration_kimg": kimg, "kimg_per_tick": every, "seed": seed, "tensorboard": False}
    config = set_by_path(config, {**run, "snapshot_ticks": 1, "state_ticks": 10**6})
    opened = open_data(config)
    pack_data(opened)
    state = create_state(config, opened.scene, common.DEVICE)
    with tempfile.TemporaryDirectory(prefix="experiment-") as folder:
        training_loop(config, Path(folder), opened, state, common.DEVICE)
        records = [json.loads(line) for line in Path(folder, "stats.jsonl").read_text().splitlines()]
    if state.cur_nimg < config.total_nimg:
        raise KeyboardInterrupt
    evaluations = [record for record in records if any(name.startswith("PSNR/") for name in record)]
    if not evaluations:
        raise InputError(f"{data}: has one scene, so none is held out to judge by: give more")
    return evaluations, state.ema, opened


def consistency(net: GeNVS, data: RunData) -> float:
    """The mean of `hull_agreement` over held-out objects: of an input view, and others drawn from it."""
    scores = []
    for scene in list(data.held_out_scenes)[:OBJECTS]:
        views = data.held_out.load(scene, range(min(data.held_out.num_views(scene), VIEWS))).to("cpu")
        inputs, targets = views[None, :1], views.cameras[None, 1:]
        drawn = synthesize_views(net, inputs, targets, sampler="unipc", batch_size=VIEWS, progress=False)
        images = torch.stack([views.images[0], *(image for image, _ in drawn)])
        scores.append(hull_agreement(images, views.cameras))
    return statistics.fmean(scores)


def above(run: list[dict]) -> float:
    """By how much the last evaluation's PSNR is above the better baseline's, dB."""
    return run[-1][MODEL] - max(run[-1][name] for name in BASELINES)


def draw(curves: dict[str, list[list[dict]]], title: str, plot: Path) -> None:
    """The held-out PSNR of each run, in one colour for each variant, and the baselines."""
    figure, (axes,) = subplots()
    for number, (variant, runs) in enumerate(curves.items()):
        for run in runs:
            x, y = ([record[name] for record in run] for name in ("nimg", MODEL))
            axes.plot(x, y, color=f"C{number}", alpha=0.4, label=variant if run is runs[0] else None)
    for name, style in zip(BASELINES, ("--", ":"), strict=True):
        axes.axhline(run[-1][name], color="0.5", linestyle=style, label=BASELINES[name])
    axes.set(xlabel="images", ylabel=f"held-out PSNR (dB) of {title}")
    axes.legend()
    figure.savefig(plot)


@common.benchmark
@data_option
@click.option(
    "--variant",
    "variants",
    multiple=True,
    default=("preset",),
    metavar="SETTINGS",
    help="A run: 'preset', or settings of it as train.py's --set takes them, such as 'num_targets=1 lr=1e-3'; "
    "'reference' stands for the unofficial implementation's. Once for each run.",
)
@click.option("--kimg", type=POSITIVE, required=True, help="Thousands of images of a run.")
@click.option("--every", type=POSITIVE, help="Evaluate every so many thousand images.", show_default="a fifth of them")
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Runs of each variant.")
@plot_option
def main(
    preset: str,
    seconds: float,
    data: Path | None,
    variants: tuple[str, ...],
    kimg: float,
    every: float | None,
    seeds: int,
    plot: Path | None,
) -> Iterator[Result]:
    """Train the preset in several variants, each for as many images, and compare what they have learned."""
    configs = {variant: variant_of(TRAIN_PRESETS[preset], variant) for variant in variants}
    curves: dict[str, list[list[dict]]] = {variant: [] for variant in variants}
    scores: dict[str, list[float]] = {variant: [] for variant in variants}
    with dataset(data, preset) as path:
        for seed, (variant, config) in itertools.product(range(seeds), configs.items()):
            run, net, opened = train(config, path, kimg, every or kimg / 5, seed)
            curves[variant].append(run)
            scores[variant].append(consistency(net, opened))
            note = f"{above(run):+.2f} above the better baseline; consistency {scores[variant][-1]:.3f}"
            name = f"{variant}, seed {seed}: held-out PSNR"
            yield Result(name, run[-1][MODEL], "dB", batch=config.batch_size, note=note)
            if plot is not None:
                draw(curves, preset, plot)
    for variant, runs in curves.items():
        ends = [run[-1][MODEL] for run in runs]
        note = f"{min(ends):.2f} to {max(ends):.2f}; {sum(above(run) > 0 for run in runs)} of {seeds} beat both "
        note += f"baselines; consistency {statistics.fmean(scores[variant]):.3f}"
        yield Result(f"{variant}, mean: held-out PSNR", statistics.fmean(ends), "dB", note=note)
