"""Exponential moving average of the weights: what snapshots hold."""

from __future__ import annotations

import copy

import torch
from torch import nn

from genvs.models import GeNVS


class EMA:
    """The average of the weights with beta = 0.5 ** (batch_size / half-life), as in EDM.

    halflife_kimg: in thousands of target images. rampup_ratio: the half-life is at most this share of the images seen
    so far; None for no ramp-up.
    """

    def __init__(self, net: GeNVS, halflife_kimg: float, rampup_ratio: float | None) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.halflife_kimg, self.rampup_ratio = halflife_kimg, rampup_ratio

    @torch.no_grad()
    def update(self, net: nn.Module, *, batch_size: int, cur_nimg: int) -> None:
        """Move towards `net`, which has seen `batch_size` images after the first `cur_nimg`."""
        halflife = self.halflife_kimg * 1000
        if self.rampup_ratio is not None:
            halflife = min(halflife, cur_nimg * self.rampup_ratio)
        beta = 0.5 ** (batch_size / max(halflife, 1e-8))
        torch._foreach_lerp_(list(self.net.parameters()), list(net.parameters()), 1 - beta)
