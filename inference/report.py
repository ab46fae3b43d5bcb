"""An evaluation's results for people: a Markdown table beside the literature's, and a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
from PIL import Image
from torch import Tensor

from genvs.visualize import Column, contact_sheet
from inference.evaluation import BASELINES, Evaluation
from inference.measures import MEASURES, Scores
from inference.protocol import evenly

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
        row = "GeNVS, this snapshot" + (f", {name}" if num_samples > 1 else "")
        figures = (_shown(name, summary.get(name, {}).get(aggregate)) for name in COLUMNS)
        beside.append(_row(f"**{row}**" + (" (not comparable)" if departures else ""), *figures))
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


def sheet(evaluation: Evaluation, objects: Mapping[str, Scores], title: str) -> Image.Image:
    """The best, the median and the worst object: inputs, targets, what was drawn, and the error of the first sample."""
    indices = {evaluation.name(index): index for index in range(evaluation.num_objects)}
    rows: dict[str, int | str] = {f"sample, seed {seed}": seed for seed in evaluation.seeds[:SHEET_SAMPLES]}
    rows |= {BASELINES[baseline]: baseline for baseline in evaluation.baselines}
    bands: list[tuple[Sequence[str], Sequence[Column]]] = []
    for rank, name in best_median_worst(objects).items():
        index = indices[name]
        given, wanted = evaluation.views(index)
        wanted = [wanted[place] for place in evenly(len(wanted), SHEET_TARGETS)]
        inputs, targets = (_pictures(evaluation.dataset.load(index, places).images) for places in (given, wanted))
        drawn = [_pictures(evaluation.drawn(index, drawing, wanted)) for drawing in rows.values()]
        errors = list(map(error_picture, drawn[0], targets))
        label = f"{rank}: {objects[name]['psnr']['mean']:.2f} dB"
        shown = zip(given, inputs, strict=True)
        bands.append(([label], [Column(f"{name}, view {view}", [picture]) for view, picture in shown]))
        columns = zip(wanted, zip(targets, *drawn, errors, strict=True), strict=True)
        names = ["target", *rows, f"error of {next(iter(rows))}"]
        bands.append((names, [Column(f"view {view}", column) for view, column in columns]))
    return contact_sheet(title, bands)


def _pictures(images: Tensor) -> list[np.ndarray]:
    """uint8 images `[N, 3, H, W]` as N pictures `[H, W, 3]`."""
    return list(images.movedim(1, -1).numpy())


def error_picture(sample: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The absolute error of a picture `[H, W, 3]` uint8: white where there is none, black from half the range on."""
    return 255 - np.minimum(2 * np.abs(sample.astype(int) - target.astype(int)), 255).astype(np.uint8)


def best_median_worst(objects: Mapping[str, Scores]) -> dict[str, str]:
    """'best', 'median' and 'worst' to the names of objects, by PSNR; fewer where there are fewer objects."""
    ranked = sorted(objects, key=lambda name: objects[name]["psnr"]["mean"], reverse=True)
    places = {ranked[len(ranked) // 2]: "median", ranked[-1]: "worst", ranked[0]: "best"}
    return {place: name for name in ranked if (place := places.get(name))}
