"""How much each input view counts for a target view. Every method returns weights that sum to 1 over input views."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genvs.geometry import Cameras


def baseline_mean(inputs: Cameras, targets: Cameras) -> Tensor:
    """All input views alike. inputs: `[B, V]`; targets: `[B, T]`. Returns `[B, T, V]`."""
    batch, num_inputs = inputs.shape
    return torch.full((batch, targets.shape[1], num_inputs), 1 / num_inputs, device=inputs.device)


VIEW_WEIGHTINGS: dict[str, Callable[[Cameras, Cameras], Tensor]] = {"baseline_mean": baseline_mean}
