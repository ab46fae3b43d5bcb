"""Normalisation of images so small that one program holds a whole group of channels: one kernel in each direction."""

from __future__ import annotations

import triton
import triton.language as tl

from genvs.ops.triton_kernels.group_norm_parts import activate, gradient_at, load_map


@triton.jit
def norm_kernel(
    x_ptr, y_ptr, shift_ptr, shift_stride, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr,
    threshold, keep_scale, pixels, channels, eps,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, GROUP_SIZE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """y = dropout(silu(xhat * weight + bias)); and the coefficients of xhat, `[N, 3, C]`, as the tiled kernels' are."""
    sample, member, rows = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED), tl.arange(0, ROWS)
    cols, in_cols = tl.program_id(1) * GROUP_SIZE + member, member < GROUP_SIZE
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    at = sample * pixels * channels + rows[:, None] * channels + cols[None, :]
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    shift = tl.zeros([PADDED], tl.float32)
    if HAS_SHIFT:
        shift += tl.load(shift_ptr + sample * shift_stride + cols, mask=in_cols, other=0.0).to(tl.float32)
    x = tl.where(mask, x + shift[None, :], 0.0)
    mean = tl.sum(x) / (pixels * GROUP_SIZE)
    centred = tl.where(mask, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred) / (pixels * GROUP_SIZE) + eps)
    coefficients = coefficients_ptr + sample * 3 * channels + cols
    tl.store(coefficients, tl.zeros([PADDED], tl.float32) + rstd, mask=in_cols)
    tl.store(coefficients + channels, (shift - mean) * rstd, mask=in_cols)
    weight = tl.load(weight_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    y = centred * rstd * weight[None, :] + bias[None, :]
    y = activate(y, keys_ptr, sample, rows, cols, threshold, keep_scale, pixels, SILU, DROPOUT)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def norm_gradient_kernel(
    x_ptr, dy_ptr, passed_ptr, dx_ptr, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr, gradients_ptr,
    threshold, keep_scale, pixels, channels,
    PASSED: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, GROUP_SIZE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """dx, and what reaches x another way; per sample and channel the gradients of bias, weight, shift, `[3, N, C]`."""
    sample, member, rows = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED), tl.arange(0, ROWS)
    cols, in_cols = tl.program_id(1) * GROUP_SIZE + member, member < GROUP_SIZE
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    at = sample * pixels * channels + rows[:, None] * channels + cols[None, :]
    index = cols[None, :] * pixels + rows[:, None]
    rstd, offset, weight, bias = load_map(coefficients_ptr, weight_ptr, bias_ptr, sample, channels, cols, in_cols)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    xhat, dz = gradient_at(
        x_ptr, dy_ptr, at, mask, index, key, rstd, offset, weight, bias, threshold, keep_scale, SILU, DROPOUT
    )
    total, product = tl.sum(dz, axis=0), tl.sum(dz * xhat, axis=0)
    count = pixels * GROUP_SIZE
    mean, mean_product = tl.sum(weight * total) / count, tl.sum(weight * product) / count
    dx = rstd[None, :] * (weight[None, :] * dz - mean - xhat * mean_product)
    samples = tl.num_programs(0)
    out = gradients_ptr + sample * channels + cols
    tl.store(out, total, mask=in_cols)
    tl.store(out + samples * channels, product, mask=in_cols)
    tl.store(out + 2 * samples * channels, tl.sum(tl.where(mask, dx, 0.0), axis=0), mask=in_cols)
    if PASSED:
        dx += tl.load(passed_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
