"""Command line of the embedded dataset: `python -m genvs.data.synthetic --out datasets/cars`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from genvs.data.synthetic.dataset import SPIRAL_VIEWS, ensure_dataset
from genvs.errors import run_command


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Writes OUT_train, OUT_val and OUT_test.")
@click.option("--scenes", type=click.IntRange(min=0), default=400, show_default=True, help="Training scenes.")
@click.option("--views", type=click.IntRange(min=1), default=50, show_default=True, help="Views per scene.")
@click.option("--resolution", type=click.IntRange(8, 1024), default=128, show_default=True, help="Pixels a side.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count(), show_default="CPUs", help="Processes.")
@click.option("--val-scenes", type=click.IntRange(min=0), default=40, show_default=True, help="Validation scenes.")
@click.option("--test-scenes", type=click.IntRange(min=0), default=10, show_default=True, help="Test scenes.")
@click.option("--test-views", type=click.IntRange(1, SPIRAL_VIEWS), default=SPIRAL_VIEWS, show_default=True,
              help="Views per test scene, of SRN's spiral.")  # fmt: skip
def main(**options) -> None:
    """Make the embedded dataset: procedural cars in SRN's layout. Run again, it makes only what is missing."""
    try:
        for split in ensure_dataset(options.pop("out"), **options):
            click.echo(f"{split.folder}: all of {len(split.subjects)} scenes are there")
    except KeyboardInterrupt:
        click.echo("\nInterrupted: the same command makes the rest.", err=True)
        raise


if __name__ == "__main__":
    run_command(main)
