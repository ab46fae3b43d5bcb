"""What each choice of the recipe does: how well runs that differ in it draw held-out objects, on the same data."""

import itertools
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks import common
from benchmarks.common import Result
from benchmarks.model import data_option, dataset
from dnnlib.command import POSITIVE, option_group
from experiments.curves import of_results, plot_option, subplots
from genvs.errors import InputError
from genvs.metrics import hull_agreement, psnr
from genvs.metrics.perceptual import Distance, image_metric
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
    "loss.input_noise_probability=0.5 num_targets=1 lr=2e-5 lr_rampup_kimg=0 optimizer=adam bf16=false "
    "cuda_graphs=false"
)
SHORT = {"preset": "", "reference": REFERENCE}
OBJECTS, VIEWS = 8, 12  # drawn in several steps, of which the first view is the input
of_runs = option_group("Runs")


def variant_of(config: TrainConfig, variant: str) -> TrainConfig:
    """`config` with a variant's settings. Raises InputError for an unknown or wrong one."""
    words = " ".join(SHORT.get(word, word) for word in variant.split()).split()
    return set_by_path(config, dict(word.partition("=")[::2] for word in words))


def train(config: TrainConfig, data: Path, every: float, seed: int) -> tuple[list[dict], GeNVS, RunData]:
    """Train as train.py does. Returns the records with held-out PSNR, the moving average of the weights, and the data.

    Raises KeyboardInterrupt if the run is stopped.
    """
    run = {"data": str(data), "kimg_per_tick": every, "seed": seed, "logger": None}
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


def drawn_scores(net: GeNVS, data: RunData, lpips: Distance | None) -> dict[str, float]:
    """The scores of views drawn in several steps from one input view, by name: means over held-out objects.

    consistency: `hull_agreement` of the input view and the drawn ones. LPIPS is there if `lpips` is given.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for scene in list(data.held_out_scenes)[:OBJECTS]:
        views = data.held_out.load(scene, range(min(data.held_out.num_views(scene), VIEWS))).to("cpu")
        inputs, targets = views[None, :1], views.cameras[None, 1:]
        drawn = synthesize_views(net, inputs, targets, batch_size=VIEWS, progress=False)
        images = torch.stack([views.images[0], *(image for image, _ in drawn)])
        scores["consistency"].append(hull_agreement(images, views.cameras))
        scores["samples' PSNR"].append(float(psnr(images[1:], views.images[1:]).mean()))
        if lpips is not None:
            ours, theirs = images[1:].to(common.DEVICE), views.images[1:].to(common.DEVICE)
            scores["LPIPS"].append(float(lpips(ours, theirs).mean()))
    return {name: statistics.fmean(values) for name, values in scores.items()}


def training_minutes(run: list[dict]) -> float:
    """How long a run took, without evaluations."""
    return (run[-1]["time"] - sum(record["Timing/evaluation_sec"] for record in run)) / 60


def as_note(scores: list[dict[str, float]]) -> str:
    """The mean of each score over runs."""
    return ", ".join(f"{name} {statistics.fmean(run[name] for run in scores):.3f}" for name in scores[0])


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
@of_runs(
    "--variant",
    "variants",
    multiple=True,
    default=("preset",),
    metavar="SETTINGS",
    help="A run: 'preset', or settings of it as train.py's --set takes them, such as 'num_targets=1 lr=1e-3'; "
    "'reference' stands for the unofficial implementation's. Once for each run.",
)
@of_runs("--kimg", type=POSITIVE, required=True, help="Thousands of images of a run without a duration_kimg.")
@of_runs("--every", type=POSITIVE, help="Thousands of images between evaluations.", show_default="a fifth of them")
@of_runs("--seeds", type=click.IntRange(min=1), default=1, help="Runs of each variant.")
@of_results("--lpips", is_flag=True, help="Measure LPIPS (VGG) of views drawn in several steps; needs its weights.")
@plot_option
def main(
    preset: str,
    data: Path | None,
    variants: tuple[str, ...],
    kimg: float,
    every: float | None,
    seeds: int,
    lpips: bool,
    plot: Path | None,
) -> Iterator[Result]:
    """Train the preset in several variants and compare what they have learned."""
    base = set_by_path(TRAIN_PRESETS[preset], {"duration_kimg": kimg})
    configs = {variant: variant_of(base, variant) for variant in variants}
    distance = image_metric("lpips_vgg", common.DEVICE) if lpips else None
    curves: dict[str, list[list[dict]]] = {variant: [] for variant in variants}
    scores: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    with dataset(data, preset) as path:
        for seed, (variant, config) in itertools.product(range(seeds), configs.items()):
            run, net, opened = train(config, path, every or config.duration_kimg / 5, seed)
            curves[variant].append(run)
            scores[variant].append(drawn_scores(net, opened, distance))
            note = f"{above(run):+.2f} above the better baseline; {as_note(scores[variant][-1:])}; "
            note += f"{training_minutes(run):.1f} minutes"
            name = f"{variant}, seed {seed}: held-out PSNR"
            yield Result(name, run[-1][MODEL], "dB", batch=config.batch_size, note=note)
            if plot is not None:
                draw(curves, preset, plot)
    for variant, runs in curves.items():
        ends = [run[-1][MODEL] for run in runs]
        note = f"{min(ends):.2f} to {max(ends):.2f}; {sum(above(run) > 0 for run in runs)} of {seeds} beat both "
        note += f"baselines; {as_note(scores[variant])}"
        yield Result(f"{variant}, mean: held-out PSNR", statistics.fmean(ends), "dB", note=note)
