"""Weak scaling: what several GPUs do at the same batch each, against as many times one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch

from benchmarks import launch
from benchmarks.common import ON_GPU, PRECISIONS, Result, benchmark, size_option


@benchmark()
@launch.data_option
@click.option("--gpus", type=click.IntRange(min=2), multiple=True, show_default="2 and 4, as many as there are")
@size_option("batch", 32, 4, "Images of an update per GPU.")
@size_option("updates", 100, 8, "Length of a run.", least=4)
def main(
    preset: str, seconds: float, data: Path | None, gpus: tuple[int, ...], batch: int, updates: int
) -> Iterator[Result]:
    """images/s of ./train.sh on 1, 2 and 4 GPUs (on a CPU: processes), 2 input views, one target a scene."""
    present, one, several = (torch.cuda.device_count(), "GPU", "GPUs") if ON_GPU else (2, "process", "processes")
    alone = 0.0
    with launch.dataset(data, preset, 64 if ON_GPU else 8) as path:
        for count in (1, *(gpus or (count for count in (2, 4) if count <= present))):
            options, size = ("--views=2", "--targets=1"), count * batch
            run = launch.train(path, preset, *options, batch=size, updates=updates, NGPU=str(count))
            rate, name = run.images_per_second, f"training, {count} {several if count > 1 else one}"
            yield Result(name, rate, "images/s", PRECISIONS[0], batch, note=f"batch per {one}")
            alone = alone or rate
            if count > 1:
                efficiency, name = 100 * rate / (count * alone), f"weak scaling, {count} {several}"
                yield Result(name, efficiency, f"% of 1 {one}", PRECISIONS[0], batch)
