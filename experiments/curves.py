"""Curves as pictures, drawn by matplotlib (the extra `plots`), and a program that draws a run's."""

import json
from pathlib import Path
from typing import Any

import click

from dnnlib.command import Command, option_group, run_command
from genvs.errors import InputError

PSNR = {"PSNR/3_input": "three input views", "PSNR/1_input": "one input view", "PSNR/mean_image": "mean training image"}


def subplots(count: int = 1, columns: int = 1) -> tuple[Any, list]:
    """A figure and its axes, row by row. Raises InputError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("drawing curves needs matplotlib: pip install -c constraints.txt -e .[plots]") from None
    rows = -(-count // columns)
    figure = Figure(figsize=(9, 4.5 * rows / columns), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes[:count]:
        each.grid(alpha=0.3)
    for each in axes[count:]:
        each.remove()
    return figure, list(axes[:count])


def writable_picture(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """`path`, after an empty picture was written there: a name or folder that does not work is refused at once."""
    if path is not None:
        try:
            subplots()[0].savefig(path)
        except (OSError, ValueError) as error:
            raise click.BadParameter(f"{error}: give a name such as curves.png, in a folder that exists") from None
    return path


of_results = option_group("Results")
plot_option = of_results("--plot", type=click.Path(path_type=Path), callback=writable_picture, help="Draw the curves.")


@click.command("curves", cls=Command)
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
    for axes, name, label in (*((above, *item) for item in PSNR.items()), (below, "Loss/all", "training loss")):
        points = [(record["nimg"] / 1000, record[name]) for record in records if name in record]
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    for axes in (above, below):
        axes.set_xlabel("thousand images")
        axes.legend()
    above.set_ylabel("held-out PSNR (dB), one step")
    below.set_yscale("log")
    figure.savefig(plot)
    print(f"Wrote {plot}")


if __name__ == "__main__":
    run_command(main)
