"""A run's curves as a picture: what TensorBoard shows of it, without TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import click

from dnnlib.command import run_command
from experiments.plot import plot_option, subplots
from genvs.errors import InputError

PSNR = {"PSNR/3_input": "three input views", "PSNR/1_input": "one input view", "PSNR/mean_image": "mean training image"}


@click.command("curves")
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@plot_option
def main(run: Path, plot: Path | None) -> None:
    """Draw held-out PSNR and the loss of the run folder RUN, by number of images."""
    plot = plot or run / "curves.png"
    try:
        records = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    except ValueError:
        raise InputError(f"{run / 'stats.jsonl'}: is damaged: give another run's folder") from None
    figure, (above, below) = subplots(2)
    for name, label in PSNR.items():
        draw(above, records, name, label)
    draw(below, records, "Loss/all", "training loss")
    above.set_ylabel("held-out PSNR (dB), one step")
    below.set_yscale("log")
    figure.savefig(plot)
    print(f"Wrote {plot}")


def draw(axes, records: list[dict], name: str, label: str) -> None:
    points = [(record["nimg"] / 1000, record[name]) for record in records if name in record]
    axes.plot(*zip(*points, strict=True), label=label) if points else None
    axes.set_xlabel("thousand images")
    axes.legend()


if __name__ == "__main__":
    run_command(main)
