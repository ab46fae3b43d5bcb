"""Seconds from ./train.sh to the first update, cold and warm, and how long saving holds training up."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark, summarize
from benchmarks.model import TrainingStep, in_memory_batches, training_config
from dnnlib.command import run_command
from torch_utils.background_writer import BackgroundWriter
from training.config import TRAIN_PRESETS
from training.state import save_network_snapshot, save_training_state

SAVES = 3
COMPILE_CACHES = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")


@benchmark("startup")
def main(preset: str, meter: Meter) -> Iterator[Result]:
    """A dataset that was never used and empty caches of compiled kernels; then the same command again."""
    batch, precision = TRAIN_PRESETS[preset].batch_size, meter.precision("bf16")
    with (
        launch.dataset(None, preset, scenes=64 if meter.on_gpu else 4, views=24) as data,
        tempfile.TemporaryDirectory(prefix="benchmark-") as caches,
    ):
        environment = {name: str(Path(caches, name)) for name in COMPILE_CACHES}
        for name in ("cold", "warm"):
            run = launch.train(data, preset, batch=batch, updates=2, environment=environment)
            yield Result(f"start to first step, {name}", run.first_step, "s", precision, batch)
    yield from save_pauses(preset, meter)


def save_pauses(preset: str, meter: Meter) -> Iterator[Result]:
    """What saving adds to the time of the updates that follow it."""
    batch, updates = (32, 6) if meter.on_gpu else (2, 1)
    precision = meter.precision("bf16")
    config = training_config(preset, batch=batch, views=2, precision=precision)
    step = TrainingStep(config, in_memory_batches(config, meter.device), meter.device)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, contextlib.closing(BackgroundWriter()) as files:
        saves: dict[str, Callable[[], None]] = {
            "nothing": lambda: None,
            "snapshot": lambda: save_network_snapshot(Path(folder), step.state, files),
            "training state": lambda: save_training_state(Path(folder), config, step.state, files),
        }

        def seconds(save: Callable[[], None]) -> float:
            meter.synchronize()
            start = time.perf_counter()
            save()
            for _ in range(updates):
                step()
            meter.synchronize()
            elapsed = time.perf_counter() - start
            files.wait()
            return elapsed

        for save in saves.values():
            seconds(save)
        times = {name: summarize([seconds(save) for _ in range(SAVES)]).seconds for name, save in saves.items()}
    for name in ("snapshot", "training state"):
        pause = max(times[name] - times["nothing"], 0.0)
        yield Result(f"pause of training for a {name}", pause, "s", precision, batch, note=f"over {updates} updates")


if __name__ == "__main__":
    run_command(main)
