"""Seconds from ./train.sh to the first update, cold and warm, and how long saving holds training up."""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.common import ON_GPU, PRECISIONS, Result, benchmark, clock
from benchmarks.e2e import train
from benchmarks.model import TrainingStep, dataset, in_memory_batches, training_config
from torch_utils.background_writer import BackgroundWriter
from training.config import TRAIN_PRESETS
from training.state import save_network_snapshot, save_training_state

BATCH, UPDATES = (32, 6) if ON_GPU else (2, 1)  # while a file is saved
SAVES = 3
COMPILE_CACHES = ("TRITON_CACHE_DIR", "CUDA_CACHE_PATH")


def save_pauses(preset: str) -> Iterator[Result]:
    """What saving adds to the time of the updates that follow it."""
    config = training_config(preset, BATCH, 2, PRECISIONS[0])
    step = TrainingStep(config, in_memory_batches(config))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, contextlib.closing(BackgroundWriter()) as files:

        def updates(save: Callable[[], None]) -> None:
            save()
            for _ in range(UPDATES):
                step()

        def median(save: Callable[[], None]) -> float:
            times = []
            for _ in range(1 + SAVES):
                times.append(clock(partial(updates, save)))
                files.wait()
            return statistics.median(times[1:])

        plain = median(lambda: None)
        for name, save in (
            ("snapshot", lambda: save_network_snapshot(Path(folder), config, step.state, files)),
            ("training state", lambda: save_training_state(Path(folder), config, step.state, files)),
        ):
            pause, note = max(median(save) - plain, 0.0), f"over {UPDATES} updates"
            yield Result(f"pause of training for a {name}", pause, "s", PRECISIONS[0], BATCH, note=note)


@benchmark
def main(preset: str) -> Iterator[Result]:
    """A dataset that was never used and empty caches of compiled kernels; then the same command again."""
    batch = TRAIN_PRESETS[preset].batch_size
    with (
        dataset(None, preset, scenes=64 if ON_GPU else 4, val_scenes=2) as data,
        tempfile.TemporaryDirectory() as caches,
    ):
        variables = {name: str(Path(caches, name)) for name in COMPILE_CACHES}
        for name in ("cold", "warm"):
            first_step, _ = train(data, preset, batch=batch, updates=2, **variables)
            yield Result(f"start to first step, {name}", first_step, "s", PRECISIONS[0], batch)
    yield from save_pauses(preset)
