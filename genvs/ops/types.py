"""What operations take and return, beside tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FieldLayers(NamedTuple):
    """The field's MLP, C -> hidden -> hidden -> 1 + C, ReLU between.

    parameters: weight `[out, in]` and bias `[out]` of each of the three layers in turn, as in `nn.Linear`.
    Density is density_scale * softplus(raw[0] + density_shift), per world unit; features are the input + raw[1:].
    """

    parameters: tuple[Tensor, ...]
    density_scale: float
    density_shift: float
