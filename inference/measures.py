"""What an evaluation measures: each object's images, and all images as sets."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from genvs.data.types import Views
from genvs.geometry import Cameras
from genvs.metrics import hull_agreement, psnr, ssim
from genvs.metrics.distributions import SET_METRICS, SetMetrics
from genvs.metrics.perceptual import IMAGE_METRICS, Distance, image_metric
from inference.protocol import LIST_VIEWS, evenly

CHUNK = 64  # images that are measured at a time


@dataclass(frozen=True)
class Measure:
    """title: with the unit. digits: shown after the decimal point."""

    title: str
    larger_is_better: bool
    digits: int = 3


# All are measured for each image, but "consistency" for each sample of an object, "fid" and "kid" for all samples.
MEASURES = {
    "psnr": Measure("PSNR (dB)", True, 2),
    "ssim": Measure("SSIM, gaussian window", True),
    "ssim_uniform": Measure("SSIM, 7x7 window", True),
    "lpips_vgg": Measure("LPIPS (VGG)", False),
    "lpips_alex": Measure("LPIPS (Alex)", False),
    "dists": Measure("DISTS", False),
    "consistency": Measure("consistency", True),
    "fid": Measure("FID", False, 2),
    "kid": Measure("KID", False, 4),
}
ALWAYS = ("psnr", "ssim", "ssim_uniform")
Scores = dict[str, dict[str, float]]  # by measure, then "mean", "best", "mean_image"


class Measures:
    """The measures of one evaluation, on a device; their networks are loaded once."""

    def __init__(self, names: Sequence[str], drawings: Iterable[str], device: torch.device) -> None:
        """names: of MEASURES, besides ALWAYS. drawings: names of what is measured, each by itself.

        Raises InputError where a package or weights are missing.
        """
        self.device = device
        self._image_metrics: dict[str, Distance] = {
            "psnr": psnr,
            "ssim": ssim,
            "ssim_uniform": functools.partial(ssim, window="uniform"),
            **{name: image_metric(name, device) for name in names if name in IMAGE_METRICS},
        }
        self._consistency = "consistency" in names
        self._sets = SetMetrics([name for name in names if name in SET_METRICS], drawings, device)

    def of_object(self, drawn: dict[str, Tensor], inputs: Views, targets: Views) -> dict[str, Scores]:
        """Measure what was drawn of one object, and add its images to the sets.

        drawn: by drawing, uint8 images `[k, T, 3, H, W]` of k samples. inputs: `[V]`, targets: `[T]`, images uint8.
        """
        self._sets.add(targets.images)
        for name, samples in drawn.items():
            self._sets.add(samples.flatten(0, 1), name)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
        return {name: self._scores(samples, inputs, targets) for name, samples in drawn.items()}

    def _scores(self, images: Tensor, inputs: Views, targets: Views) -> Scores:
        """Each measure's `aggregates`, and for k > 1 samples "mean_image", of the mean of the samples' images."""
        samples = images.to(self.device).double() / 127.5 - 1
        scores: Scores = {}
        for name, metric in self._image_metrics.items():
            values = torch.stack([_chunked(metric, sample, targets.images) for sample in samples])
            scores[name] = aggregates(values, MEASURES[name].larger_is_better)
            if len(images) > 1:
                scores[name]["mean_image"] = float(_chunked(metric, samples.mean(dim=0), targets.images).mean())
        if self._consistency:
            views = evenly(len(targets.images), len(LIST_VIEWS))
            cameras = Cameras.cat([inputs.cameras, targets.cameras[views]])
            of_samples = [hull_agreement(torch.cat([inputs.images, s[views].float()]), cameras) for s in samples]
            scores["consistency"] = aggregates(torch.tensor(of_samples)[:, None], larger_is_better=True)
        return scores

    def of_sets(self, drawing: str, num_images: int) -> Scores:
        """FID and KID of a drawing's images, of all ranks. num_images: of the targets. All ranks have to call it."""
        return {name: {"mean": value} for name, value in self._sets.compute(drawing, num_images).items()}


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
