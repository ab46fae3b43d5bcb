"""Images as rows of channels, one row a pixel: what every kernel here reads and writes."""

from __future__ import annotations

import torch
import triton
from torch import Tensor


def as_rows(x: Tensor) -> Tensor:
    """`[N, C, H, W]`, channels last in memory; a copy only where it is not so yet."""
    return x.contiguous(memory_format=torch.channels_last)


def like_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised, shaped as `x` and channels last."""
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)


def column_block(channels: int) -> int:
    """Channels that one program takes."""
    return min(triton.next_power_of_2(channels), 128)
