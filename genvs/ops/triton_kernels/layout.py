"""Images as rows of channels, one row per pixel, as all kernels read and write them."""

from __future__ import annotations

import torch
import triton
from torch import Tensor


def as_rows(x: Tensor) -> Tensor:
    """`[N, C, H, W]`, channels last in memory; a copy only if x has another layout."""
    return x.contiguous(memory_format=torch.channels_last)


def like_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised, in the shape of `x`, channels last."""
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)


def column_block(channels: int) -> int:
    """The number of channels of one program."""
    return min(triton.next_power_of_2(channels), 128)
