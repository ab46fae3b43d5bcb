"""Samples a second that reach the device from scenes of 50 views, by number of loader processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from benchmarks import common
from benchmarks.common import ON_GPU, Result, size_option
from benchmarks.model import data_option, dataset, loaded_batches, training_config
from genvs.data.types import ViewBatch

BATCHES_AT_A_TIME = 10
NAMES = {0: "within the training process", 1: "1 worker"}


def load(batches: Iterator[ViewBatch]) -> None:
    for _ in range(BATCHES_AT_A_TIME):
        next(batches)


@common.benchmark
@data_option
@size_option("batch", 32, 32, "Samples of a batch.")
@click.option("--workers", type=click.IntRange(min=0), multiple=True, show_default="0, 1 and 4, up to the cores")
def main(preset: str, seconds: float, data: Path | None, batch: int, workers: tuple[int, ...]) -> Iterator[Result]:
    """The training loop's own loader without training: batches of two input views and one target, on the device."""
    with dataset(data, preset, scenes=40 if ON_GPU else 2, views=50, val_scenes=2) as path:
        config = training_config(preset, batch, 2, "fp32", data=str(path))
        for count in workers or (count for count in (0, 1, 4) if count <= (os.cpu_count() or 1)):
            batches = loaded_batches(config, count)
            took, spread = common.timed(partial(load, batches), seconds)
            rate = BATCHES_AT_A_TIME * batch / took / max(count, 1)
            name = NAMES.get(count, f"each of {count} workers")
            yield Result(f"loader alone, {name}", rate, "samples/s", "", batch, spread)
