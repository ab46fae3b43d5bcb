"""Training as a user starts it: ./train.sh on a dataset on disk, loader, loss, optimizer, logging and all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark
from dnnlib.command import run_command
from training.config import TRAIN_PRESETS


@launch.data_option
@click.option("--scenes", type=click.IntRange(min=1), help="Of the dataset made.", show_default="64, 4 on a CPU")
@click.option("--updates", type=click.IntRange(min=4), help="Length of the run.", show_default="100, 8 on a CPU")
@benchmark("e2e")
def main(preset: str, meter: Meter, data: Path | None, scenes: int | None, updates: int | None) -> Iterator[Result]:
    """images/s of the second half of a short ./train.sh with defaults on one GPU, and how long it waited for data."""
    batch = TRAIN_PRESETS[preset].batch_size
    updates, scenes = updates or (100 if meter.on_gpu else 8), scenes or (64 if meter.on_gpu else 4)
    with launch.dataset(data, preset, scenes=scenes, views=24) as path:
        run = launch.train(path, preset, batch=batch, updates=updates)
    precision = meter.precision("bf16")
    note = f"{updates} updates, defaults of preset {preset}"
    yield Result("end to end", run.images_per_second, "images/s", precision, batch, note=note)
    waits = [record["Timing/data_wait"] for record in run.settled]
    yield Result("end to end: waits for data", 100 * statistics.mean(waits), "% of the time", precision, batch)


if __name__ == "__main__":
    run_command(main)
