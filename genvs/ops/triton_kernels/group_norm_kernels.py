"""The kernels of normalisation.

With small images one program holds a whole group of channels, and each direction takes one kernel (`whole_*`). With
larger images it takes three. Normalising is an affine map of each (sample, channel): the first kernel sums over pixels,
the second computes the maps' coefficients from the sums, and the third applies the maps.
"""

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


@triton.jit
def whole_kernel(
    x_ptr, y_ptr, shift_ptr, shift_stride, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr,
    threshold, keep_scale, pixels, channels, eps,
    HAS_SHIFT: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, GROUP_SIZE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """y = dropout(silu(xhat * weight + bias)); and xhat's coefficients `[N, 3, C]`, as in `coefficients_kernel`."""
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
def whole_gradient_kernel(
    x_ptr, dy_ptr, passed_ptr, dx_ptr, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr, gradients_ptr,
    threshold, keep_scale, pixels, channels,
    PASSED: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, GROUP_SIZE: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """dx plus the shortcut's gradient; and gradients of bias, weight and shift by sample and channel, `[3, N, C]`."""
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


@triton.jit
def sums_kernel(
    x_ptr, sums_ptr, pixels, channels, rows_each, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr
):
    """Sums of d and d^2 over a program's pixels, d = x - (the sample's first pixel): `[N, programs, 2, C]`."""
    sample, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    cols = tl.program_id(2) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    base = x_ptr + sample * pixels * channels + cols
    first = tl.load(base, mask=in_cols, other=0.0).to(tl.float32)
    total, squares = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    start = part * rows_each
    for offset in tl.range(0, rows_each, ROWS, num_stages=STAGES):
        rows = start + offset + tl.arange(0, ROWS)
        mask = ((rows < pixels) & (rows < start + rows_each))[:, None] & in_cols[None, :]
        x = tl.load(base[None, :] + rows[:, None] * channels, mask=mask, other=0.0).to(tl.float32)
        d = tl.where(mask, x - first[None, :], 0.0)
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
    total, second = tl.zeros([GROUPS, PADDED], tl.float32), tl.zeros([GROUPS, PADDED], tl.float32)
    for part in range(parts):
        at = sums_ptr + (sample * parts + part) * 2 * channels + channel
        total += tl.load(at, mask=mask, other=0.0)
        second += tl.load(at + channels, mask=mask, other=0.0)
    return channel, mask, total, second


@triton.jit
def coefficients_kernel(
    x_ptr, sums_ptr, shift_ptr, shift_stride, coefficients_ptr,
    pixels, channels, parts, eps,
    HAS_SHIFT: tl.constexpr, GROUP_SIZE: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Per channel: 1 / std, and (shift - mean) / std, of its group; and the channel's own mean, normalised."""
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
    rstd = tl.rsqrt(variance / GROUP_SIZE + eps)[:, None]
    out = coefficients_ptr + sample * 3 * channels + channel
    tl.store(out, tl.broadcast_to(rstd, [GROUPS, PADDED]), mask=mask)
    tl.store(out + channels, (shift - group_mean[:, None]) * rstd, mask=mask)
    tl.store(out + 2 * channels, centred * rstd, mask=mask)


@triton.jit
def apply_kernel(
    x_ptr, y_ptr, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr,
    threshold, keep_scale, pixels, channels,
    SILU: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """y = dropout(silu(xhat * weight + bias))."""
    sample = tl.program_id(0).to(tl.int64)
    rows, cols = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(2) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    at = sample * pixels * channels + rows[:, None] * channels + cols[None, :]
    rstd, offset, weight, bias = load_map(coefficients_ptr, weight_ptr, bias_ptr, sample, channels, cols, in_cols)
    y = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    y = y * (rstd * weight)[None, :] + (offset * weight + bias)[None, :]
    y = activate(y, keys_ptr, sample, rows, cols, threshold, keep_scale, pixels, SILU, DROPOUT)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def gradient_sums_kernel(
    x_ptr, dy_ptr, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr, sums_ptr,
    threshold, keep_scale, pixels, channels, rows_each,
    SILU: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Sums of dz and dz * xhat over a program's pixels: `[N, programs, 2, C]`."""
    sample, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    cols = tl.program_id(2) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    rstd, offset, weight, bias = load_map(coefficients_ptr, weight_ptr, bias_ptr, sample, channels, cols, in_cols)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    total, product = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([ROWS, COLS], tl.float32)
    start = part * rows_each
    for row in tl.range(0, rows_each, ROWS, num_stages=STAGES):
        rows = start + row + tl.arange(0, ROWS)
        mask = ((rows < pixels) & (rows < start + rows_each))[:, None] & in_cols[None, :]
        at = sample * pixels * channels + rows[:, None] * channels + cols[None, :]
        index = cols[None, :] * pixels + rows[:, None]
        xhat, dz = gradient_at(
            x_ptr, dy_ptr, at, mask, index, key, rstd, offset, weight, bias, threshold, keep_scale, SILU, DROPOUT
        )
        total += dz
        product += dz * xhat
    out = sums_ptr + (sample * tl.num_programs(1) + part) * 2 * channels + cols
    tl.store(out, tl.sum(total, axis=0), mask=in_cols)
    tl.store(out + channels, tl.sum(product, axis=0), mask=in_cols)


@triton.jit
def gradient_coefficients_kernel(
    sums_ptr, coefficients_ptr, weight_ptr, gradients_ptr, means_ptr,
    pixels, channels, parts,
    GROUP_SIZE: tl.constexpr, GROUPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Per sample and channel: the gradients of bias, weight and shift; and the group's means of w dz and w dz xhat."""
    sample = tl.program_id(0).to(tl.int64)
    channel, mask, total, product = load_sums(sums_ptr, sample, channels, parts, GROUP_SIZE, GROUPS, PADDED)
    weight = tl.load(weight_ptr + channel, mask=mask, other=0.0).to(tl.float32)
    count = pixels * GROUP_SIZE
    mean = tl.broadcast_to((tl.sum(weight * total, axis=1) / count)[:, None], [GROUPS, PADDED])
    mean_product = tl.broadcast_to((tl.sum(weight * product, axis=1) / count)[:, None], [GROUPS, PADDED])
    coefficients = coefficients_ptr + sample * 3 * channels + channel
    rstd = tl.load(coefficients, mask=mask, other=0.0)
    channel_mean = tl.load(coefficients + 2 * channels, mask=mask, other=0.0)
    dshift = rstd * (weight * total - pixels * (mean + mean_product * channel_mean))
    samples = tl.num_programs(0)
    out = gradients_ptr + sample * channels + channel
    tl.store(out, total, mask=mask)
    tl.store(out + samples * channels, product, mask=mask)
    tl.store(out + 2 * samples * channels, dshift, mask=mask)
    tl.store(means_ptr + sample * 2 * channels + channel, mean, mask=mask)
    tl.store(means_ptr + sample * 2 * channels + channels + channel, mean_product, mask=mask)


@triton.jit
def input_gradient_kernel(
    x_ptr, dy_ptr, passed_ptr, dx_ptr, coefficients_ptr, weight_ptr, bias_ptr, keys_ptr, means_ptr,
    threshold, keep_scale, pixels, channels,
    PASSED: tl.constexpr, SILU: tl.constexpr, DROPOUT: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """dx = (w dz - mean(w dz) - xhat mean(w dz xhat)) / std, plus the shortcut's gradient."""
    sample = tl.program_id(0).to(tl.int64)
    rows, cols = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(2) * COLS + tl.arange(0, COLS)
    in_cols = cols < channels
    mask = (rows < pixels)[:, None] & in_cols[None, :]
    at = sample * pixels * channels + rows[:, None] * channels + cols[None, :]
    index = cols[None, :] * pixels + rows[:, None]
    rstd, offset, weight, bias = load_map(coefficients_ptr, weight_ptr, bias_ptr, sample, channels, cols, in_cols)
    means = means_ptr + sample * 2 * channels + cols
    mean, mean_product = tl.load(means, mask=in_cols, other=0.0), tl.load(means + channels, mask=in_cols, other=0.0)
    key = tl.load(keys_ptr + sample) if DROPOUT else 0
    xhat, dz = gradient_at(
        x_ptr, dy_ptr, at, mask, index, key, rstd, offset, weight, bias, threshold, keep_scale, SILU, DROPOUT
    )
    dx = rstd[None, :] * (weight[None, :] * dz - mean[None, :] - xhat * mean_product[None, :])
    if PASSED:
        dx += tl.load(passed_ptr + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
