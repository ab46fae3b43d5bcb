"""The figures of an evaluation: of each object's images, and of all images as two sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genvs.data.types import Views
from genvs.geometry import Cameras
from genvs.metrics import hull_agreement, psnr, ssim
from genvs.metrics.perceptual import SetMetrics, image_metric
from inference.protocol import LIST_VIEWS, evenly

CHUNK = 64  # images that are measured at a time


@dataclass(frozen=True)
class Measure:
    """title: with the unit. larger_is_better: which of several samples is the best. digits: that are shown."""

    title: str
    larger_is_better: bool
    digits: int = 3


# What a sample is measured by, image by image; "consistency", sample by sample; the last two, all samples together.
MEASURES = {
    "psnr": Measure("PSNR (dB)", True, 2),
    "ssim": Measure("SSIM", True),
    "ssim_uniform": Measure("SSIM, 7x7 window", True),
    "lpips_vgg": Measure("LPIPS (VGG)", False),
    "lpips_alex": Measure("LPIPS (Alex)", False),
    "dists": Measure("DISTS", False),
    "consistency": Measure("consistency", True),
    "fid": Measure("FID", False, 2),
    "kid": Measure("KID", False, 4),
}
ALWAYS = ("psnr", "ssim")
SET_MEASURES = ("fid", "kid")
Scores = dict[str, dict[str, float]]  # by measure, then "mean", "best", "mean_image"


class Measures:
    """The measures of one evaluation, on a device."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        """names: of MEASURES, besides those of ALWAYS. Raises InputError where a library or weights are missing."""
        self.device = device
        self._image_metrics: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim}
        for name in names:
            if name == "ssim_uniform":
                self._image_metrics[name] = lambda images, targets: ssim(images, targets, "uniform")
            elif name.startswith("lpips") or name == "dists":
                self._image_metrics[name] = image_metric(name, device)
        self._consistency = "consistency" in names
        self._sets = SetMetrics([name for name in names if name in SET_MEASURES], device)

    def of_object(self, images: Tensor, inputs: Views, targets: Views) -> Scores:
        """Measure what was drawn of one object, and keep its images for the measures of sets.

        images: uint8 `[k, T, 3, H, W]`, of k samples. inputs: `[V]`, targets: `[T]`, images uint8.

        A measure of images is the mean over the views of: "mean", its mean over the samples; "best", its best among
        them, each view by itself; "mean_image", its value for the mean of the samples. The last two for k > 1 only.
        """
        self._sets.add(targets.images, real=True)
        for sample in images:
            self._sets.add(sample, real=False)
        inputs, targets = inputs.to(self.device), targets.to(self.device)
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

    def of_sets(self, num_images: int) -> Scores:
        """FID and KID of all targets and all samples of all ranks. num_images: of the targets. All ranks call it."""
        return {name: {"mean": value} for name, value in self._sets.compute(num_images).items()}


def _chunked(metric: Callable[[Tensor, Tensor], Tensor], images: Tensor, targets: Tensor) -> Tensor:
    """`[T]` float64 from images `[T, ...]`, some at a time."""
    pairs = zip(images.split(CHUNK), targets.double().split(CHUNK), strict=True)
    return torch.cat([metric(*pair).double() for pair in pairs])


def aggregates(values: Tensor, larger_is_better: bool) -> dict[str, float]:
    """Of values `[k, T]`: k samples of T views."""
    result = {"mean": float(values.mean())}
    if len(values) > 1:
        best = values.amax(dim=0) if larger_is_better else values.amin(dim=0)
        result["best"] = float(best.mean())
    return result
