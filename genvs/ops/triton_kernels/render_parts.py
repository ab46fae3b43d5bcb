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
def load4(ptr):
    """A row of a 4x4 matrix."""
    return tl.load(ptr), tl.load(ptr + 1), tl.load(ptr + 2), tl.load(ptr + 3)


@triton.jit
def row_dot(row, x, y, z):
    """One row of a 4x4 matrix times (x, y, z, 1)."""
    a, b, c, d = row
    return a * x + b * y + c * z + d


@triton.jit
def load_frustum(ptr):
    """The rows of a view's matrix, as `locate` takes them."""
    return load4(ptr), load4(ptr + 4), load4(ptr + 8), load4(ptr + 12)


@triton.jit
def grid_position(normalized, SIZE: tl.constexpr):
    """Lower voxel and fraction of a position, clamped to the outermost centres. The last voxel is never the lower one,
    unless there is no other, so that the upper one is always a step away."""
    position = tl.minimum(tl.maximum(normalized * SIZE - 0.5, 0.0), SIZE - 1.0)
    lower = tl.minimum(position.to(tl.int32), max(SIZE - 2, 0))
    return lower, position - lower.to(tl.float32)


@triton.jit
def lower_corner(u, v, w, valid, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr):
    """Lower voxel and fractions of a place in a volume, and whether it is valid and inside; voxels are ordered
    (H, W, D). The voxel of a place outside is the first, so that all those read the same memory."""
    valid = valid & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1) & (w >= 0) & (w <= 1)
    i, fi = grid_position(u, WIDTH)
    j, fj = grid_position(v, HEIGHT)
    k, fk = grid_position(w, DEPTH)
    return tl.where(valid, (j * WIDTH + i) * DEPTH + k, 0), (fi, fj, fk), valid


@triton.jit
def locate(frustum, x, y, z, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr):
    """Where a world point lies in an input view's volume: lower voxel, fractions, and whether it is inside."""
    row_u, row_v, row_w, row_depth = frustum
    depth = row_dot(row_depth, x, y, z)
    in_front = depth > 0
    inverse = 1 / tl.where(in_front, depth, 1.0)
    u, v, w = row_dot(row_u, x, y, z) * inverse, row_dot(row_v, x, y, z) * inverse, row_dot(row_w, x, y, z)
    return lower_corner(u, v, w, in_front, WIDTH, HEIGHT, DEPTH)


@triton.jit
def corner(NUMBER: tl.constexpr, share, fractions, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr):
    """One of the eight corners around a position: voxels from the lower one, and trilinear weight times share."""
    fi, fj, fk = fractions
    DI: tl.constexpr = NUMBER // 4
    DJ: tl.constexpr = NUMBER // 2 % 2
    DK: tl.constexpr = NUMBER % 2
    weight_i, weight_j, weight_k = fi if DI else 1 - fi, fj if DJ else 1 - fj, fk if DK else 1 - fk
    AWAY: tl.constexpr = (min(DJ, HEIGHT - 1) * WIDTH + min(DI, WIDTH - 1)) * DEPTH + min(DK, DEPTH - 1)
    return AWAY, share * weight_i * weight_j * weight_k


@triton.jit
def fuse_at(
    volume_ptr, frusta_ptr, shares_ptr, views, x, y, z,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """The weighted mean of the input views' features at points, `[RAYS, C]`, and 1 over the sum of weights, `[RAYS]`.
    The features are finite: a view that does not see a point adds 0 times its first voxel.

    volume_ptr, frusta_ptr: of the scene's first view. shares_ptr: the weights of its views for the target.
    """
    columns = tl.arange(0, CHANNELS)
    fused, shares = tl.zeros([RAYS, CHANNELS], tl.float32), tl.zeros([RAYS, CHANNELS], tl.float32)
    for view in range(views):
        voxel, fractions, valid = locate(load_frustum(frusta_ptr + view * 16), x, y, z, WIDTH, HEIGHT, DEPTH)
        share = tl.where(valid, tl.load(shares_ptr + view), 0.0)
        at = volume_ptr + (voxel * CHANNELS)[:, None] + columns[None, :]
        for number in tl.static_range(8):
            away, weight = corner(number, share, fractions, WIDTH, HEIGHT, DEPTH)
            value = tl.load(at + away * CHANNELS).to(tl.float32)
            fused += weight[:, None] * value
        # Never value, but in its layout: else Triton locates all points twice, once in the layout of `shares`.
        shares += tl.where((columns >= 0)[None, :], share[:, None], value)
        volume_ptr += HEIGHT * WIDTH * DEPTH * CHANNELS
    scale = 1 / tl.maximum(tl.max(shares, axis=1), MIN_WEIGHT_SUM)
    return fused * scale[:, None], scale


@triton.jit
def product(a, b):
    return tl.dot(a, b, input_precision=PRODUCTS)


@triton.jit
def relu(x):
    """max(x, 0), which does not hide a NaN."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def load_weights(w1_ptr, w2_ptr, w3_ptr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr):
    """The weights `[out, in]` of the field's layers, the last without its row for the density.

    Loaded before the walk along the rays, they stay in shared memory; the products then wait for no thread.
    """
    columns, hidden = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN)
    w1 = tl.load(w1_ptr + hidden[:, None] * CHANNELS + columns[None, :]).to(DOT)
    w2 = tl.load(w2_ptr + hidden[:, None] * HIDDEN + hidden[None, :]).to(DOT)
    w3 = tl.load(w3_ptr + (1 + columns[:, None]) * HIDDEN + hidden[None, :]).to(DOT)
    return w1, w2, w3


@triton.jit
def evaluate_field(
    fused, weights, b1_ptr, b2_ptr, w3_ptr, b3_ptr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr
):  # fmt: skip
    """Both hidden layers `[RAYS, HIDDEN]`, the raw density `[RAYS]` and the features `[RAYS, C]`."""
    w1, w2, w3 = weights
    columns, hidden = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN)
    h1 = relu(product(fused, tl.trans(w1)) + tl.load(b1_ptr + hidden)[None, :]).to(fused.dtype)
    h2 = relu(product(h1, tl.trans(w2)) + tl.load(b2_ptr + hidden)[None, :])
    raw = tl.sum(h2 * tl.load(w3_ptr + hidden)[None, :], axis=1) + tl.load(b3_ptr)
    h2 = h2.to(fused.dtype)
    change = product(h2, tl.trans(w3)) + tl.load(b3_ptr + 1 + columns)[None, :]
    return h1, h2, raw, fused.to(tl.float32) + change


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
def beside(x, more):
    """Columns of x `[ROWS, C]` and more `[ROWS, C]` in turn: `[ROWS, 2 C]`."""
    return tl.reshape(tl.join(x, more), [x.shape[0], 2 * x.shape[1]])


@triton.jit
def apart(x):
    """What `beside` joined."""
    return tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))


@triton.jit
def column(NUMBER: tl.constexpr, x):
    """One column of x `[ROWS, C]`."""
    return tl.sum(tl.where(tl.arange(0, x.shape[1])[None, :] == NUMBER, x, 0.0), axis=1)


@triton.jit
def add_field_gradient(draw, dchange, fused, h1, h2, w3_ptr, weights, dw1, dw2, db2, dw3):
    """The gradient of the fused features, and those of the field's weights with a sample's contribution.

    All sums over rays are products: `more` has the raw density's gradient in column 0 and ones in column 1, so that
    dw1 has the bias's gradient beside its own columns (`beside`), dw3 the density's weights', and db2 is one column.
    A gradient is added up before the next is computed, which frees registers.
    """
    w1, w2, w3 = weights
    DOT: tl.constexpr = fused.dtype
    hidden, columns = tl.arange(0, w2.shape[0]), tl.arange(0, w1.shape[1])[None, :]
    dchange_rounded = dchange.to(DOT)
    more = tl.where(columns == 0, draw[:, None], tl.where(columns == 1, 1.0, 0.0)).to(DOT)
    dw3 = tl.dot(tl.trans(h2), beside(dchange_rounded, more), dw3, input_precision=PRODUCTS)
    dh2 = product(dchange_rounded, w3) + draw[:, None] * tl.load(w3_ptr + hidden)[None, :]
    dh2 = tl.where(h2 > 0, dh2, 0.0).to(DOT)
    dw2 = tl.dot(tl.trans(dh2), h1, dw2, input_precision=PRODUCTS)
    db2 = tl.dot(tl.trans(dh2), more, db2, input_precision=PRODUCTS)
    dh1 = tl.where(h1 > 0, product(dh2, w2), 0.0).to(DOT)
    dw1 = tl.dot(tl.trans(dh1), beside(fused, more), dw1, input_precision=PRODUCTS)
    return dchange + product(dh1, w1), dw1, dw2, db2, dw3


@triton.jit
def store_shares(
    dw1_ptr, db1_ptr, dw2_ptr, db2_ptr, dw3_ptr, db3_ptr, dw1, dw2, db2, dw3, db_density, db3,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """Stores this program's part of the field's gradients, `[programs, ...]`."""
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    columns, hidden = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN)
    unit, row = program * HIDDEN + hidden, program * (1 + CHANNELS)
    dw1, sums = apart(dw1)
    tl.store(dw1_ptr + unit[:, None] * CHANNELS + columns[None, :], dw1)
    tl.store(db1_ptr + unit, column(1, sums))
    tl.store(dw2_ptr + unit[:, None] * HIDDEN + hidden[None, :], dw2)
    tl.store(db2_ptr + unit, column(1, db2))
    dw3, sums = apart(dw3)
    tl.store(dw3_ptr + (row + 1 + columns[None, :]) * HIDDEN + hidden[:, None], dw3)
    tl.store(dw3_ptr + row * HIDDEN + hidden, column(0, sums))
    tl.store(db3_ptr + row, tl.sum(db_density, axis=0))
    tl.store(db3_ptr + row + 1 + columns, tl.sum(db3, axis=0))
