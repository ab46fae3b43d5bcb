"""Command line: `python -m genvs.data.mesh --out DIR MESH...`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from genvs.data.mesh.dataset import CAMERAS, ensure_meshes
from genvs.errors import run_command


@click.command()
@click.argument("meshes", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="MESH...")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The split to write, such as OUT_train.")
@click.option("--views", type=click.IntRange(min=1), default=50, show_default=True, help="Views per mesh.")
@click.option("--resolution", type=click.IntRange(8, 1024), default=128, show_default=True, help="Pixels a side.")
@click.option("--cameras", type=click.Choice(list(CAMERAS)), default="sphere", show_default=True,
              help="Random on the whole sphere, or evenly along SRN's test spiral (at most 251).")  # fmt: skip
@click.option("--up", type=click.Choice(["y", "z"]), default="y", show_default=True, help="The meshes' axis upwards.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count(), show_default="CPUs", help="Processes.")
def main(meshes: tuple[Path, ...], **options) -> None:
    """Draw meshes (.glb, .gltf, .obj, .ply; a folder stands for those in it) from all around, a scene each.

    The object is centred and scaled to a bounding box of diagonal 1, as SRN's cars are, and seen from 1.3 away.
    Run again, it draws only what is missing.
    """
    try:
        split = ensure_meshes(options.pop("out"), meshes, **options)
        click.echo(f"{split.folder}: all of {len(split.subjects)} scenes are there")
    except KeyboardInterrupt:
        click.echo("\nInterrupted: the same command draws the rest.", err=True)
        raise


if __name__ == "__main__":
    run_command(main)
