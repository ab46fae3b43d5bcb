"""What the kernels of normalisation share, element by element."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def keep_element(key, index, threshold):
    """genvs.random.keep_mask, element by element."""
    x = index.to(tl.uint32) * 0x9E3779B9 + (key & 0xFFFFFFFF).to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    return (x ^ (x >> 13) ^ ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)) * 0xC2B2AE35 >= threshold


@triton.jit
def gradient_at(
    x_ptr,
    dy_ptr,
    at,
    mask,
    index,
    key,
    rstd,
    offset,
    weight,
    bias,
    threshold,
    keep_scale,
    SILU: tl.constexpr,
    DROPOUT: tl.constexpr,
):
    """xhat, and the gradient that reaches xhat * weight + bias."""
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
