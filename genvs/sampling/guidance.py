"""The worse network that autoguidance leads away from (arXiv 2406.02507)."""

from __future__ import annotations

from pathlib import Path

import torch

from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.models.labels import label_of_class
from genvs.models.precision import has_native_bf16
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.snapshot import load_snapshot


def load_guide(
    path: Path | None,
    net: GeNVS,
    device: torch.device,
    *,
    bf16: bool,
    cam_weighting: str | None = None,
    class_id: int | None = None,
) -> FastDenoiser | None:
    """The snapshot `path` on `device`, for `net` to be led away from; None for None.

    cam_weighting, class_id: as for `net`. Raises InputError where the two networks do not fit together.
    """
    if path is None:
        return None
    guide = load_snapshot(path)
    ours, theirs = net.config.resolution, guide.config.resolution
    if ours != theirs:
        raise InputError(f"`guide`={path}: draws {theirs} pixels a side, not {ours}: give a snapshot of the same run")
    weigh_views(guide, cam_weighting)
    labels = None if class_id is None else label_of_class(class_id, guide.config)
    return FastDenoiser(guide.to_device(device), bf16=bf16 and has_native_bf16(device), labels=labels)


def weigh_views(net: GeNVS, name: str | None) -> None:
    """Weight input views by this method; None changes nothing. Raises InputError as `GeNVS.set_view_weighting`."""
    if name is not None:
        try:
            net.set_view_weighting(name)
        except InputError as error:
            raise InputError(f"`cam_weighting`: {error}") from None
