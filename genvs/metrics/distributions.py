"""FID (arXiv 1706.08500) and KID (arXiv 1801.01401): distances between sets of images in Inception's features."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genvs.errors import InputError
from genvs.metrics.perceptual import INSTALL

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # of FID's first implementation; torch-fidelity downloads them
SET_METRICS = ("fid", "kid")
KID_SUBSET = 1000


class SetMetrics:
    """The distances from one set of real images to several sets of drawn ones, as torchmetrics computes them.

    Images are resized for Inception as FID's first implementation does: TensorFlow 1's bilinear interpolation, without
    half-pixel centres and without antialiasing. Each rank adds its own images, and every rank has to call `compute`.
    """

    def __init__(self, names: Sequence[str], sets: Iterable[str], device: torch.device | str) -> None:
        """names: some of SET_METRICS. sets: the names of the drawn ones. Raises InputError for what is missing."""
        self._device, self._inception = device, None
        self._metrics: dict[str, dict[str, Any]] = {name: {} for name in sets}
        if not names:
            return
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
            from torchmetrics.image.kid import KernelInceptionDistance

            inception = NoTrainInceptionV3("inception-v3-compat", [str(_Features.num_features)], antialias=False)
        except (ImportError, OSError, RuntimeError, EOFError) as error:  # RuntimeError: torchvision does not fit torch
            path, reason = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS, str(error).partition("\n")[0]
            raise InputError(
                f"`metrics`: FID and KID need torchmetrics, torch-fidelity and {path} ({reason}): {INSTALL}, or leave "
                "them out"
            ) from None
        kinds = {"fid": FrechetInceptionDistance, "kid": KernelInceptionDistance}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # KID's of its memory
            for metrics in self._metrics.values():
                metrics |= {name: kinds[name](_Features()).to(device) for name in names}
        self._inception = inception.to(device)

    @torch.inference_mode()
    def add(self, images: Tensor, drawn: str | None = None) -> None:
        """Add uint8 images `[N, 3, H, W]` to the real ones, or to the set `drawn`."""
        if self._inception is None:
            return
        features = self._inception(images.to(self._device))
        for name, metrics in self._metrics.items():
            for metric in metrics.values() if drawn in (name, None) else ():
                metric.update(features, real=drawn is None)

    def compute(self, drawn: str, num_images: int) -> dict[str, float]:
        """The distances of the set `drawn`, by metric. num_images: of the smaller set, over all ranks; at least 2.

        KID is the mean over 100 random subsets of KID_SUBSET images, or of all where there are fewer.
        """
        values = {}
        for name, metric in self._metrics[drawn].items():
            metric.subset_size = min(KID_SUBSET, num_images)  # of KID
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                value = metric.compute()
            values[name] = float(value[0] if name == "kid" else value)
        return values


class _Features(nn.Identity):
    """Stands where torchmetrics expects a network: Inception is evaluated once for all metrics and sets."""

    num_features = 2048
