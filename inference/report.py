"""An evaluation's figures: measured, and shown beside the literature's in a Markdown table and a contact sheet."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs.data.types import Views
from genvs.geometry import Cameras
from genvs.metrics import hull_agreement, psnr, ssim
from genvs.metrics.distributions import SET_METRICS, SetMetrics
from genvs.metrics.perceptual import IMAGE_METRICS, Distance, diversity, image_metric
from genvs.modalities import to_levels
from genvs.visualize import Band, contact_sheet
from inference.evaluation import BASELINES, SAMPLES, Evaluation
from inference.protocol import LIST_VIEWS

CHUNK = 64  # images that are measured at a time
AGGREGATES = {"mean": "mean", "best": "best", "mean_image": "mean image"}
SHEET_TARGETS, SHEET_SAMPLES = 8, 4  # shown of each object, at most
COLUMNS = ("psnr", "ssim_uniform", "lpips_vgg", "fid")
PUBLISHED = {
    "pixelNeRF": (23.17, 0.90, 0.146, 59.24),
    "VisionNeRF": (22.88, 0.91, 0.084, 21.31),
    "3DiM": (21.01, 0.57, None, 8.99),
    "SSDNeRF": (23.52, 0.91, 0.078, 16.39),
    "Splatter Image": (24.00, 0.92, 0.078, None),
    "SplatDiffusion": (24.84, 0.93, 0.077, None),
}
ABOUT = (
    "Means over the objects ± their standard errors; ↑ larger is better, ↓ smaller. Published figures: one input view, "
    "ShapeNet-SRN cars, 128 x 128; pixelNeRF's SSIM has the 7x7 window (scikit-image's default), to which the others "
    "compare theirs; the gaussian window gives lower values."
)


@dataclass(frozen=True)
class Measure:
    """How a measure is shown. title: with its unit. larger_is_better: None where neither is. digits: of decimals."""

    title: str
    larger_is_better: bool | None
    digits: int = 3


# All are measured for each image, but "consistency" for each sample of an object, "diversity" for the samples of a
# view, and those in SET_METRICS for all images.
MEASURES = {
    "psnr": Measure("PSNR (dB)", True, 2),
    "ssim": Measure("SSIM, gaussian window", True),
    "ssim_uniform": Measure("SSIM, 7x7 window", True),
    "lpips_vgg": Measure("LPIPS (VGG)", False),
    "lpips_alex": Measure("LPIPS (Alex)", False),
    "dists": Measure("DISTS", False),
    "consistency": Measure("consistency", True),
    "diversity": Measure("diversity", None),
    "fid": Measure("FID", False, 2),
    "kid": Measure("KID", False, 4),
    "fd_vgg": Measure("Fréchet distance, VGG16", False),
    "swd": Measure("SWD x 1000", False, 2),
}
Scores = dict[str, dict[str, float]]  # by measure, then "mean", "best", "mean_image"


class Measures:
    """The measures of one evaluation, on a device; their networks are loaded once."""

    def __init__(self, evaluation: Evaluation, device: torch.device) -> None:
        """Raises InputError where a package or a network's weights are missing."""
        names, drawings = evaluation.protocol["metrics"], evaluation.drawings
        self.device, self.background = device, evaluation.dataset.scene_config().background_levels
        self.num_targets = evaluation.num_targets
        self._image_metrics: dict[str, Distance] = {
            "psnr": psnr,
            "ssim": ssim,
            "ssim_uniform": functools.partial(ssim, window="uniform"),
            **{name: image_metric(name, device) for name in names if name in IMAGE_METRICS},
        }
        self._consistency = "consistency" in names
        self._diversity: Distance | None = None
        if "diversity" in names:
            self._diversity = self._image_metrics.get("lpips_vgg") or image_metric("lpips_vgg", device)
        num_images = self.num_targets * max(map(len, drawings.values()))
        self._sets = SetMetrics([name for name in names if name in SET_METRICS], drawings, device, num_images)

    def of_object(self, drawn: dict[str, Tensor], inputs: Views, targets: Views) -> dict[str, Scores]:
        """Measure what was drawn of one object, and add its images to the sets.

        drawn: by drawing, uint8 images `[k, T, 3, H, W]` of k samples. inputs: `[V]`, targets: `[T]`, images uint8.
        """
        self._sets.add(targets.images)
        for name, samples in drawn.items():
            for sample in samples:
                self._sets.add(sample, name)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        return {name: self._scores(samples, inputs, targets) for name, samples in drawn.items()}

    def _scores(self, images: Tensor, inputs: Views, targets: Views) -> Scores:
        """Each measure's `aggregates`, and for k > 1 samples "mean_image", of the mean of the samples' images."""
        samples = to_levels(images.to(self.device).double())
        scores: Scores = {}
        for name, metric in self._image_metrics.items():
            values = torch.stack([_chunked(metric, sample, targets.images) for sample in samples])
            scores[name] = aggregates(values, bool(MEASURES[name].larger_is_better))
            if len(images) > 1:
                scores[name]["mean_image"] = float(_chunked(metric, samples.mean(dim=0), targets.images).mean())
        if self._consistency:
            views = evenly(len(targets.images), len(LIST_VIEWS))
            cameras = Cameras.cat([inputs.cameras, targets.cameras[views]])
            sets = (torch.cat([inputs.images, sample[views].float()]) for sample in samples)
            of_samples = [hull_agreement(images, cameras, self.background) for images in sets]
            scores["consistency"] = aggregates(torch.tensor(of_samples)[:, None], larger_is_better=True)
        if self._diversity and len(images) > 1:
            scores["diversity"] = {"mean": diversity(samples, functools.partial(_chunked, self._diversity))}
        return scores

    def of_sets(self, drawing: str) -> Scores:
        """The distances of all images of a drawing, of all ranks, to the targets. All ranks have to call it."""
        return {name: {"mean": value} for name, value in self._sets.compute(drawing, self.num_targets).items()}


def _chunked(metric: Distance, images: Tensor, targets: Tensor) -> Tensor:
    """`[T]` float64 from images `[T, ...]`, some at a time."""
    pairs = zip(images.split(CHUNK), targets.double().split(CHUNK), strict=True)
    return torch.cat([metric(*pair).double() for pair in pairs])


def aggregates(values: Tensor, larger_is_better: bool) -> dict[str, float]:
    """The mean of values `[k, T]` of k samples of T views; for k > 1 also the mean of each view's best sample."""
    if len(values) == 1:
        return {"mean": float(values.mean())}
    best = values.amax(dim=0) if larger_is_better else values.amin(dim=0)
    return {"mean": float(values.mean()), "best": float(best.mean())}


def summarize(objects: Mapping[str, Scores], of_sets: Scores) -> Scores:
    """Each figure's mean over the objects, with the standard error of "mean"; and the figures of sets, unchanged."""
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
    title: str, facts: Sequence[str], departures: Sequence[str], summaries: Mapping[str, Scores], num_samples: int
) -> str:
    """The whole page. facts: what was drawn, a line each. departures: why its figures cannot be compared, if so.

    summaries: of the samples, and of baselines by name.
    """
    columns = [name for name in MEASURES if name in COLUMNS or name in summaries[SAMPLES]]
    arrows = {True: " ↑", False: " ↓", None: ""}
    rows = [["", *(MEASURES[name].title + arrows[MEASURES[name].larger_is_better] for name in columns)]]
    rows.append(["---", *["---:"] * len(columns)])
    for drawing, summary in summaries.items():
        for aggregate in (name for name in AGGREGATES if name in summary["psnr"]):
            name = BASELINES.get(drawing, "")
            if drawing == SAMPLES:
                name = "**this snapshot" + (f", {AGGREGATES[aggregate]} of {num_samples}" if num_samples > 1 else "")
                name += "**" + (" (not comparable)" if departures else "")
            rows.append([name, *(_cell(column, summary.get(column, {}), aggregate) for column in columns)])
    for paper, figures in PUBLISHED.items():
        published = dict(zip(COLUMNS, figures, strict=True))
        rows.append([paper, *(_cell(column, {"mean": published.get(column)}) for column in columns)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    warning = f"**Not comparable with the published figures:** {'; '.join(departures)}.\n\n" if departures else ""
    drawn = "\n".join(f"* {fact}" for fact in facts)
    return f"# {title}\n\n{warning}{table}\n\n{ABOUT}\n\n## What was drawn\n\n{drawn}\n"


def _cell(column: str, figures: Mapping[str, float | None], aggregate: str = "mean") -> str:
    value, digits = figures.get(aggregate), MEASURES[column].digits
    error = figures.get("standard_error") if aggregate == "mean" else None
    return "-" if value is None else f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def sheet(evaluation: Evaluation, objects: Mapping[str, Scores], title: str) -> Image.Image:
    """The best, the median and the worst object: inputs, targets, what was drawn, and the error of the first sample,
    which is white where there is none and black from half the range on.
    """
    seeds = evaluation.protocol["seeds"][:SHEET_SAMPLES]
    drawings: dict[str, int | str] = {f"sample, seed {seed}": seed for seed in seeds}
    drawings |= {BASELINES[baseline]: baseline for baseline in evaluation.protocol["baselines"]}
    bands: list[Band] = []
    for rank, name in best_median_worst(objects).items():
        index = int(name.partition("-")[0])
        given, targets = evaluation.views(index)
        shown = evenly(len(targets), SHEET_TARGETS)
        targets = [targets[number] for number in shown]
        inputs, wanted = (_pictures(evaluation.dataset.load(index, views).images) for views in (given, targets))
        drawn = [_pictures(evaluation.drawn(index, drawing)[shown]) for drawing in drawings.values()]
        error = 255 - np.minimum(2 * np.abs(drawn[0].astype(int) - wanted), 255).astype(np.uint8)
        rows = {"target": wanted, **dict(zip(drawings, drawn, strict=True)), f"error of {next(iter(drawings))}": error}
        label = f"{rank}: {objects[name]['psnr']['mean']:.2f} dB"
        bands.append(([f"{name}, view {view}" for view in given], {label: inputs}))
        bands.append(([f"view {view}" for view in targets], rows))
    return contact_sheet(title, bands)


def _pictures(images: Tensor) -> np.ndarray:
    """uint8 images `[N, 3, H, W]` as pictures `[N, H, W, 3]`."""
    return images.movedim(1, -1).numpy()


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` positions, evenly spaced, with the first and the last."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def best_median_worst(objects: Mapping[str, Scores]) -> dict[str, str]:
    """'best', 'median' and 'worst' to the names of objects, by PSNR; each object once."""
    ranked = sorted(objects, key=lambda name: objects[name]["psnr"]["mean"], reverse=True)
    ranks = {ranked[len(ranked) // 2]: "median", ranked[-1]: "worst", ranked[0]: "best"}
    return {ranks[name]: name for name in ranked if name in ranks}
