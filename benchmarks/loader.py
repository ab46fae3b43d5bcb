"""Samples a second that reach the device from scenes of 50 views, by number of loader processes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.common import Meter, Result, benchmark, summarize
from benchmarks.launch import data_option, dataset
from benchmarks.model import loaded_batches, training_config
from dnnlib.command import run_command
from training.config import TrainConfig

VIEWS_A_SCENE = 50
BATCHES_AT_A_TIME = 10


@data_option
@click.option("--scenes", type=click.IntRange(min=1), help="Of the dataset made.", show_default="40, 2 on a CPU")
@click.option("--batch", type=click.IntRange(min=1), default=32, help="Samples of a batch.")
@click.option("--workers", type=click.IntRange(min=0), multiple=True, show_default="0, 1 and 4, up to the cores")
@benchmark("loader")
def main(
    preset: str, meter: Meter, data: Path | None, scenes: int | None, batch: int, workers: tuple[int, ...]
) -> Iterator[Result]:
    """The training loop's own loader without training: batches of two input views and one target, on the device."""
    scenes = scenes or (40 if meter.on_gpu else 2)
    with dataset(data, preset, scenes=scenes, views=VIEWS_A_SCENE) as path:
        config = training_config(preset, batch=batch, views=2, precision="fp32", data=str(path))
        for count in workers or (count for count in (0, 1, 4) if count <= (os.cpu_count() or 1)):
            yield measure(config, count, meter)


def measure(config: TrainConfig, workers: int, meter: Meter) -> Result:
    """Samples a second of one loader process; 0 workers load in the training process itself."""
    batches = loaded_batches(config, workers, meter.device)
    seconds: list[float] = []
    for group in itertools.count():
        start = time.perf_counter()
        for _ in range(BATCHES_AT_A_TIME):
            next(batches)
        meter.synchronize()
        if group > 0:  # the first one starts the workers, and takes what they have prepared meanwhile
            seconds.append(time.perf_counter() - start)
        if len(seconds) >= 3 and sum(seconds) > meter.seconds:
            break
    timing = summarize(seconds)
    rate = BATCHES_AT_A_TIME * config.batch_size / timing.seconds / max(workers, 1)
    where = {0: "within the training process", 1: "1 worker"}.get(workers, f"each of {workers} workers")
    return Result(f"loader alone, {where}", rate, "samples/s", "", config.batch_size, timing.spread)


if __name__ == "__main__":
    run_command(main)
