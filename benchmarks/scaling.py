"""Weak scaling: what several GPUs do at the same batch each, against as many times one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks import launch
from benchmarks.common import Meter, Result, benchmark
from dnnlib.command import run_command


@launch.data_option
@click.option("--gpus", type=click.IntRange(min=2), multiple=True, show_default="2 and 4, as many as there are")
@click.option("--batch", type=click.IntRange(min=1), help="Images of an update per GPU.", show_default="32, 4 on a CPU")
@click.option("--updates", type=click.IntRange(min=4), help="Length of a run.", show_default="100, 8 on a CPU")
@benchmark("scaling")
def main(
    preset: str, meter: Meter, data: Path | None, gpus: tuple[int, ...], batch: int | None, updates: int | None
) -> Iterator[Result]:
    """images/s of ./train.sh on 1, 2 and 4 GPUs (on a CPU: processes), 2 input views, one target a scene."""
    there, one, several = (torch.cuda.device_count(), "GPU", "GPUs") if meter.on_gpu else (2, "process", "processes")
    batch, updates = batch or (32 if meter.on_gpu else 4), updates or (100 if meter.on_gpu else 8)
    rates: dict[int, float] = {}
    with launch.dataset(data, preset, scenes=64 if meter.on_gpu else 8, views=24) as path:
        for count in (1, *(gpus or (count for count in (2, 4) if count <= there))):
            options, size = ("--views=2", "--targets=1"), count * batch
            run = launch.train(path, preset, *options, batch=size, updates=updates, processes=count)
            rates[count], precision = run.images_per_second, meter.precision("bf16")
            name, note = f"training, {count} {several if count > 1 else one}", f"batch per {one}"
            yield Result(name, rates[count], "images/s", precision, batch, note=note)
            if count > 1:
                efficiency = 100 * rates[count] / (count * rates[1])
                yield Result(f"weak scaling, {count} {several}", efficiency, f"% of 1 {one}", precision, batch)


if __name__ == "__main__":
    run_command(main)
