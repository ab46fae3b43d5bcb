"""Samples a second that reach the device from scenes of 50 views, by number of loader processes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from benchmarks import common
from benchmarks.common import ON_GPU, Result, size_option
from benchmarks.model import data_option, dataset, loaded_batches, training_config
from genvs.data.types import ViewBatch

BATCHES_AT_A_TIME = 10


def load(batches: Iterator[ViewBatch]) -> None:
    for _ in range(BATCHES_AT_A_TIME):
        next(batches)


@common.benchmark
@data_option
@size_option("batch", 32, 32, "Samples of a batch.")
@common.seconds_option
@common.measuring(
    "--workers", type=click.IntRange(min=0), multiple=True, default=(0, 1, 4), help="0: none but the training process."
)
def main(preset: str, seconds: float, data: Path | None, batch: int, workers: tuple[int, ...]) -> Iterator[Result]:
    """The training loop's own loader without training: batches of two input views and one target, on the device."""
    with dataset(data, preset, scenes=40 if ON_GPU else 2, views=50, val_scenes=2) as path:
        config = training_config(preset, batch, 2, "fp32", data=str(path))
        for count in workers:
            batches = loaded_batches(config, count)
            took, spread = common.timed(partial(load, batches), seconds)
            name = f"loader alone, {count} worker" + "s" * (count != 1)
            yield Result(name, BATCHES_AT_A_TIME * batch / took, "samples/s", "", batch, spread)
