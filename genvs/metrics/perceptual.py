"""LPIPS, DISTS, FID and KID, as torchmetrics computes them: the extra `metrics`, loaded when asked for.

Their networks' weights are files that torch.hub keeps; where they are not there yet they are downloaded.
"""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genvs.errors import InputError

INSTALL = "pip install -c constraints.txt -e .[metrics]"
VGG, ALEXNET = "vgg16-397923af.pth", "alexnet-owt-7be5be79.pth"  # torchvision's, of ImageNet
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # torch-fidelity's, of FID's first implementation
WEIGHTS = {"lpips_vgg": VGG, "lpips_alex": ALEXNET, "dists": VGG, "fid": INCEPTION, "kid": INCEPTION}
KID_SUBSET = 1000


def image_metric(name: str, device: torch.device | str) -> Callable[[Tensor, Tensor], Tensor]:
    """'lpips_vgg', 'lpips_alex' (arXiv 1801.03924) or 'dists' (arXiv 2004.07728): 0 for equal images.

    Returns a function of images and targets, `[N, 3, H, W]` in [-1, 1] on `device`, that gives `[N]`.
    Raises InputError where the library or the weights are missing.
    """

    def build() -> Any:
        if name == "dists":
            # Not the metric around it, which reads the weights for every batch.
            from torchmetrics.functional.image.dists import DISTSNetwork

            return DISTSNetwork()
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity(name.removeprefix("lpips_"), reduction="none")

    metric = _loaded(name, build).to(device)

    @torch.inference_mode()
    def measure(images: Tensor, targets: Tensor) -> Tensor:
        pair = images.float().clamp(-1, 1), targets.float().clamp(-1, 1)
        if name == "dists":
            return metric(*((part + 1) / 2 for part in pair)).reshape(-1)
        values = metric(*pair).reshape(-1)
        metric.reset()  # it would keep the values of all calls
        return values

    return measure


class SetMetrics:
    """FID (arXiv 1706.08500) and KID (arXiv 1801.01401): the distance between all generated and all real images.

    Each rank adds its own; `compute` is of all ranks' images, and all have to call it.
    """

    def __init__(self, names: list[str], device: torch.device | str) -> None:
        """names: some of 'fid', 'kid'. Raises InputError where a library or the weights are missing."""

        def build(name: str) -> Any:
            if name == "fid":
                from torchmetrics.image.fid import FrechetInceptionDistance

                return FrechetInceptionDistance()
            from torchmetrics.image.kid import KernelInceptionDistance

            return KernelInceptionDistance(subset_size=KID_SUBSET)

        self._metrics = {name: _loaded(name, functools.partial(build, name)).to(device) for name in names}
        self._device = device

    def add(self, images: Tensor, *, real: bool) -> None:
        """images: uint8 `[N, 3, H, W]`."""
        for metric in self._metrics.values():
            with torch.inference_mode():
                metric.update(images.to(self._device), real=real)

    def compute(self, num_images: int) -> dict[str, float]:
        """By name. num_images: the smaller of how many real and generated images all ranks have added, at least 2.

        KID is the mean over 100 subsets of `KID_SUBSET` images, or of all where there are fewer; with as many
        ranks they are the same ones.
        """
        values = {}
        for name, metric in self._metrics.items():
            if name == "kid":
                metric.subset_size = min(KID_SUBSET, num_images)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                value = metric.compute()
            values[name] = float(value[0] if name == "kid" else value)
        return values


def _loaded(name: str, build: Callable[[], Any]) -> Any:
    """What `build` makes of its library and its weights; InputError where it cannot."""
    weights = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS[name]
    there = weights.is_file()
    # Libraries that do not fit to this torch fail in any way while they are imported.
    try:
        import torch_fidelity  # noqa: F401
        import torchmetrics.image  # noqa: F401
        import torchvision.models  # noqa: F401
    except Exception as error:
        raise InputError(
            f"--metrics {name}: torchmetrics, torchvision or torch-fidelity cannot be used here ({_line(error)}): "
            f"{INSTALL}, or leave {name} out"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's code, which nobody here can heed
            return build()
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        problem = "damaged" if there else "not there, and cannot be downloaded"
        raise InputError(
            f"{weights}: {problem} ({_line(error)}): put {WEIGHTS[name]} there (another folder: TORCH_HOME), "
            f"or leave {name} out of --metrics"
        ) from None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
