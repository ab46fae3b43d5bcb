"""The kernels of normalisation.

With small images one program holds a whole group of channels, and each direction takes one kernel (`whole_*`). With
larger images it takes three. Normalising is an affine map of each (sample, channel): the first kernel sums over pixels,
the second computes the maps' coefficients from the sums, and the third applies the maps.
"""

from __future__ import annotations

import triton
import triton.language as tl

MOST_PARTS = tl.constexpr(64)  # of the pixels of a sample, each summed by a program: a power of two


@triton.jit
def load_map(map_ptr, channels, cols, in_cols):
    """Slopes and constants of some channels' affine maps, `[1, COLS]`, from two neighbouring rows of `[..., C]`."""
    slope = tl.load(map_ptr + cols, mask=in_cols, other=0.0)
    return slope[None, :], tl.load(map_ptr + channels + cols, mask=in_cols, other=0.0)[None, :]


@triton.jit
def sigmoid(z):
    """By functions that are one instruction each on a GPU, where a division is ten."""
    root = tl.rsqrt(1 + tl.exp2(z * -1.4426950408889634))
    return root * root


@triton.jit
def drop(x, key, rows, cols, pixels, threshold, keep_scale):
    """Dropout of some pixels and channels of a sample, by genvs.random.keep_mask."""
    column = (cols * pixels).to(tl.uint32) * 0x9E3779B9 + (key & 0xFFFFFFFF).to(tl.uint32)
    bits = (rows.to(tl.uint32) * 0x9E3779B9)[:, None] + column[None, :]
    bits = (bits ^ (bits >> 16)) * 0x85EBCA6B
    bits = (bits ^ (bits >> 13) ^ ((key >> 32) & 0xFFFFFFFF).to(tl.uint32)) * 0xC2B2AE35
    return x * tl.where(bits >= threshold, keep_scale, 0.0)


@triton.jit
def activate(z, key, rows, cols, pixels, threshold, keep_scale, SILU: tl.constexpr, DROPOUT: tl.constexpr):
    """dropout(silu(z)), of some pixels and channels of a sample."""
    if SILU:
        z *= sigmoid(z)
    return drop(z, key, rows, cols, pixels, threshold, keep_scale) if DROPOUT else z


@triton.jit
def gradient_of(z, dy, key, rows, cols, pixels, threshold, keep_scale, SILU: tl.constexpr, DROPOUT: tl.constexpr):
    """The gradient of z from dy, that of `activate`'s result."""
    dz = drop(dy, key, rows, cols, pixels, threshold, keep_scale) if DROPOUT else dy
    if SILU:
        gate = sigmoid(z)
        dz *= gate
        dz += dz * (z - z * gate)
    return dz


@triton.jit
def whole_kernel(
    x_ptr, y_ptr, shift_ptr, shift_stride, weight_ptr, bias_ptr, eps,
    coefficients_ptr, keys_ptr, threshold, keep_scale, pixels, channels,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, GROUP_SIZE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """y = dropout(silu(xhat * weight + bias)); and xhat's map of `[N, 5, C]`, as in `coefficients_kernel`."""
    sample, member, rows = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED), tl.arange(0, ROWS)
    cols, in_cols = tl.program_id(1) * GROUP_SIZE + member, member < GROUP_SIZE
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    start, at = sample * pixels * channels, rows[:, None] * channels + cols[None, :]
    x = tl.load(x_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    shift = tl.zeros([PADDED], tl.float32)
    if HAS_SHIFT:
        shift += tl.load(shift_ptr + sample * shift_stride + cols, mask=in_cols, other=0.0).to(tl.float32)
    x = tl.where(mask, x + shift[None, :], 0.0)
    mean = tl.sum(x) / (pixels * GROUP_SIZE)
    centred = tl.where(mask, x - mean, 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred) / (pixels * GROUP_SIZE) + eps)
    coefficients = coefficients_ptr + sample * 5 * channels + cols
    tl.store(coefficients, tl.zeros([PADDED], tl.float32) + rstd, mask=in_cols)
    tl.store(coefficients + channels, (shift - mean) * rstd, mask=in_cols)
    weight = tl.load(weight_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    z = centred * (rstd * weight)[None, :] + bias[None, :]
    y = activate(z, key, rows, cols, pixels, threshold, keep_scale, SILU, DROPOUT)
    tl.store(y_ptr + start + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def whole_gradient_kernel(
    x_ptr, dy_ptr, passed_ptr, dx_ptr, weight_ptr, bias_ptr, gradients_ptr,
    coefficients_ptr, keys_ptr, threshold, keep_scale, pixels, channels,
    PASSED: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, GROUP_SIZE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """dx plus the shortcut's gradient; and gradients of bias, weight and shift by sample and channel, `[3, N, C]`."""
    sample, member, rows = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED), tl.arange(0, ROWS)
    cols, in_cols = tl.program_id(1) * GROUP_SIZE + member, member < GROUP_SIZE
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    start, at = sample * pixels * channels, rows[:, None] * channels + cols[None, :]
    x = tl.load(x_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    rstd, offset = load_map(coefficients_ptr + sample * 5 * channels, channels, cols, in_cols)
    weight = tl.load(weight_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    xhat = x * rstd + offset
    z = xhat * weight[None, :] + bias[None, :]
    dz = gradient_of(z, dy, key, rows, cols, pixels, threshold, keep_scale, SILU, DROPOUT)
    total, product = tl.sum(dz, axis=0), tl.sum(dz * xhat, axis=0)
    count = pixels * GROUP_SIZE
    mean, mean_product = tl.sum(weight * total) / count, tl.sum(weight * product) / count
    dx = rstd * (weight[None, :] * dz - mean - xhat * mean_product)
    samples = tl.num_programs(0)
    out = gradients_ptr + sample * channels + cols
    tl.store(out, total, mask=in_cols)
    tl.store(out + samples * channels, product, mask=in_cols)
    tl.store(out + 2 * samples * channels, tl.sum(tl.where(mask, dx, 0.0), axis=0), mask=in_cols)
    if PASSED:
        dx += tl.load(passed_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(dx_ptr + start + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def from_the_end(COLS: tl.constexpr):
    """Sample, part and channels of a program that sums. The last pixels come first, because they were written last and
    are in the cache; and the kernel that reads them again begins with those that were summed last."""
    sample = tl.num_programs(2) - 1 - tl.program_id(2).to(tl.int64)
    return sample, tl.num_programs(1) - 1 - tl.program_id(1), tl.program_id(0) * COLS + tl.arange(0, COLS)


@triton.jit
def sums_kernel(
    x_ptr, sums_ptr, pixels, channels, rows_each, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr
):
    """Sums of d and d^2 over a program's pixels, d = x - (the sample's first pixel): `[N, programs, 2, C]`."""
    sample, part, cols = from_the_end(COLS)
    in_cols = cols < channels
    x_ptr += sample * pixels * channels
    first = tl.load(x_ptr + cols, mask=in_cols, other=0.0).to(tl.float32)[None, :]
    total, squares = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    for start in tl.range(part * rows_each, min((part + 1) * rows_each, pixels), ROWS, num_stages=STAGES):
        rows = start + tl.arange(0, ROWS)
        mask = (rows < pixels)[:, None] & in_cols[None, :]
        x = tl.load(x_ptr + rows[:, None] * channels + cols[None, :], mask=mask, other=0.0).to(tl.float32)
        d = x - (rows < pixels).to(tl.float32)[:, None] * first
        total += d
        squares += d * d
    out = sums_ptr + (sample * tl.num_programs(1) + part) * 2 * channels + cols
    tl.store(out, tl.sum(total, axis=0), mask=in_cols)
    tl.store(out + channels, tl.sum(squares, axis=0), mask=in_cols)


@triton.jit
def load_sums(sums_ptr, sample, channels, parts, GROUP_SIZE: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr):
    """This program's channels `[GROUPS, PADDED]`, which of them exist, and their two sums over all parts."""
    group, member = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS), tl.arange(0, PADDED)
    channel = group[:, None] * GROUP_SIZE + member[None, :]
    mask = (member < GROUP_SIZE)[None, :] & (channel < channels)
    part = tl.arange(0, MOST_PARTS)[:, None, None]
    at, inside = sums_ptr + (sample * parts + part) * 2 * channels + channel[None], mask[None] & (part < parts)
    total = tl.sum(tl.load(at, mask=inside, other=0.0), axis=0)
    second = tl.sum(tl.load(at + channels, mask=inside, other=0.0), axis=0)
    return channel, mask, total, second


@triton.jit
def coefficients_kernel(
    x_ptr, sums_ptr, shift_ptr, shift_stride, weight_ptr, bias_ptr, coefficients_ptr,
    pixels, channels, parts, eps,
    HAS_SHIFT: tl.constexpr, GROUP_SIZE: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Per channel: the map from x to xhat, the map to xhat * weight + bias, and the mean of xhat: `[N, 5, C]`."""
    sample = tl.program_id(0).to(tl.int64)
    channel, mask, total, squares = load_sums(sums_ptr, sample, channels, parts, GROUP_SIZE, GROUPS, PADDED)
    first = tl.load(x_ptr + sample * pixels * channels + channel, mask=mask, other=0.0).to(tl.float32)
    shift = tl.zeros([GROUPS, PADDED], tl.float32)
    if HAS_SHIFT:
        shift += tl.load(shift_ptr + sample * shift_stride + channel, mask=mask, other=0.0).to(tl.float32)
    # Channels are joined to groups by their means and their squared deviations from those (Chan et al., 1983).
    mean = total / pixels
    deviation = squares - total * mean
    mean += first + shift
    group_mean = tl.sum(tl.where(mask, mean, 0.0), axis=1) / GROUP_SIZE
    centred = tl.where(mask, mean - group_mean[:, None], 0.0)
    variance = tl.sum(tl.where(mask, deviation, 0.0), axis=1) / pixels + tl.sum(centred * centred, axis=1)
    rstd = tl.broadcast_to(tl.rsqrt(variance / GROUP_SIZE + eps)[:, None], [GROUPS, PADDED])
    offset = (shift - group_mean[:, None]) * rstd
    weight = tl.load(weight_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    out = coefficients_ptr + sample * 5 * channels + channel
    tl.store(out, rstd, mask=mask)
    tl.store(out + channels, offset, mask=mask)
    tl.store(out + 2 * channels, rstd * weight, mask=mask)
    tl.store(out + 3 * channels, offset * weight + bias, mask=mask)
    tl.store(out + 4 * channels, centred * rstd, mask=mask)


@triton.jit
def apply_kernel(
    x_ptr, y_ptr,
    coefficients_ptr, keys_ptr, threshold, keep_scale, pixels, channels,
    SILU: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """y = dropout(silu(xhat * weight + bias))."""
    sample = tl.program_id(2).to(tl.int64)
    rows, cols = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    start, at = sample * pixels * channels, rows[:, None] * channels + cols[None, :]
    x = tl.load(x_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    slope, constant = load_map(coefficients_ptr + (sample * 5 + 2) * channels, channels, cols, in_cols)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    y = activate(x * slope + constant, key, rows, cols, pixels, threshold, keep_scale, SILU, DROPOUT)
    tl.store(y_ptr + start + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def gradient_sums_kernel(
    x_ptr, dy_ptr, sums_ptr, rows_each,
    coefficients_ptr, keys_ptr, threshold, keep_scale, pixels, channels,
    SILU: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Sums of dz and dz * xhat over a program's pixels: `[N, programs, 2, C]`."""
    sample, part, cols = from_the_end(COLS)
    in_cols = cols < channels
    x_ptr += sample * pixels * channels
    dy_ptr += sample * pixels * channels
    rstd, offset = load_map(coefficients_ptr + sample * 5 * channels, channels, cols, in_cols)
    slope, constant = load_map(coefficients_ptr + (sample * 5 + 2) * channels, channels, cols, in_cols)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    total, product = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    for start in tl.range(part * rows_each, min((part + 1) * rows_each, pixels), ROWS, num_stages=STAGES):
        rows = start + tl.arange(0, ROWS)
        mask, at = (rows < pixels)[:, None] & in_cols[None, :], rows[:, None] * channels + cols[None, :]
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        z = x * slope + constant
        dz = gradient_of(z, dy, key, rows, cols, pixels, threshold, keep_scale, SILU, DROPOUT)
        total += dz
        product += dz * (x * rstd + offset)
    out = sums_ptr + (sample * tl.num_programs(1) + part) * 2 * channels + cols
    tl.store(out, tl.sum(total, axis=0), mask=in_cols)
    tl.store(out + channels, tl.sum(product, axis=0), mask=in_cols)


@triton.jit
def gradient_coefficients_kernel(
    sums_ptr, coefficients_ptr, weight_ptr, gradients_ptr, map_ptr,
    pixels, channels, parts,
    GROUP_SIZE: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Per sample and channel: the gradients of bias, weight and shift, `[3, N, C]`; and the map from x to
    -(mean(w dz) + xhat mean(w dz xhat)) / std, dx's part besides w dz / std, `[N, 2, C]`."""
    sample = tl.program_id(0).to(tl.int64)
    channel, mask, total, product = load_sums(sums_ptr, sample, channels, parts, GROUP_SIZE, GROUPS, PADDED)
    weight = tl.load(weight_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    share = weight / (pixels * GROUP_SIZE)
    mean, mean_product = tl.sum(share * total, axis=1)[:, None], tl.sum(share * product, axis=1)[:, None]
    coefficients = coefficients_ptr + sample * 5 * channels + channel
    rstd = tl.load(coefficients, mask=mask, other=0.0)
    offset = tl.load(coefficients + channels, mask=mask, other=0.0)
    channel_mean = tl.load(coefficients + 4 * channels, mask=mask, other=0.0)
    dshift = rstd * (weight * total - pixels * (mean + mean_product * channel_mean))
    samples = tl.num_programs(0)
    out = gradients_ptr + sample * channels + channel
    tl.store(out, total, mask=mask)
    tl.store(out + samples * channels, product, mask=mask)
    tl.store(out + 2 * samples * channels, dshift, mask=mask)
    tl.store(map_ptr + sample * 2 * channels + channel, -rstd * rstd * mean_product, mask=mask)
    tl.store(map_ptr + (sample * 2 + 1) * channels + channel, -rstd * (mean + offset * mean_product), mask=mask)


@triton.jit
def input_gradient_kernel(
    x_ptr, dy_ptr, passed_ptr, dx_ptr, map_ptr,
    coefficients_ptr, keys_ptr, threshold, keep_scale, pixels, channels,
    PASSED: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """dx = (w dz - mean(w dz) - xhat mean(w dz xhat)) / std, plus the shortcut's gradient."""
    sample = tl.program_id(2).to(tl.int64)
    rows, cols = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    start, at = sample * pixels * channels, rows[:, None] * channels + cols[None, :]
    x = tl.load(x_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    slope, constant = load_map(coefficients_ptr + (sample * 5 + 2) * channels, channels, cols, in_cols)
    x_slope, x_constant = load_map(map_ptr + sample * 2 * channels, channels, cols, in_cols)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    z = x * slope + constant
    dz = gradient_of(z, dy, key, rows, cols, pixels, threshold, keep_scale, SILU, DROPOUT)
    dx = dz * slope + (x * x_slope + x_constant)
    if PASSED:
        dx += tl.load(passed_ptr + start + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(dx_ptr + start + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
