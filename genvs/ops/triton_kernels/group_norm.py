"""GroupNorm of x + shift, SiLU and dropout, channels last, in as few passes over memory as possible."""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from genvs.ops.sums import sum_rows
from genvs.ops.triton_kernels import group_norm_kernels as kernels
from genvs.ops.triton_kernels.layout import as_rows, column_block, like_rows

TILE = {"ROWS": 64, "num_warps": 8}  # pixels of a tile
SUMMED_TILE = {"ROWS": 32, "num_warps": 4, "STAGES": 3}  # where a program sums over several, STAGES at a time
PROGRAMS = 4096  # so many that a large GPU is full until nearly the end
# The largest group of channels that one program holds, and the largest batch for which it does, in elements. Such a
# program reads memory in short pieces, which is slower with larger batches.
MOST_IN_GROUP, MOST_IN_BATCH = 2**14, 2**22


class GroupNormSiLU(torch.autograd.Function):
    """See `genvs.ops.group_norm_silu`."""

    @staticmethod
    def forward(ctx, given, weight, bias, shift, keys, settings, out_dtype):
        ctx.set_materialize_grads(False)
        groups, eps, silu, dropout = settings
        x = as_rows(given)
        samples, channels = x.shape[:2]
        pixels = x.shape[2] * x.shape[3]
        if shift is not None and shift.stride(1) != 1:
            shift = shift.contiguous()
        y = like_rows(x, out_dtype)
        coefficients = x.new_empty((samples, 5, channels), dtype=torch.float32)
        ctx.groups, ctx.shift_dtype = groups, None if shift is None else shift.dtype
        ctx.dropout = (round(dropout * 2**32), 1 / (1 - dropout))
        ctx.flags = {"SILU": silu, "DROPOUT": keys is not None and dropout > 0}
        shifts, has_shift = (shift, 0 if shift is None else shift.stride(0)), shift is not None
        common = (coefficients, keys, *ctx.dropout, pixels, channels)
        if _fits_one_program(x, groups):
            sizes = {**ctx.flags, **_whole_sizes(pixels, channels, groups)}
            kernels.whole_kernel[samples, groups](
                x, y, *shifts, weight, bias, eps, *common, HAS_SHIFT=has_shift, **sizes
            )
        else:
            cols, blocks, rows_each, parts = _tiles(x)
            sums = x.new_empty((samples, parts, 2, channels), dtype=torch.float32)
            kernels.sums_kernel[blocks, parts, samples](x, sums, pixels, channels, rows_each, COLS=cols, **SUMMED_TILE)
            sizes, group_blocks = _group_sizes(channels, groups)
            kernels.coefficients_kernel[samples, group_blocks](
                x, sums, *shifts, weight, bias, coefficients, pixels, channels, parts, eps, HAS_SHIFT=has_shift, **sizes
            )
            grid = (blocks, triton.cdiv(pixels, TILE["ROWS"]), samples)
            kernels.apply_kernel[grid](x, y, *common, COLS=cols, **ctx.flags, **TILE)
        ctx.save_for_backward(x, weight, bias, coefficients, keys)
        return y, given

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, passed):
        if dy is None:  # only x was used
            return passed, *[None] * 6
        x, weight, bias, coefficients, keys = ctx.saved_tensors
        dy, passed = as_rows(dy), None if passed is None else as_rows(passed)
        samples, channels = x.shape[:2]
        pixels = x.shape[2] * x.shape[3]
        dx = like_rows(x, x.dtype)
        gradients = x.new_empty((3, samples, channels), dtype=torch.float32)
        common, has_passed = (coefficients, keys, *ctx.dropout, pixels, channels), passed is not None
        if _fits_one_program(x, ctx.groups):
            sizes = {**ctx.flags, **_whole_sizes(pixels, channels, ctx.groups)}
            kernels.whole_gradient_kernel[samples, ctx.groups](
                x, dy, passed, dx, weight, bias, gradients, *common, PASSED=has_passed, **sizes
            )
        else:
            cols, blocks, rows_each, parts = _tiles(x)
            flags = {**ctx.flags, "COLS": cols}
            sums = x.new_empty((samples, parts, 2, channels), dtype=torch.float32)
            kernels.gradient_sums_kernel[blocks, parts, samples](
                x, dy, sums, rows_each, *common, **flags, **SUMMED_TILE
            )
            x_map = x.new_empty((samples, 2, channels), dtype=torch.float32)
            sizes, group_blocks = _group_sizes(channels, ctx.groups)
            kernels.gradient_coefficients_kernel[samples, group_blocks](
                sums, coefficients, weight, gradients, x_map, pixels, channels, parts, **sizes
            )
            grid = (blocks, triton.cdiv(pixels, TILE["ROWS"]), samples)
            kernels.input_gradient_kernel[grid](x, dy, passed, dx, x_map, *common, PASSED=has_passed, **flags, **TILE)
        dweight = sum_rows(gradients[1], weight) if ctx.needs_input_grad[1] else None
        dbias = sum_rows(gradients[0], bias) if ctx.needs_input_grad[2] else None
        dshift = None if ctx.shift_dtype is None else gradients[2].to(ctx.shift_dtype)
        return dx, dweight, dbias, dshift, None, None, None


def _fits_one_program(x: Tensor, groups: int) -> bool:
    _, channels, height, width = x.shape
    elements = triton.next_power_of_2(height * width) * triton.next_power_of_2(channels // groups)
    return elements <= MOST_IN_GROUP and x.numel() <= MOST_IN_BATCH


def _whole_sizes(pixels: int, channels: int, groups: int) -> dict[str, int]:
    size = channels // groups
    rows, padded = triton.next_power_of_2(pixels), triton.next_power_of_2(size)
    return {"GROUP_SIZE": size, "PADDED": padded, "ROWS": rows, "num_warps": 8 if rows * padded > 4096 else 4}


def _tiles(x: Tensor) -> tuple[int, int, int, int]:
    """Channels of a tile, the number of such blocks, pixels of a summing program, and the number of such programs."""
    samples, channels = x.shape[:2]
    cols = column_block(channels)
    blocks = triton.cdiv(channels, cols)
    tiles = triton.cdiv(x.shape[2] * x.shape[3], SUMMED_TILE["ROWS"])
    tiles_each = triton.cdiv(tiles, min(tiles, max(PROGRAMS // (samples * blocks), 1), kernels.MOST_PARTS.value))
    return cols, blocks, tiles_each * SUMMED_TILE["ROWS"], triton.cdiv(tiles, tiles_each)


def _group_sizes(channels: int, groups: int) -> tuple[dict[str, int], int]:
    """A group's channels, the groups of a program, a group's channels padded to a power of two; programs."""
    size = channels // groups
    padded = triton.next_power_of_2(size)
    block = max(min(triton.next_power_of_2(groups), 32 // padded), 1)
    return {"GROUP_SIZE": size, "GROUPS": block, "PADDED": padded}, triton.cdiv(groups, block)
