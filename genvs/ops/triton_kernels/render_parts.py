"""Parts of the kernels that read volumes: where points lie in volumes, and the field MLP for a tile of points."""

from __future__ import annotations

import triton
import triton.language as tl

from genvs.ops import reference

MIN_WEIGHT_SUM: tl.constexpr = tl.constexpr(reference.MIN_WEIGHT_SUM)
PRODUCTS: tl.constexpr = tl.constexpr("tf32x3")  # of float32 numbers, on tensor cores; as exact as without them


@triton.jit
def load3(ptr, at, mask):
    """A 3-vector for each ray."""
    x = tl.load(ptr + 3 * at, mask=mask, other=0.0)
    y = tl.load(ptr + 3 * at + 1, mask=mask, other=0.0)
    return x, y, tl.load(ptr + 3 * at + 2, mask=mask, other=0.0)


@triton.jit
def row_dot(row_ptr, x, y, z):
    """One row of a 4x4 matrix times (x, y, z, 1)."""
    rotated = tl.load(row_ptr) * x + tl.load(row_ptr + 1) * y + tl.load(row_ptr + 2) * z
    return rotated + tl.load(row_ptr + 3)


@triton.jit
def grid_position(normalized, valid, size):
    """Lower voxel and fraction of a position in [0, 1], clamped to the outermost centres."""
    position = tl.minimum(tl.maximum(normalized * size - 0.5, 0.0), size - 1.0)
    # Outside, any position in bounds will do: it has no weight.
    position = tl.where(valid, position, 0.0)
    lower = position.to(tl.int32)
    return lower, position - lower.to(tl.float32)


@triton.jit
def lower_corner(u, v, w, valid, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr):
    """Lower corner and fractions of a place in a volume, and whether it is valid and inside."""
    valid = valid & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1) & (w >= 0) & (w <= 1)
    i, fi = grid_position(u, valid, WIDTH)
    j, fj = grid_position(v, valid, HEIGHT)
    k, fk = grid_position(w, valid, DEPTH)
    return i, j, k, fi, fj, fk, valid


@triton.jit
def locate(frustum_ptr, x, y, z, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr):
    """Where a world point lies in an input view's volume: lower corner, fractions, and whether it is inside."""
    depth = row_dot(frustum_ptr + 12, x, y, z)
    in_front = depth > 0
    inverse = 1 / tl.where(in_front, depth, 1.0)
    u, v = row_dot(frustum_ptr, x, y, z) * inverse, row_dot(frustum_ptr + 4, x, y, z) * inverse
    return lower_corner(u, v, row_dot(frustum_ptr + 8, x, y, z), in_front, WIDTH, HEIGHT, DEPTH)


@triton.jit
def corner(
    NUMBER: tl.constexpr, i, j, k, fi, fj, fk, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr
):  # fmt: skip
    """Voxel and trilinear weight of one of the eight corners around a position; voxels are ordered (H, W, D)."""
    i, weight_i = (tl.minimum(i + 1, WIDTH - 1), fi) if NUMBER // 4 == 1 else (i, 1 - fi)
    j, weight_j = (tl.minimum(j + 1, HEIGHT - 1), fj) if NUMBER // 2 % 2 == 1 else (j, 1 - fj)
    k, weight_k = (tl.minimum(k + 1, DEPTH - 1), fk) if NUMBER % 2 == 1 else (k, 1 - fk)
    return (j * WIDTH + i) * DEPTH + k, weight_i * weight_j * weight_k


@triton.jit
def fuse_at(
    volume_ptr, frusta_ptr, shares_ptr, views, x, y, z,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """The weighted mean of the input views' features at points, `[RAYS, C]`.

    volume_ptr, frusta_ptr: of the scene's first view. shares_ptr: the weights of its views for the target.
    """
    columns = tl.arange(0, CHANNELS)
    fused, shares = tl.zeros([RAYS, CHANNELS], tl.float32), tl.zeros([RAYS], tl.float32)
    for view in range(views):
        i, j, k, fi, fj, fk, valid = locate(frusta_ptr + view * 16, x, y, z, WIDTH, HEIGHT, DEPTH)
        share = tl.where(valid, tl.load(shares_ptr + view), 0.0)
        shares += share
        for number in tl.static_range(8):
            voxel, weight = corner(number, i, j, k, fi, fj, fk, WIDTH, HEIGHT, DEPTH)
            at = volume_ptr + voxel[:, None] * CHANNELS + columns[None, :]
            value = tl.load(at, mask=valid[:, None], other=0.0).to(tl.float32)
            fused += (weight * share)[:, None] * value
        volume_ptr += HEIGHT * WIDTH * DEPTH * CHANNELS
    return fused / tl.maximum(shares, MIN_WEIGHT_SUM)[:, None]


@triton.jit
def relu(x):
    """max(x, 0), which does not hide a NaN as tl.maximum may."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def first_layer(
    fused, w1_ptr, b1_ptr, START: tl.constexpr, UNITS: tl.constexpr, CHANNELS: tl.constexpr, DOT: tl.constexpr
):
    """Some units of the field's first hidden layer, after their ReLU: `[RAYS, UNITS]`."""
    columns, units = tl.arange(0, CHANNELS), START + tl.arange(0, UNITS)
    w1 = tl.load(w1_ptr + units[None, :] * CHANNELS + columns[:, None]).to(DOT)
    return relu(tl.dot(fused.to(DOT), w1, input_precision=PRODUCTS) + tl.load(b1_ptr + units)[None, :])


@triton.jit
def into_second_layer(h1, w2_ptr, START: tl.constexpr, UNITS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr):
    """The contribution of some units of the first hidden layer to the second: `[RAYS, HIDDEN]`."""
    units, hidden = START + tl.arange(0, UNITS), tl.arange(0, HIDDEN)
    w2 = tl.load(w2_ptr + hidden[None, :] * HIDDEN + units[:, None]).to(DOT)
    return tl.dot(h1.to(DOT), w2, input_precision=PRODUCTS)


@triton.jit
def field_output(h2, fused, w3_ptr, b3_ptr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr):
    """The field's raw density `[RAYS]` and features `[RAYS, C]`."""
    columns, hidden = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN)
    raw = tl.sum(h2 * tl.load(w3_ptr + hidden)[None, :], axis=1) + tl.load(b3_ptr)
    w3 = tl.load(w3_ptr + (1 + columns[None, :]) * HIDDEN + hidden[:, None]).to(DOT)
    change = tl.dot(h2.to(DOT), w3, input_precision=PRODUCTS) + tl.load(b3_ptr + 1 + columns)[None, :]
    return raw, fused + change


@triton.jit
def with_known(features, known_ptr, at, in_rays, FIRST: tl.constexpr, COUNT: tl.constexpr, CHANNELS: tl.constexpr):
    """Features `[RAYS, C]` with the COUNT values of row `at` of known_ptr in channels FIRST and on."""
    if COUNT > 0:
        known_at = known_ptr + at[:, None] * COUNT + (tl.arange(0, CHANNELS) - FIRST)[None, :]
        known = is_known(FIRST, COUNT, CHANNELS)
        features = tl.where(known, tl.load(known_at, mask=in_rays[:, None] & known, other=0.0), features)
    return features


@triton.jit
def is_known(FIRST: tl.constexpr, COUNT: tl.constexpr, CHANNELS: tl.constexpr):
    """Whether a channel is one of COUNT from FIRST on, `[1, C]`."""
    channel = tl.arange(0, CHANNELS)[None, :]
    return (channel >= FIRST) & (channel < FIRST + COUNT)


@triton.jit
def softplus(x):
    """ln(1 + e^x), without overflow."""
    return tl.maximum(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def field_in_halves(
    fused, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """Both halves of the field's first hidden layer, the second, the raw density and the features."""
    HALF: tl.constexpr = HIDDEN // 2
    h1a = first_layer(fused, w1_ptr, b1_ptr, 0, HALF, CHANNELS, DOT)
    h1b = first_layer(fused, w1_ptr, b1_ptr, HALF, HALF, CHANNELS, DOT)
    h2 = into_second_layer(h1a, w2_ptr, 0, HALF, HIDDEN, DOT) + into_second_layer(h1b, w2_ptr, HALF, HALF, HIDDEN, DOT)
    h2 = relu(h2 + tl.load(b2_ptr + tl.arange(0, HIDDEN))[None, :])
    raw, features = field_output(h2, fused, w3_ptr, b3_ptr, CHANNELS, HIDDEN, DOT)
    return h1a, h1b, h2, raw, features


@triton.jit
def second_layer_gradient(draw, dchange, h2, w3_ptr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr):
    """The second layer's gradients, before its ReLU, from the gradients of the raw density and the features."""
    columns, hidden = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN)
    w3 = tl.load(w3_ptr + (1 + columns[:, None]) * HIDDEN + hidden[None, :]).to(DOT)
    dh2 = tl.dot(dchange.to(DOT), w3, input_precision=PRODUCTS) + draw[:, None] * tl.load(w3_ptr + hidden)[None, :]
    return tl.where(h2 > 0, dh2, 0.0)


@triton.jit
def first_layer_gradient(
    dh2, h1, w1_ptr, w2_ptr,
    START: tl.constexpr, UNITS: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients of some units of the first layer, before their ReLU, and of the input through these units."""
    columns, units, hidden = tl.arange(0, CHANNELS), START + tl.arange(0, UNITS), tl.arange(0, HIDDEN)
    w2 = tl.load(w2_ptr + hidden[:, None] * HIDDEN + units[None, :]).to(DOT)
    dh1 = tl.where(h1 > 0, tl.dot(dh2.to(DOT), w2, input_precision=PRODUCTS), 0.0)
    w1 = tl.load(w1_ptr + units[:, None] * CHANNELS + columns[None, :]).to(DOT)
    return dh1, tl.dot(dh1.to(DOT), w1, input_precision=PRODUCTS)


@triton.jit
def add_field_gradient(
    draw, dchange, fused, h1a, h1b, h2, w1_ptr, w2_ptr, w3_ptr,
    dw1a, dw1b, db1a, db1b, dw2a, dw2b, db2, dw_density, dw3, db_density, db3,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradient of the fused features, and those of the field's parameters with a sample's contribution."""
    HALF: tl.constexpr = HIDDEN // 2
    # The last layer: one row for the density, the others for the features.
    dw_density += tl.sum(h2 * draw[:, None], axis=0)
    db_density += draw
    db3 += tl.sum(dchange, axis=0)
    dw3 = tl.dot(tl.trans(dchange.to(DOT)), h2.to(DOT), dw3, input_precision=PRODUCTS)
    dh2 = second_layer_gradient(draw, dchange, h2, w3_ptr, CHANNELS, HIDDEN, DOT)
    db2 += tl.sum(dh2, axis=0)
    dw2a = tl.dot(tl.trans(h1a.to(DOT)), dh2.to(DOT), dw2a, input_precision=PRODUCTS)
    dw2b = tl.dot(tl.trans(h1b.to(DOT)), dh2.to(DOT), dw2b, input_precision=PRODUCTS)
    dh1a, into_a = first_layer_gradient(dh2, h1a, w1_ptr, w2_ptr, 0, HALF, CHANNELS, HIDDEN, DOT)
    dh1b, into_b = first_layer_gradient(dh2, h1b, w1_ptr, w2_ptr, HALF, HALF, CHANNELS, HIDDEN, DOT)
    db1a += tl.sum(dh1a, axis=0)
    db1b += tl.sum(dh1b, axis=0)
    dw1a = tl.dot(tl.trans(fused.to(DOT)), dh1a.to(DOT), dw1a, input_precision=PRODUCTS)
    dw1b = tl.dot(tl.trans(fused.to(DOT)), dh1b.to(DOT), dw1b, input_precision=PRODUCTS)
    dfused = dchange + into_a + into_b
    return dfused, dw1a, dw1b, db1a, db1b, dw2a, dw2b, db2, dw_density, dw3, db_density, db3


@triton.jit
def store_shares(
    dw1_ptr, db1_ptr, dw2_ptr, db2_ptr, dw3_ptr, db3_ptr,
    dw1a, dw1b, db1a, db1b, dw2a, dw2b, db2, dw_density, dw3, db_density, db3,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """Stores this program's part of the field's gradients, `[programs, ...]`."""
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    HALF: tl.constexpr = HIDDEN // 2
    columns, hidden, half = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN), tl.arange(0, HALF)
    unit_a, unit_b = program * HIDDEN + half, program * HIDDEN + HALF + half
    tl.store(dw1_ptr + unit_a[None, :] * CHANNELS + columns[:, None], dw1a)
    tl.store(dw1_ptr + unit_b[None, :] * CHANNELS + columns[:, None], dw1b)
    tl.store(db1_ptr + unit_a, db1a)
    tl.store(db1_ptr + unit_b, db1b)
    tl.store(dw2_ptr + (program * HIDDEN + hidden[None, :]) * HIDDEN + half[:, None], dw2a)
    tl.store(dw2_ptr + (program * HIDDEN + hidden[None, :]) * HIDDEN + HALF + half[:, None], dw2b)
    tl.store(db2_ptr + program * HIDDEN + hidden, db2)
    tl.store(dw3_ptr + program * (1 + CHANNELS) * HIDDEN + hidden, dw_density)
    tl.store(dw3_ptr + (program * (1 + CHANNELS) + 1 + columns[:, None]) * HIDDEN + hidden[None, :], dw3)
    tl.store(db3_ptr + program * (1 + CHANNELS), tl.sum(db_density, axis=0))
    tl.store(db3_ptr + program * (1 + CHANNELS) + 1 + columns, db3)
