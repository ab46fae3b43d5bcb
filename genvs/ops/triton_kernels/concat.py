"""Joining images along channels, and splitting their gradients, channels last."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from genvs.ops.triton_kernels.layout import as_rows, column_block, like_rows

TILE = {"ROWS": 32, "num_warps": 4}  # pixels of a tile


@triton.jit
def concat_kernel(
    source_ptr, target_ptr, rows_total, channels, source_stride, target_stride, ROWS: tl.constexpr, COLS: tl.constexpr
):
    """Copies `channels` numbers of each row into rows of another length."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    mask = (rows < rows_total)[:, None] & (cols < channels)[None, :]
    value = tl.load(source_ptr + rows[:, None] * source_stride + cols[None, :], mask=mask)
    tl.store(target_ptr + rows[:, None] * target_stride + cols[None, :], value, mask=mask)


def _copy(source: torch.Tensor, target: torch.Tensor, source_row: int, target_row: int) -> None:
    """source, target: `[N, C, H, W]`, each a part of a tensor with rows of the given length."""
    channels = source.shape[1]
    rows, cols = source.numel() // channels, column_block(channels)
    concat_kernel[triton.cdiv(rows, TILE["ROWS"]), triton.cdiv(channels, cols)](
        source, target, rows, channels, source_row, target_row, COLS=cols, **TILE
    )


class Concat(torch.autograd.Function):
    """See `genvs.ops.concat`."""

    @staticmethod
    def forward(ctx, *parts):
        parts = [as_rows(part) for part in parts]
        ctx.sizes = [part.shape[1] for part in parts]
        samples, _, height, width = parts[0].shape
        shape = (samples, sum(ctx.sizes), height, width)
        joined = torch.empty(shape, dtype=parts[0].dtype, device=parts[0].device, memory_format=torch.channels_last)
        for part, place in zip(parts, joined.split(ctx.sizes, dim=1), strict=True):
            _copy(part, place, part.shape[1], sum(ctx.sizes))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        parts = []
        for place, needed in zip(as_rows(gradient).split(ctx.sizes, dim=1), ctx.needs_input_grad, strict=True):
            parts.append(like_rows(place, place.dtype) if needed else None)
            if needed:
                _copy(place, parts[-1], sum(ctx.sizes), place.shape[1])
        return tuple(parts)
