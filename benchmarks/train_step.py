"""Images a second and peak memory of whole updates, on random batches in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import common, floors
from benchmarks.common import Result
from benchmarks.model import PATHS, TrainingStep, in_memory_batches, training_config
from genvs.config import PRESETS


@common.benchmark()
@common.size_option("batch", (32, 24), (2,), "Images of an update.", multiple=True)
@common.views_option
@click.option("--targets", type=click.IntRange(min=1), default=1, help="Target views that share their scene.")
@click.option("--precision", type=click.Choice(common.PRECISIONS), multiple=True, default=common.PRECISIONS[:1])
@click.option("--ops", type=click.Choice(list(PATHS)), default="fast", help="reference is plain torch.")
@common.reference_option
def main(
    preset: str,
    seconds: float,
    batch: tuple[int, ...],
    views: int,
    targets: int,
    precision: tuple[str, ...],
    ops: str,
    reference: Path | None,
) -> Iterator[Result]:
    """Forward, backward, finite check, optimizer and moving average: training without its loader. --batch and
    --precision may be given several times; fp32 is strict."""
    make_theirs = common.adapter_function(reference, "training_step") if reference else None
    for size in batch:
        theirs: dict[str, float] = {}
        if make_theirs is not None:
            with common.float32_products("fp32"):
                blank = Result("", 0, "images/s", batch=size)
                found = common.throughput(make_theirs(size, views, common.DEVICE), blank, seconds)
                theirs = {result.unit: result.value for result in found}
        for arithmetic in precision:
            config = training_config(preset, size, views, arithmetic, num_targets=targets)
            config.rounds(world_size=1)  # refuses a batch that does not divide
            name = f"training step, {arithmetic}" + (", plain path" if ops == "reference" else "")
            name += f", {targets} targets a scene" if targets > 1 else ""
            floor = floors.floor(floors.training_work(PRESETS[preset], views, batch=size, targets=targets), arithmetic)
            blank = Result(name, 0, "images/s", arithmetic, size, floor=floor, note=f"{views} views")
            with PATHS[ops](), common.float32_products(arithmetic):
                step = TrainingStep(config, in_memory_batches(config))
                for result in common.throughput(step, blank, seconds):
                    yield replace(result, baseline=theirs.get(result.unit), baseline_name=common.REFERENCE)
