"""An evaluation's results for people: a Markdown table beside the literature's, and a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from PIL import Image

from genvs.visualize import Column, contact_sheet
from inference.measures import MEASURES, Scores

AGGREGATES = {"mean": "mean of {k}", "best": "best of {k}", "mean_image": "mean image of {k}"}
SHEET_TARGETS = 8  # of each object shown
SHEET_SAMPLES = 4
COLUMNS = ("psnr", "ssim_uniform", "lpips_vgg", "fid")
PUBLISHED = {
    "pixelNeRF": (23.17, 0.90, 0.146, 59.24),
    "VisionNeRF": (22.88, 0.91, 0.084, 21.31),
    "3DiM": (21.01, 0.57, None, 8.99),
    "SSDNeRF": (23.52, 0.91, 0.078, 16.39),
    "Splatter Image": (24.00, 0.92, 0.078, None),
    "SplatDiffusion": (24.84, 0.93, 0.077, None),
}
ABOUT_PUBLISHED = (
    "Published figures: one input view, ShapeNet-SRN cars, 128 x 128; - where a paper gives none. pixelNeRF's SSIM has "
    "the 7x7 uniform window (scikit-image's default), to which the others compare theirs; the gaussian window gives "
    "lower values."
)


def summarize(objects: Mapping[str, Scores], of_sets: Scores) -> Scores:
    """The mean over objects of each figure, with the standard error of "mean"; and the figures of sets, as they are."""
    every = list(objects.values())
    summary = {
        name: {aggregate: fmean(scores[name][aggregate] for scores in every) for aggregate in aggregates}
        for name, aggregates in every[0].items()
    }
    if len(every) > 1:
        for name, figures in summary.items():
            figures["standard_error"] = stdev(scores[name]["mean"] for scores in every) / math.sqrt(len(every))
    return {**summary, **of_sets}


def markdown(
    title: str,
    facts: Sequence[str],
    departures: Sequence[str],
    summary: Scores,
    num_samples: int,
    baselines: Mapping[str, Scores],
) -> str:
    """The whole page. facts: what was drawn, a line each. departures: why its figures cannot be compared, if so.

    summary: of the samples. baselines: the summaries of baselines, by title.
    """
    aggregates = [aggregate for aggregate in AGGREGATES if aggregate in summary["psnr"]]
    names = [AGGREGATES[aggregate].format(k=num_samples) for aggregate in aggregates]
    beside = [_row("", *(MEASURES[name].title for name in COLUMNS)), _row("---", *["---:"] * len(COLUMNS))]
    for aggregate, name in zip(aggregates, names, strict=True):
        of_samples = "" if num_samples == 1 else f", {name}"
        figures = (_shown(name, summary.get(name, {}).get(aggregate)) for name in COLUMNS)
        beside.append(
            _row(f"**GeNVS, this snapshot{of_samples}**" + (" (not comparable)" if departures else ""), *figures)
        )
    beside += [_row(paper, *map(_shown, COLUMNS, figures)) for paper, figures in PUBLISHED.items()]

    headings = names if num_samples > 1 else ["samples" if baselines else "mean"]
    headings += ["standard error", *baselines]
    measured = [_row("", *headings), _row("---", *["---:"] * len(headings))]
    for name, of_name in summary.items():
        better = "larger" if MEASURES[name].larger_is_better else "smaller"
        shown = [_shown(name, of_name.get(aggregate)) for aggregate in [*aggregates, "standard_error"]]
        shown += [_shown(name, of_baseline[name]["mean"]) for of_baseline in baselines.values()]
        measured.append(_row(f"{MEASURES[name].title}, {better} is better", *shown))

    warning = [f"**Not comparable with the published figures:** {'; '.join(departures)}.", ""] if departures else []
    lines = [f"# {title}", "", *(f"* {fact}" for fact in facts), "", *warning, *beside, "", ABOUT_PUBLISHED, ""]
    return "\n".join([*lines, "## All that was measured", "", *measured, ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(name: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{MEASURES[name].digits}f}"


class SheetObject(NamedTuple):
    """An object for the sheet: pictures `[H, W, 3]` uint8, by the numbers of their views; `drawn` by row, too."""

    label: str
    name: str
    inputs: Mapping[int, np.ndarray]
    targets: Mapping[int, np.ndarray]
    drawn: Mapping[str, Mapping[int, np.ndarray]]


def sheet(title: str, objects: Sequence[SheetObject]) -> Image.Image:
    """Inputs, targets, what was drawn, and the error of its first row: a band of columns for each object."""
    bands: list[tuple[Sequence[str], Sequence[Column]]] = []
    for shown in objects:
        inputs = [Column(f"{shown.name}, view {view}", [picture]) for view, picture in shown.inputs.items()]
        bands.append(([shown.label], inputs))
        rows = ["target", *shown.drawn, f"error of {next(iter(shown.drawn))}"]
        columns = []
        for view, target in shown.targets.items():
            drawn = [row[view] for row in shown.drawn.values()]
            columns.append(Column(f"view {view}", [target, *drawn, error_picture(drawn[0], target)]))
        bands.append((rows, columns))
    return contact_sheet(title, bands)


def error_picture(sample: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The absolute error of a picture `[H, W, 3]` uint8: white where there is none, black from half the range on."""
    return 255 - np.minimum(2 * np.abs(sample.astype(int) - target.astype(int)), 255).astype(np.uint8)


def best_median_worst(objects: Mapping[str, Scores]) -> dict[str, str]:
    """'best', 'median' and 'worst' to the names of objects, by PSNR; fewer where there are fewer objects."""
    ranked = sorted(objects, key=lambda name: objects[name]["psnr"]["mean"], reverse=True)
    places = {ranked[len(ranked) // 2]: "median", ranked[-1]: "worst", ranked[0]: "best"}
    return {place: name for name in ranked if (place := places.get(name))}
