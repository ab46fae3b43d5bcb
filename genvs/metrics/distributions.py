"""Distances between sets of images: FID (arXiv 1706.08500) and KID (arXiv 1801.01401) in Inception's features, the
Frechet distance in VGG16's, and the sliced Wasserstein distance of `genvs.metrics.wasserstein`.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from genvs.errors import InputError
from genvs.metrics.perceptual import INSTALL, vgg_features
from genvs.metrics.wasserstein import random_patches, sliced_wasserstein

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"  # of FID's first implementation; torch-fidelity downloads them
OF_INCEPTION = ("fid", "kid")
SET_METRICS = (*OF_INCEPTION, "fd_vgg", "swd")
KID_SUBSET = 1000
PATCHES, PATCHES_OF_IMAGE = 2**18, 128  # for swd, of the largest set and of one image: at most


class SetMetrics:
    """The distances from one set of real images to several sets of drawn ones.

    Each rank adds its own images, and every rank has to call `compute`. FID and KID are computed by torchmetrics, from
    images that are resized for Inception as FID's first implementation does: TensorFlow 1's bilinear interpolation,
    without half-pixel centres and without antialiasing. The other two see images at their own size.
    """

    def __init__(self, names: Sequence[str], sets: Iterable[str], device: torch.device | str, num_images: int) -> None:
        """names: some of SET_METRICS. sets: the names of the drawn ones. num_images: of the largest, over all ranks.

        Raises InputError for what is missing.
        """
        self._device, sets = device, list(sets)
        self._torchmetrics: dict[str, dict[str, Any]] = {name: {} for name in sets}
        self._kept: dict[str, dict[str | None, list[Tensor]]] = {}  # features by metric and set; None: the real ones
        self._features: dict[str, Callable[[Tensor], Tensor]] = {}
        if of_inception := [name for name in names if name in OF_INCEPTION]:
            self._inception = self._load_inception(of_inception)
        if "fd_vgg" in names:
            self._features["fd_vgg"] = vgg_features(device)
        if "swd" in names:
            count = min(PATCHES_OF_IMAGE, max(1, PATCHES // num_images))
            self._features["swd"] = functools.partial(random_patches, count=count)
        for name in self._features:
            self._kept[name] = {of_set: [] for of_set in (None, *sets)}

    def _load_inception(self, names: Sequence[str]) -> nn.Module:
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
            for metrics in self._torchmetrics.values():
                metrics |= {name: kinds[name](_Features()).to(self._device) for name in names}
        return inception.to(self._device)

    @torch.inference_mode()
    def add(self, images: Tensor, drawn: str | None = None) -> None:
        """Add uint8 images `[N, 3, H, W]`, the views of one object, to the real ones or to the set `drawn`.

        Drawn images follow the order of the real ones: swd compares the same places of both.
        """
        images = images.to(self._device)
        for name, features in self._features.items():
            self._kept[name][drawn].append(features(images / 127.5 - 1).cpu())
        if any(self._torchmetrics.values()):
            in_inception = self._inception(images)
            for name, metrics in self._torchmetrics.items():
                for metric in metrics.values() if drawn in (name, None) else ():
                    metric.update(in_inception, real=drawn is None)

    @torch.inference_mode()
    def compute(self, drawn: str, num_images: int) -> dict[str, float]:
        """The distances of the set `drawn`, by metric. num_images: of the smaller set, over all ranks; at least 2.

        KID is the mean over 100 random subsets of KID_SUBSET images, or of all where there are fewer. swd is the mean
        over the levels times 1000, as the paper gives it.
        """
        values = {}
        for name, metric in self._torchmetrics[drawn].items():
            metric.subset_size = min(KID_SUBSET, num_images)  # of KID
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                value = metric.compute()
            values[name] = float(value[0] if name == "kid" else value)
        for name, kept in self._kept.items():
            real, other = (_of_all_ranks(torch.cat(kept[of_set])) for of_set in (None, drawn))
            if name == "fd_vgg":
                values[name] = frechet_distance(real, other)
            else:
                values[name] = 1000 * float(sliced_wasserstein(real, other).mean())
        return values


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance of the Gaussians fitted to two sets of features, `[N, C]` and `[M, C]`, N and M at least 2.

    Dowson and Landau, 1982: |mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2)). The last trace is that of
    (cov_a^(1/2) cov_b cov_a^(1/2))^(1/2), which is symmetric. Computed in float64.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(distance))  # rounding alone makes it negative


def _of_all_ranks(features: Tensor) -> Tensor:
    if not torch.distributed.is_initialized():
        return features
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, features)
    return torch.cat(parts)


class _Features(nn.Identity):
    """Stands where torchmetrics expects a network: Inception is evaluated once for all metrics and sets."""

    num_features = 2048
