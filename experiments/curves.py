"""A run's curves as a picture for a page: what tensorboard shows of it, without tensorboard."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.common import check_writable
from dnnlib.command import run_command
from experiments.plot import draw_curves
from experiments.recipe import read
from genvs.errors import InputError

PSNR = {"PSNR/3_input": "three input views", "PSNR/1_input": "one input view", "PSNR/mean_image": "mean training image"}


@click.command("curves")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A PNG file.")
def main(run: Path, plot: Path) -> None:
    """Draw held-out PSNR and the loss of the run folder RUN, by number of images."""
    stats = run / "stats.jsonl"
    if not stats.is_file():
        raise InputError(f"{stats}: no such file: give a run's folder")
    if plot.suffix.lower() != ".png":
        raise InputError(f"--plot={plot}: is no PNG file: give a name that ends in .png")
    check_writable(plot)
    try:
        records = read(stats)
    except ValueError:
        raise InputError(f"{stats}: is damaged: give another run's folder") from None
    measured = [record for record in records if all(name in record for name in PSNR)]
    losses = [record for record in records if "Loss/all" in record]
    if len(measured) < 2 or len(losses) < 2:
        raise InputError(
            f"{stats}: has no two evaluations with one and three input views, and losses: train for longer"
        )
    end = max(measured[-1]["nimg"], losses[-1]["nimg"])
    span = f", from 0 to {end / 1000:g} thousand images"

    def panel(title: str, curves: dict[str, str], records: list[dict], *, linear: bool = False) -> Image.Image:
        values = {name: np.array([record[key] for record in records]) for key, name in curves.items()}
        return draw_curves(values, title + span, at=[record["nimg"] for record in records], end=end, linear=linear)

    pictures = [
        panel("Held-out PSNR (dB), one step", PSNR, measured, linear=True),
        panel("Training loss, logarithmic", {"Loss/all": "loss"}, losses),
    ]
    sheet = Image.new("RGB", (pictures[0].width, sum(picture.height for picture in pictures)))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (0, place * picture.height))
    sheet.save(plot)
    print(f"Wrote {plot}")


if __name__ == "__main__":
    run_command(main)
