"""Another implementation's training step and sampler, timed as ours are (benchmarks/README.md)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.common import DEVICE, Result, benchmark, set_precision, size_option, throughput, views_option


@benchmark
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@size_option("batch", 24, 2, "Images of an update, and views at a time.")
@views_option
def main(preset: str, seconds: float, folder: Path, batch: int, views: int) -> Iterator[Result]:
    """Time the functions of FOLDER/adapter.py, with TF32 off. The adapter may import what lies beside it."""
    set_precision("fp32")
    sys.path.insert(0, str(folder.resolve()))
    try:
        from adapter import sampler, training_step
    except ImportError as error:
        raise click.UsageError(f"{folder}: {error}: write its adapter.py as benchmarks/README.md says") from None
    step = Result("reference: training step", 0, "images/s", "fp32", batch, note=f"{views} views")
    yield from throughput(training_step(batch, views, DEVICE), step, seconds)
    heun = Result("reference: 25 Heun steps", 0, "views/s", "fp32", batch)
    yield from throughput(sampler(batch, 25, DEVICE), heun, seconds)
