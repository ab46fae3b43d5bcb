"""Figures with curves, drawn by matplotlib (the extra `plots`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.common import check_writable
from genvs.errors import InputError


def subplots(count: int = 1) -> tuple[Any, list]:
    """A figure and its axes, one below the other. Raises InputError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("drawing curves needs matplotlib: pip install -c constraints.txt -e .[plots]") from None
    figure = Figure(figsize=(9, 4.5 * count), layout="constrained")
    axes = list(figure.subplots(count, squeeze=False)[:, 0])
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def check_plot(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """The callback of an option for a picture's file: refuses one that could not be written, before anything is run."""
    if path is not None:
        figure, _ = subplots()
        if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
            raise click.BadParameter(f"{path}: give a name that ends in .png, .pdf or .svg")
        check_writable(path)
    return path


plot_option = click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), callback=check_plot, help="A picture of the curves."
)
