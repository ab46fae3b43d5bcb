"""Images a second and peak memory of whole updates, on random batches in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import floors
from benchmarks.common import PRECISIONS, REFERENCE, Meter, Result, adapter_function, benchmark, float32_products
from benchmarks.model import PATHS, TrainingStep, in_memory_batches, training_config
from dnnlib.command import run_command
from genvs.config import PRESETS


@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True, show_default="32 and 24, 2 on a CPU")
@click.option("--views", type=click.IntRange(min=1), default=2, help="Input views of a sample.")
@click.option("--targets", type=click.IntRange(min=1), default=1, help="Target views that share their scene.")
@click.option(
    "--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, default=["bf16"], help="fp32 is strict."
)
@click.option("--ops", type=click.Choice(list(PATHS)), default="fast", help="reference is plain torch.")
@click.option("--reference", type=click.Path(path_type=Path), help="Folder of an adapter.py (benchmarks/README.md).")
@benchmark("train_step")
def main(
    preset: str,
    meter: Meter,
    batches: tuple[int, ...],
    views: int,
    targets: int,
    precisions: tuple[str, ...],
    ops: str,
    reference: Path | None,
) -> Iterator[Result]:
    """Forward, backward, finite check, optimizer and moving average: training without its loader. --batch and
    --precision may be given several times."""
    make_theirs = adapter_function(reference, "training_step") if reference else None
    for batch in batches or ((32, 24) if meter.on_gpu else (2,)):
        theirs: dict[str, float] = {}
        if make_theirs is not None:
            with float32_products("fp32"):
                found = measure(make_theirs(batch, views, meter.device), Result("", 0, "", "", batch), meter)
                theirs = {result.unit: result.value for result in found}
        for precision in dict.fromkeys(map(meter.precision, precisions)):
            config = training_config(preset, batch=batch, views=views, precision=precision, num_targets=targets)
            config.rounds(world_size=1)  # refuses a batch that does not divide
            name = f"training step, {precision}" + (", plain path" if ops == "reference" else "")
            name += f", {targets} targets a scene" if targets > 1 else ""
            work = floors.training_work(PRESETS[preset], views, batch=batch, targets=targets)
            blank = Result(name, 0, "", precision, batch, work=work, note=f"{views} views")
            with PATHS[ops](), float32_products(precision):
                step = TrainingStep(config, in_memory_batches(config, meter.device), meter.device)
                for result in measure(step, blank, meter):
                    yield replace(result, baseline=theirs.get(result.unit), baseline_name=REFERENCE)


def measure(step: Callable[[], object], blank: Result, meter: Meter) -> Iterator[Result]:
    """Rate and, on a GPU, peak memory of `step`, with the other fields of `blank`."""
    meter.start_memory_peak()
    timing = meter.time(step)
    yield replace(blank, value=blank.batch / timing.seconds, unit="images/s", spread=timing.spread)
    if meter.on_gpu:
        yield replace(blank, name=f"{blank.name}: peak memory", value=meter.memory_peak(), unit="GB", work=None)


if __name__ == "__main__":
    run_command(main)
