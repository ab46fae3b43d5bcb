"""What each choice of the recipe does: held-out PSNR and consistency of runs that differ in it, on the same data."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import torch

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark, check_writable
from dnnlib.command import run_command
from genvs.errors import InputError
from genvs.files import write_atomic
from genvs.metrics import hull_agreement
from genvs.models import GeNVS
from genvs.sampling.synthesis import synthesize_views
from genvs.settings import set_by_path
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import RunData, open_data, pack_data
from training.state import create_state
from training.training_loop import training_loop

MODEL = "PSNR/1_input"
# What the unofficial implementation trains with.
REFERENCE = (
    "net.numerics=unofficial net.denoiser.centre_on_colours=false loss.rgb_weight=0 loss.P_mean=-1 loss.P_std=1.4 "
    "loss.input_noise_probability=0.5 num_targets=1 lr=2e-5 lr_rampup_kimg=0 bf16=false cuda_graphs=false"
)
SHORT = {"preset": "", "reference": REFERENCE}
OBJECTS, VIEWS = 8, 12  # drawn for consistency


class Outcome(NamedTuple):
    """One run. kimg, psnr: at each evaluation, dB of one-step views from one input view."""

    kimg: list[float]
    psnr: list[float]
    consistency: float


@launch.data_option
@click.option(
    "--variant",
    "variants",
    multiple=True,
    required=True,
    metavar="SETTINGS",
    help="A run: 'preset', or settings of it as train.py's --set takes them, such as 'num_targets=1 lr=1e-3'; "
    "'reference' stands for the unofficial implementation's. Once for each run.",
)
@click.option(
    "--kimg", type=click.FloatRange(min=0, min_open=True), required=True, help="Thousands of images of a run."
)
@click.option("--every", type=click.FloatRange(min=0, min_open=True), help="Evaluate every so many thousand images.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Runs of each variant.")
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="A Markdown file for the table.")
@benchmark("recipe")
def main(
    preset: str,
    meter: Meter,
    data: Path | None,
    variants: tuple[str, ...],
    kimg: float,
    every: float | None,
    seeds: int,
    table: Path | None,
) -> Iterator[Result]:
    """Train the preset in several variants, each for as many images, and compare what they have learned."""
    check_writable(table)
    configs = {variant: variant_of(TRAIN_PRESETS[preset], variant) for variant in variants}
    outcomes: dict[str, list[Outcome]] = {}
    size = TRAIN_PRESETS[preset].embedded
    with launch.dataset(data, preset, scenes=size.scenes, views=size.views, held_out=size.val_scenes) as path:
        run = {"data": str(path), "duration_kimg": kimg, "kimg_per_tick": every or kimg / 5, "tensorboard": False}
        for seed in range(seeds):
            for variant, config in configs.items():
                config = set_by_path(config, {**run, "seed": seed, "snapshot_ticks": 1, "state_ticks": 10**6})
                outcome = train(config, meter.device)
                outcomes.setdefault(variant, []).append(outcome)
                name, note = f"{variant}, seed {seed}: held-out PSNR", f"consistency {outcome.consistency:.3f}"
                curves = {"kimg": outcome.kimg, "PSNR": outcome.psnr}
                precision = "bf16" if config.bf16 and meter.on_gpu else "fp32"
                yield Result(name, outcome.psnr[-1], "dB", precision, config.batch_size, note=note, curves=curves)
                if table is not None:
                    write_atomic(markdown(outcomes), table)


def variant_of(config: TrainConfig, variant: str) -> TrainConfig:
    """`config` with a variant's settings. Raises InputError for what is none."""
    words = " ".join(SHORT.get(word, word) for word in variant.split()).split()
    return set_by_path(config, dict(word.partition("=")[::2] for word in words))


def train(config: TrainConfig, device: torch.device) -> Outcome:
    """Train as train.py does, and measure the moving average of the weights. Raises KeyboardInterrupt if stopped."""
    data = open_data(config)
    pack_data(data)
    state = create_state(config, data.scene, device)
    with tempfile.TemporaryDirectory(prefix="experiment-") as folder:
        training_loop(config, Path(folder), data, state, device)
        records = [json.loads(line) for line in Path(folder, "stats.jsonl").read_text().splitlines()]
    if state.cur_nimg < config.total_nimg:
        raise KeyboardInterrupt
    scores = {record["nimg"] / 1000: record[MODEL] for record in records if MODEL in record}
    if not scores:
        raise InputError(f"{config.data}: has one scene, so none is held out to judge by: give more")
    return Outcome(list(scores), list(scores.values()), consistency(state.ema.net, data))


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


def markdown(outcomes: dict[str, list[Outcome]]) -> str:
    """A row per variant: means over its seeds, and their range."""
    lines = ["| variant | PSNR (dB) | over the first | consistency |", "|---" * 4 + "|"]
    first = mean_psnr(next(iter(outcomes.values())))
    for variant, runs in outcomes.items():
        psnr, ends = mean_psnr(runs), [run.psnr[-1] for run in runs]
        spread = f" ({min(ends):.2f} to {max(ends):.2f})" if len(runs) > 1 else ""
        score = statistics.fmean(run.consistency for run in runs)
        lines.append(f"| `{variant}` | {psnr:.2f}{spread} | {psnr - first:+.2f} | {score:.3f} |")
    return "\n".join(lines) + "\n"


def mean_psnr(runs: Sequence[Outcome]) -> float:
    return statistics.fmean(run.psnr[-1] for run in runs)


if __name__ == "__main__":
    run_command(main)
