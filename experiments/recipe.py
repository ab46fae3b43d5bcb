"""What each choice of the recipe does: held-out PSNR and consistency of runs that differ in it, on the same data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import statistics
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark, check_writable, float32_products
from benchmarks.model import PATHS
from dnnlib.command import run_command
from genvs.data.baselines import mean_training_image
from genvs.errors import InputError
from genvs.files import write_atomic
from genvs.metrics import hull_agreement
from genvs.models import GeNVS
from genvs.sampling.synthesis import synthesize_views
from genvs.settings import changed
from inference.protocol import LIST_VIEWS
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import RunData, open_data, pack_data
from training.evaluation import Evaluation
from training.state import create_state
from training.training_loop import training_loop

PRESET, REFERENCE = "preset", "reference"
# What the unofficial implementation trains with; its ops and products are then plain torch in strict fp32, too.
AS_THE_REFERENCE = (
    "net.numerics=unofficial net.encoder.aspp_rates=12,24,36 net.denoiser.centre_on_colours=false "
    "loss.rgb_weight=0 loss.P_mean=-1 loss.P_std=1.4 "
    "loss.input_noise_probability=0.5 num_targets=1 lr=2e-5 lr_rampup_kimg=0 bf16=false cuda_graphs=false"
)
VARIANTS = (
    PRESET,
    REFERENCE,
    "num_targets=4",
    "loss.rgb_weight=0",
    "loss.P_mean=-1 loss.P_std=1.4",
    "loss.input_noise_probability=0.5",
    "loss.conditioning_dropout=0",
    "lr=3e-4",
)
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """One run. kimg, minutes, psnr: at each evaluation, in step. minutes: of training alone, after the first record."""

    kimg: list[float]
    minutes: list[float]
    psnr: list[float]
    consistency: float

    def psnr_at(self, kimg: float) -> float:
        """Between evaluations by a straight line; nan before the first one."""
        return float(np.interp(kimg, self.kimg, self.psnr, left=math.nan))


@launch.data_option
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="SETTINGS",
    help="A run: 'preset'; settings of it, such as 'num_targets=1 loss.rgb_weight=0'; or 'reference', and settings of "
    "that. Once for each run [default: some of all].",
)
@click.option("--kimg", type=click.FloatRange(min=0, min_open=True), help="Length of a run, thousands of images.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop at the first record after so many minutes of training.",
)
@click.option("--every", type=click.FloatRange(min=0, min_open=True), help="Evaluate every so many thousand images.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Runs of each variant.")
@click.option("--objects", type=click.IntRange(min=1), default=8, show_default=True, help="Drawn for consistency.")
@click.option("--precision", type=click.Choice(["fp32", "tf32"]), default="fp32", show_default=True,
              help="Products of `reference` on a GPU; fp32 is strict, and slow.")  # fmt: skip
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="A Markdown file for the table.")
@benchmark("recipe")
def main(
    preset: str,
    meter: Meter,
    data: Path | None,
    variants: tuple[str, ...],
    kimg: float | None,
    minutes: float | None,
    every: float | None,
    seeds: int,
    objects: int,
    precision: str,
    table: Path | None,
) -> Iterator[Result]:
    """Train the preset in several variants, each for as many images or minutes, and compare what they have learned."""
    if kimg is None and minutes is None:
        raise InputError("--kimg and --minutes: give one of them, or both, to say how long a run is")
    check_writable(table)
    variants = variants or VARIANTS
    configs = {variant: variant_of(TRAIN_PRESETS[preset], variant) for variant in variants}
    embedded = TRAIN_PRESETS[preset].embedded
    outcomes: dict[str, list[Outcome]] = {variant: [] for variant in variants}
    with launch.dataset(
        data, preset, scenes=embedded.scenes, views=embedded.views, held_out=embedded.val_scenes
    ) as path:
        for seed in range(seeds):
            for variant, config in configs.items():
                length = kimg or config.duration_kimg
                config = dataclasses.replace(
                    config,
                    data=str(path),
                    seed=seed,
                    duration_kimg=length,
                    kimg_per_tick=every or length / 5,
                    snapshot_ticks=1,
                    state_ticks=10**6,
                    tensorboard=False,
                )
                with plain_arithmetic(precision) if REFERENCE in variant.split() else contextlib.nullcontext():
                    outcome = run(config, meter.device, minutes, objects)
                outcomes[variant].append(outcome)
                yield Result(
                    f"{variant}, seed {seed}: held-out PSNR",
                    outcome.psnr[-1],
                    "dB",
                    "bf16" if config.bf16 and meter.on_gpu else "fp32",
                    config.batch_size,
                    note=f"{outcome.kimg[-1]:.4g} kimg, {outcome.minutes[-1]:.3g} min, "
                    f"consistency {outcome.consistency:.3f}",
                    curves={"kimg": outcome.kimg, "minutes": outcome.minutes, "PSNR": outcome.psnr},
                )
                if table is not None:
                    write_atomic(markdown(outcomes), table)


def variant_of(config: TrainConfig, variant: str) -> TrainConfig:
    """`config` with the settings that a variant names, with spaces between. Raises InputError for what is none."""
    short = {PRESET: "", REFERENCE: AS_THE_REFERENCE}
    words = " ".join(short.get(word, word) for word in variant.split()).split()
    return changed(config, dict(word.partition("=")[::2] for word in words))


@contextlib.contextmanager
def plain_arithmetic(precision: str) -> Iterator[None]:
    """No fast path; products of float32 in `precision`."""
    with PATHS["reference"](), float32_products(precision):
        yield


def run(config: TrainConfig, device: torch.device, minutes: float | None, objects: int) -> Outcome:
    """Train as train.py does, for at most so many minutes, and measure the moving average of the weights.

    Raises KeyboardInterrupt where somebody else asked training to stop.
    """
    data = open_data(config)
    if not data.held_out_scenes:
        raise InputError(f"--data={config.data}: has one scene, so none is held out to judge by: give more")
    pack_data(data)
    state = create_state(config, data.scene, device)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        stats = Path(folder, "stats.jsonl")
        with own_signals(), ended_after(minutes, stats) as time_is_over:
            training_loop(config, Path(folder), data, state, device)
        records = read(stats)
    if state.cur_nimg < config.total_nimg and not time_is_over.is_set():
        raise KeyboardInterrupt
    kimg, spent, psnr = curve(records)
    if not kimg or kimg[-1] < state.cur_nimg / 1000:  # stopped between two evaluations
        held_out = Evaluation(
            data.held_out, data.held_out_scenes, mean_training_image(data.train, data.train_scenes), device
        )
        kimg.append(state.cur_nimg / 1000)
        spent.append(training_minutes(records))
        psnr.append(held_out.measure(state.ema.net, config.images_at_a_time(1))["PSNR/1_input"])
    return Outcome(kimg, spent, psnr, consistency(state.ema.net, data, objects))


def read(stats: Path) -> list[dict[str, Any]]:
    """The records of a run that may be going on: the last line may not be whole yet."""
    lines = stats.read_text().splitlines(keepends=True) if stats.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def training_minutes(records: list[dict[str, Any]]) -> float:
    """Of what comes after the first record; evaluations are left out, as they are of the rates."""
    rate = "Timing/images_per_sec"  # not in the record of an evaluation alone
    rates = [(record["nimg"], record[rate]) for record in records if rate in record]
    return sum((last - first) / rate for (first, _), (last, rate) in zip(rates, rates[1:], strict=False)) / 60


def curve(records: list[dict[str, Any]]) -> tuple[list[float], list[float], list[float]]:
    """Thousands of images, minutes of training and held-out PSNR (dB, one input view, one step) at each evaluation."""
    places = [index for index, record in enumerate(records) if "PSNR/1_input" in record]
    kimg = [records[place]["nimg"] / 1000 for place in places]
    return kimg, [training_minutes(records[:place]) for place in places], [records[p]["PSNR/1_input"] for p in places]


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Training takes Ctrl-C and SIGTERM as a request to stop; afterwards they mean what they did."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended_after(minutes: float | None, stats: Path) -> Iterator[threading.Event]:
    """Inside, training is asked to stop once its records tell of so many minutes; None: never. Yields whether it is."""
    done, asked, most = threading.Event(), threading.Event(), math.inf if minutes is None else minutes

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            if training_minutes(read(stats)) >= most:
                asked.set()
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield asked
    finally:
        done.set()


def consistency(net: GeNVS, data: RunData, objects: int) -> float:
    """The mean of `hull_agreement` over held-out objects: of an input view, and others drawn from it."""
    scores = []
    for scene in list(data.held_out_scenes)[:objects]:
        count = min(data.held_out.num_views(scene), 1 + len(LIST_VIEWS))
        views = data.held_out.load(scene, range(count)).to("cpu")
        drawn = synthesize_views(
            net, views[None, :1], views.cameras[None, 1:], sampler="unipc", batch_size=count, progress=False
        )
        images = torch.stack([views.images[0], *(image for image, _ in drawn)])
        scores.append(hull_agreement(images, views.cameras))
    return statistics.fmean(scores)


def markdown(outcomes: dict[str, list[Outcome]]) -> str:
    """A row a variant, means over its seeds; beside the first one at equal numbers of images; - where none is known."""
    there = {variant: runs for variant, runs in outcomes.items() if runs}
    common = min(run.kimg[-1] for runs in there.values() for run in runs)
    first = next(iter(there.values()))

    def mean_at(runs: list[Outcome]) -> float:
        return statistics.fmean(run.psnr_at(common) for run in runs)

    lines = [
        f"| variant | PSNR (dB) after {common:.4g} kimg | over the first | at the end | kimg | minutes | consistency |",
        "|---" * 7 + "|",
    ]
    for variant, runs in there.items():
        cells = [
            f"`{variant}`",
            shown(mean_at(runs)) + spread([run.psnr_at(common) for run in runs]),
            shown(mean_at(runs) - mean_at(first), "+.2f"),
            f"{statistics.fmean(run.psnr[-1] for run in runs):.2f}",
            f"{statistics.fmean(run.kimg[-1] for run in runs):.4g}",
            f"{statistics.fmean(run.minutes[-1] for run in runs):.3g}",
            f"{statistics.fmean(run.consistency for run in runs):.3f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def shown(value: float, digits: str = ".2f") -> str:
    return "-" if math.isnan(value) else format(value, digits)


def spread(values: list[float]) -> str:
    """From the least to the most, where there are several, all of them known."""
    known = not any(map(math.isnan, values))
    return f" ({min(values):.2f} to {max(values):.2f})" if known and len(values) > 1 else ""


if __name__ == "__main__":
    run_command(main)
