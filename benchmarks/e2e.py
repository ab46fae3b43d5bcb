"""Training as a user starts it: ./train.sh on a dataset on disk, loader, loss, optimizer, logging and all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks import launch
from benchmarks.common import ON_GPU, PRECISIONS, Result, benchmark, size_option
from training.config import TRAIN_PRESETS


@benchmark()
@launch.data_option
@size_option("updates", 100, 8, "Length of the run.", least=4)
def main(preset: str, seconds: float, data: Path | None, updates: int) -> Iterator[Result]:
    """images/s of the second half of a short ./train.sh with defaults on one GPU, and how long it waited for data."""
    batch = TRAIN_PRESETS[preset].batch_size
    with launch.dataset(data, preset, 64 if ON_GPU else 4) as path:
        run = launch.train(path, preset, batch=batch, updates=updates)
    rate, note = run.images_per_second, f"{updates} updates, defaults of preset {preset}"
    yield Result("end to end", rate, "images/s", PRECISIONS[0], batch, note=note)
    wait = statistics.mean(record["Timing/data_wait"] for record in run.settled)
    yield Result("end to end: waits for data", 100 * wait, "% of the time", PRECISIONS[0], batch)
