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
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=(32, 24) if common.ON_GPU else (2,),
    help="Images.",
)
@common.views_option
@click.option("--targets", type=click.IntRange(min=1), default=1, help="Target views that share their scene.")
@click.option(
    "--precision", "precisions", type=common.Precision(), multiple=True, default=["bf16"], help="fp32 is strict."
)
@click.option("--ops", type=click.Choice(list(PATHS)), default="fast", help="reference is plain torch.")
@common.reference_option
def main(
    preset: str,
    seconds: float,
    batches: tuple[int, ...],
    views: int,
    targets: int,
    precisions: tuple[str, ...],
    ops: str,
    reference: Path | None,
) -> Iterator[Result]:
    """Forward, backward, finite check, optimizer and moving average: training without its loader. --batch and
    --precision may be given several times."""
    make_theirs = common.adapter_function(reference, "training_step") if reference else None
    for batch in batches:
        theirs: dict[str, float] = {}
        if make_theirs is not None:
            with common.float32_products("fp32"):
                blank = Result("", 0, "images/s", batch=batch)
                found = common.throughput(make_theirs(batch, views, common.DEVICE), blank, seconds)
                theirs = {result.unit: result.value for result in found}
        for precision in dict.fromkeys(precisions):
            config = training_config(preset, batch, views, precision, num_targets=targets)
            config.rounds(world_size=1)  # refuses a batch that does not divide
            name = f"training step, {precision}" + (", plain path" if ops == "reference" else "")
            name += f", {targets} targets a scene" if targets > 1 else ""
            floor = floors.floor(floors.training_work(PRESETS[preset], views, batch=batch, targets=targets), precision)
            blank = Result(name, 0, "images/s", precision, batch, floor=floor, note=f"{views} views")
            with PATHS[ops](), common.float32_products(precision):
                step = TrainingStep(config, in_memory_batches(config))
                for result in common.throughput(step, blank, seconds):
                    yield replace(result, baseline=theirs.get(result.unit), baseline_name=common.REFERENCE)
