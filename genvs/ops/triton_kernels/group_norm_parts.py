"""Parts that the kernels of normalisation share."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_map(coefficients_ptr, weight_ptr, bias_ptr, sample, channels, cols, in_cols):
    """rstd and offset, which make xhat = x * rstd + offset, and the weight and bias, of some channels."""
    coefficients = coefficients_ptr + sample * 3 * channels + cols
    rstd = tl.load(coefficients, mask=in_cols, other=0.0)
    offset = tl.load(coefficients + channels, mask=in_cols, other=0.0)
    weight = tl.load(weight_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    return rstd, offset, weight, bias


@triton.jit
def keep_element(key, index, threshold):
    """genvs.random.keep_mask, element by element."""
    x = index.to(tl.uint32) * 0x9E3779B9 + (key & 0xFFFFFFFF).to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    return (x ^ (x >> 13) ^ ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)) * 0xC2B2AE35 >= threshold


@triton.jit
def gradient_at(
    x_ptr, dy_ptr,
    at, mask, index, key, rstd, offset, weight, bias, threshold, keep_scale,
    SILU: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """xhat, and the gradient of xhat * weight + bias."""
    x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    dz = tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32)
    xhat = x * rstd[None, :] + offset[None, :]
    if DROPOUT:
        dz = tl.where(keep_element(key, index, threshold), dz * keep_scale, 0.0)
    if SILU:
        z = xhat * weight[None, :] + bias[None, :]
        gate = tl.sigmoid(z)
        dz = dz * gate * (1 + z * (1 - gate))
    return xhat, dz


@triton.jit
def activate(y, keys_ptr, sample, rows, cols, threshold, keep_scale, pixels, SILU: tl.constexpr, DROPOUT: tl.constexpr):
    """dropout(silu(y)), of some pixels and channels of a sample."""
    if SILU:
        y = y * tl.sigmoid(y)
    if DROPOUT:
        keep = keep_element(tl.load(keys_ptr + sample), cols[None, :] * pixels + rows[:, None], threshold)
        y = tl.where(keep, y * keep_scale, 0.0)
    return y
