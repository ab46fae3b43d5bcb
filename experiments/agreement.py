"""Whether photos and depth pictures that were drawn for the same cameras, perhaps by two networks, show one object."""

from pathlib import Path
from statistics import fmean

import click
from torch import Tensor

from dnnlib.command import Command, run_command
from genvs.errors import InputError
from genvs.metrics import overlap, silhouettes
from genvs.metrics.consistency import NOTHING
from genvs.modalities import to_levels
from inference.writers import read_strip

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command("agreement", cls=Command)
@click.argument("photos", type=FOLDER)
@click.argument("depths", type=FOLDER)
def main(photos: Path, depths: Path) -> None:
    """Compare the silhouettes in the folders PHOTOS and DEPTHS, two ...-images/INPUTS-to-TARGET of evaluate.py --cross.

    Prints their intersection over union: the mean over all views.
    """
    names = [sorted(path.name for path in folder.glob("*.png")) for folder in (photos, depths)]
    if names[0] != names[1] or not names[0]:
        raise InputError(f"{depths}: does not have the scenes of {photos}: evaluate both on the same data")
    values = [
        float(overlap(silhouettes(views(photos / name)), silhouettes(views(depths / name), NOTHING)).mean())
        for name in names[0]
    ]
    click.echo(f"IoU of silhouettes: {fmean(values):.4f} ({len(values)} scenes)")


def views(path: Path) -> Tensor:
    """The pictures side by side in a file: `[T, 3, H, H]` in [-1, 1]."""
    return to_levels(read_strip(path).float())


if __name__ == "__main__":
    run_command(main)
