"""Samples a second that reach the device from scenes of 50 views, by number of loader processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.common import ON_GPU, Result, benchmark, clock, size_option, summarize
from benchmarks.launch import data_option, dataset
from benchmarks.model import loaded_batches, training_config
from training.config import TrainConfig

VIEWS_A_SCENE = 50
BATCHES_AT_A_TIME = 10


def measure(config: TrainConfig, workers: int, seconds: float) -> Result:
    """Samples a second of one loader process; 0 workers load in the training process itself."""
    batches = loaded_batches(config, workers)

    def load() -> None:
        for _ in range(BATCHES_AT_A_TIME):
            next(batches)

    load()  # starts the workers, and takes what they have prepared meanwhile
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(clock(load))
    took, spread = summarize(times)
    rate = BATCHES_AT_A_TIME * config.batch_size / took / max(workers, 1)
    where = {0: "within the training process", 1: "1 worker"}.get(workers, f"each of {workers} workers")
    return Result(f"loader alone, {where}", rate, "samples/s", "", config.batch_size, spread)


@benchmark()
@data_option
@size_option("batch", 32, 32, "Samples of a batch.")
@click.option("--workers", type=click.IntRange(min=0), multiple=True, show_default="0, 1 and 4, up to the cores")
def main(preset: str, seconds: float, data: Path | None, batch: int, workers: tuple[int, ...]) -> Iterator[Result]:
    """The training loop's own loader without training: batches of two input views and one target, on the device."""
    with dataset(data, preset, 40 if ON_GPU else 2, VIEWS_A_SCENE) as path:
        config = training_config(preset, batch, 2, "fp32", data=str(path))
        for count in workers or (count for count in (0, 1, 4) if count <= (os.cpu_count() or 1)):
            yield measure(config, count, seconds)
