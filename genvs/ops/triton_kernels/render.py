"""The whole rendering of feature images in one kernel: project, sample, fuse, field MLP, composite.

A program takes a tile of rays and walks along them, near to far. Backward is two kernels. The first walks the same way
from the fused features that forward has left: with P_k the features rendered up to sample k, a sample's optical depth
has the gradient T_{k+1} f_k.g - (P_S - P_k).g, which needs nothing from behind k but the final image. The second
scatters the fused features' gradients into the volumes, a tile of samples a program.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from genvs.ops import reference

RAYS = 64  # of a tile
LEAST_WEIGHT: tl.constexpr = tl.constexpr(reference.LEAST_WEIGHT)
PRODUCTS: tl.constexpr = tl.constexpr("tf32x3")  # of float32 numbers: on tensor cores, and as exact as without
# In backward, the first hidden layer goes in two halves: that keeps the products that sum over a tile off the
# asynchronous matrix unit (wgmma), which starts at 64 rows. Nothing waits for these until the end, and there Triton 3.6
# lets them run on while their operands' memory is used again. One stage: weights that do not change need no queue.
BACKWARD = {"num_warps": 4, "num_stages": 1}
POINTS = 64  # samples that one program scatters


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
    """Lower voxel and fraction of a position in [0, 1]; the border's voxel beyond the outermost centres."""
    position = tl.minimum(tl.maximum(normalized * size - 0.5, 0.0), size - 1.0)
    # Outside, any position will do (it counts nothing), as long as it is in bounds.
    position = tl.where(valid, position, 0.0)
    lower = position.to(tl.int32)
    return lower, position - lower.to(tl.float32)


@triton.jit
def locate(frustum_ptr, x, y, z, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr):
    """Where a world point lies in an input view's volume: lower corner, fractions, and whether it is inside."""
    depth = row_dot(frustum_ptr + 12, x, y, z)
    in_front = depth > 0
    inverse = 1 / tl.where(in_front, depth, 1.0)
    u, v = row_dot(frustum_ptr, x, y, z) * inverse, row_dot(frustum_ptr + 4, x, y, z) * inverse
    w = row_dot(frustum_ptr + 8, x, y, z)
    valid = in_front & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1) & (w >= 0) & (w <= 1)
    i, fi = grid_position(u, valid, WIDTH)
    j, fj = grid_position(v, valid, HEIGHT)
    k, fk = grid_position(w, valid, DEPTH)
    return i, j, k, fi, fj, fk, valid


@triton.jit
def corner(
    i, j, k, fi, fj, fk,
    WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr,
    NEXT_I: tl.constexpr, NEXT_J: tl.constexpr, NEXT_K: tl.constexpr,
):  # fmt: skip
    """Voxel and trilinear weight of one of the eight corners around a position; voxels are ordered (H, W, D)."""
    i, weight_i = (tl.minimum(i + 1, WIDTH - 1), fi) if NEXT_I else (i, 1 - fi)
    j, weight_j = (tl.minimum(j + 1, HEIGHT - 1), fj) if NEXT_J else (j, 1 - fj)
    k, weight_k = (tl.minimum(k + 1, DEPTH - 1), fk) if NEXT_K else (k, 1 - fk)
    return (j * WIDTH + i) * DEPTH + k, weight_i * weight_j * weight_k


@triton.jit
def fuse_at(
    volume_ptr, frusta_ptr, shares_ptr, views, x, y, z,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """The weighted mean over input views of what their volumes hold at points, `[RAYS, C]`.

    volume_ptr, frusta_ptr: of the scene's first view. shares_ptr: the weights of its views for the target.
    """
    columns = tl.arange(0, CHANNELS)
    fused, shares = tl.zeros([RAYS, CHANNELS], tl.float32), tl.zeros([RAYS], tl.float32)
    for view in range(views):
        i, j, k, fi, fj, fk, valid = locate(frusta_ptr + view * 16, x, y, z, WIDTH, HEIGHT, DEPTH)
        share = tl.where(valid, tl.load(shares_ptr + view), 0.0)
        shares += share
        for number in tl.static_range(8):
            voxel, weight = corner(
                i, j, k, fi, fj, fk, WIDTH, HEIGHT, DEPTH, number // 4 == 1, number // 2 % 2 == 1, number % 2 == 1
            )
            at = volume_ptr + voxel[:, None] * CHANNELS + columns[None, :]
            value = tl.load(at, mask=valid[:, None], other=0.0).to(tl.float32)
            fused += (weight * share)[:, None] * value
        volume_ptr += HEIGHT * WIDTH * DEPTH * CHANNELS
    return fused / tl.maximum(shares, LEAST_WEIGHT)[:, None]


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
    """What some units of the first hidden layer send to the second: `[RAYS, HIDDEN]`."""
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
def softplus(x):
    """ln(1 + e^x), without overflow."""
    return tl.maximum(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def render_kernel(
    volume_ptr, frusta_ptr, shares_ptr, origins_ptr, directions_ptr, depths_ptr, lengths_ptr, out_ptr, fused_ptr,
    w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, density_scale, density_shift,
    views, targets, rays, samples,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr,
    RAYS: tl.constexpr, KEEP_FUSED: tl.constexpr,
):  # fmt: skip
    """Rendered features `[B, T, R, C]`; and for backward the fused ones, `[B, T, R, S, C]`."""
    DOT: tl.constexpr = volume_ptr.dtype.element_ty
    target, ray = tl.program_id(1).to(tl.int64), tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_rays, at, columns = ray < rays, target * rays + ray, tl.arange(0, CHANNELS)
    volume_ptr += target // targets * views * (HEIGHT * WIDTH * DEPTH * CHANNELS)
    frusta_ptr += target // targets * views * 16
    shares_ptr += target * views
    ox, oy, oz = load3(origins_ptr, at, in_rays)
    dx, dy, dz = load3(directions_ptr, at, in_rays)
    out, transmittance = tl.zeros([RAYS, CHANNELS], tl.float32), tl.full([RAYS], 1.0, tl.float32)
    b2 = tl.load(b2_ptr + tl.arange(0, HIDDEN))[None, :]
    for sample in range(samples):
        t = tl.load(depths_ptr + at * samples + sample, mask=in_rays, other=0.0)
        length = tl.load(lengths_ptr + at * samples + sample, mask=in_rays, other=0.0)
        fused = fuse_at(
            volume_ptr, frusta_ptr, shares_ptr, views, ox + t * dx, oy + t * dy, oz + t * dz,
            CHANNELS, WIDTH, HEIGHT, DEPTH, RAYS,
        )  # fmt: skip
        if KEEP_FUSED:
            fused_at = fused_ptr + (at * samples + sample)[:, None] * CHANNELS + columns[None, :]
            tl.store(fused_at, fused.to(fused_ptr.dtype.element_ty), mask=in_rays[:, None])
        h1 = first_layer(fused, w1_ptr, b1_ptr, 0, HIDDEN, CHANNELS, DOT)
        h2 = relu(into_second_layer(h1, w2_ptr, 0, HIDDEN, HIDDEN, DOT) + b2)
        raw, features = field_output(h2, fused, w3_ptr, b3_ptr, CHANNELS, HIDDEN, DOT)
        passed = tl.exp(-density_scale * softplus(raw + density_shift) * length)
        out += ((1 - passed) * transmittance)[:, None] * features
        transmittance *= passed
    tl.store(out_ptr + at[:, None] * CHANNELS + columns[None, :], out, mask=in_rays[:, None])


@triton.jit
def first_layer_gradient(
    dh2, h1, w1_ptr, w2_ptr,
    START: tl.constexpr, UNITS: tl.constexpr, CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """The gradients that reach some units of the first layer, before their ReLU, and through them its input."""
    columns, units, hidden = tl.arange(0, CHANNELS), START + tl.arange(0, UNITS), tl.arange(0, HIDDEN)
    w2 = tl.load(w2_ptr + hidden[:, None] * HIDDEN + units[None, :]).to(DOT)
    dh1 = tl.where(h1 > 0, tl.dot(dh2.to(DOT), w2, input_precision=PRODUCTS), 0.0)
    w1 = tl.load(w1_ptr + units[:, None] * CHANNELS + columns[None, :]).to(DOT)
    return dh1, tl.dot(dh1.to(DOT), w1, input_precision=PRODUCTS)


@triton.jit
def field_gradient_kernel(
    fused_ptr, depths_ptr, lengths_ptr, out_ptr, dout_ptr,
    w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, density_scale, density_shift,
    dfused_ptr, dw1_ptr, db1_ptr, dw2_ptr, db2_ptr, dw3_ptr, db3_ptr,
    rays, samples,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """Stores the fused features' gradients, and each program's share of the field's, `[programs, ...]`."""
    DOT: tl.constexpr = fused_ptr.dtype.element_ty
    HALF: tl.constexpr = HIDDEN // 2
    target, ray = tl.program_id(1).to(tl.int64), tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_rays, at = ray < rays, target * rays + ray
    columns, hidden = tl.arange(0, CHANNELS), tl.arange(0, HIDDEN)
    image_at = at[:, None] * CHANNELS + columns[None, :]
    dout = tl.load(dout_ptr + image_at, mask=in_rays[:, None], other=0.0)
    # (P_S - P_k).g: what lies behind sample k, along the gradient.
    behind = tl.sum(tl.load(out_ptr + image_at, mask=in_rays[:, None], other=0.0) * dout, axis=1)
    transmittance = tl.full([RAYS], 1.0, tl.float32)
    dw1a, db1a = tl.zeros([CHANNELS, HALF], tl.float32), tl.zeros([HALF], tl.float32)
    dw1b, db1b = tl.zeros([CHANNELS, HALF], tl.float32), tl.zeros([HALF], tl.float32)
    dw2a, dw2b = tl.zeros([HALF, HIDDEN], tl.float32), tl.zeros([HALF, HIDDEN], tl.float32)
    dw3, db2, db3 = (
        tl.zeros([CHANNELS, HIDDEN], tl.float32),
        tl.zeros([HIDDEN], tl.float32),
        tl.zeros([CHANNELS], tl.float32),
    )
    dw_density, db_density = tl.zeros([HIDDEN], tl.float32), tl.zeros([RAYS], tl.float32)
    for sample in range(samples):
        length = tl.load(lengths_ptr + at * samples + sample, mask=in_rays, other=0.0)
        sample_at = (at * samples + sample)[:, None] * CHANNELS + columns[None, :]
        fused = tl.load(fused_ptr + sample_at, mask=in_rays[:, None], other=0.0).to(tl.float32)
        h1a = first_layer(fused, w1_ptr, b1_ptr, 0, HALF, CHANNELS, DOT)
        h1b = first_layer(fused, w1_ptr, b1_ptr, HALF, HALF, CHANNELS, DOT)
        h2 = into_second_layer(h1a, w2_ptr, 0, HALF, HIDDEN, DOT) + into_second_layer(
            h1b, w2_ptr, HALF, HALF, HIDDEN, DOT
        )
        h2 = relu(h2 + tl.load(b2_ptr + hidden)[None, :])
        raw, features = field_output(h2, fused, w3_ptr, b3_ptr, CHANNELS, HIDDEN, DOT)
        passed = tl.exp(-density_scale * softplus(raw + density_shift) * length)
        weight = (1 - passed) * transmittance
        transmittance *= passed

        along = tl.sum(features * dout, axis=1)
        behind -= weight * along
        draw = (transmittance * along - behind) * length * density_scale * tl.sigmoid(raw + density_shift)
        dchange = weight[:, None] * dout
        # The last layer: one row for the density, the others for the features.
        dw_density += tl.sum(h2 * draw[:, None], axis=0)
        db_density += draw
        db3 += tl.sum(dchange, axis=0)
        dw3 = tl.dot(tl.trans(dchange.to(DOT)), h2.to(DOT), dw3, input_precision=PRODUCTS)
        w3 = tl.load(w3_ptr + (1 + columns[:, None]) * HIDDEN + hidden[None, :]).to(DOT)
        dh2 = tl.dot(dchange.to(DOT), w3, input_precision=PRODUCTS) + draw[:, None] * tl.load(w3_ptr + hidden)[None, :]
        dh2 = tl.where(h2 > 0, dh2, 0.0)
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
        tl.store(dfused_ptr + sample_at, dfused.to(dfused_ptr.dtype.element_ty), mask=in_rays[:, None])
    program = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    half = tl.arange(0, HALF)
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


@triton.jit
def scatter_kernel(
    dfused_ptr, dvolume_ptr, frusta_ptr, shares_ptr, origins_ptr, directions_ptr, depths_ptr,
    views, targets, rays, samples,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """Adds the gradients of fused features `[B, T, R, S, C]` to those of the volumes."""
    target, point = tl.program_id(1).to(tl.int64), tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside, at, columns = point < rays * samples, target * rays + point // samples, tl.arange(0, CHANNELS)
    point = target * rays * samples + point
    dvolume_ptr += target // targets * views * (HEIGHT * WIDTH * DEPTH * CHANNELS)
    frusta_ptr += target // targets * views * 16
    shares_ptr += target * views
    ox, oy, oz = load3(origins_ptr, at, inside)
    dx, dy, dz = load3(directions_ptr, at, inside)
    t = tl.load(depths_ptr + point, mask=inside, other=0.0)
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    shares = tl.zeros([POINTS], tl.float32)
    for view in range(views):
        _, _, _, _, _, _, valid = locate(frusta_ptr + view * 16, x, y, z, WIDTH, HEIGHT, DEPTH)
        shares += tl.where(valid, tl.load(shares_ptr + view), 0.0)
    gradient_at = point[:, None] * CHANNELS + columns[None, :]
    gradient = tl.load(dfused_ptr + gradient_at, mask=inside[:, None], other=0.0).to(tl.float32)
    gradient /= tl.maximum(shares, LEAST_WEIGHT)[:, None]
    for view in range(views):
        i, j, k, fi, fj, fk, valid = locate(frusta_ptr + view * 16, x, y, z, WIDTH, HEIGHT, DEPTH)
        share = tl.load(shares_ptr + view)
        mask = (inside & valid)[:, None] & (columns >= 0)[None, :]
        for number in tl.static_range(8):
            voxel, weight = corner(
                i, j, k, fi, fj, fk, WIDTH, HEIGHT, DEPTH, number // 4 == 1, number // 2 % 2 == 1, number % 2 == 1
            )
            value = ((weight * share)[:, None] * gradient).to(dvolume_ptr.dtype.element_ty)
            tl.atomic_add(dvolume_ptr + voxel[:, None] * CHANNELS + columns[None, :], value, mask=mask, sem="relaxed")
        dvolume_ptr += HEIGHT * WIDTH * DEPTH * CHANNELS


class Render(torch.autograd.Function):
    """See `genvs.ops.render`."""

    @staticmethod
    def forward(ctx, volume, frusta, shares, origins, directions, depths, lengths, density, *field):
        # [B, V, C, D, H, W] to the order that the kernels read; a copy only where it is not so in memory.
        volume = volume.permute(0, 1, 4, 5, 3, 2).contiguous()
        rays = [part.float().contiguous() for part in (frusta, shares, origins, directions, depths, lengths)]
        field = [parameter.contiguous() for parameter in field]
        channels, keep = volume.shape[-1], any(ctx.needs_input_grad)
        out = torch.empty((*origins.shape[:3], channels), dtype=torch.float32, device=volume.device)
        fused = volume.new_empty((*depths.shape, channels)) if keep else None
        grid = (triton.cdiv(origins.shape[2], RAYS), origins.shape[0] * origins.shape[1])
        render_kernel[grid](
            volume,
            *rays,
            out,
            fused,
            *field,
            *density,
            volume.shape[1],
            *depths.shape[1:],
            HIDDEN=field[0].shape[0],
            RAYS=RAYS,
            KEEP_FUSED=keep,
            **_sizes(volume.shape),
        )
        ctx.density, ctx.volume_shape = density, volume.shape
        ctx.save_for_backward(*rays, out, fused, *field)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        frusta, shares, origins, directions, depths, lengths, out, fused, *field = ctx.saved_tensors
        batch, views = ctx.volume_shape[:2]
        _, targets, rays, samples = depths.shape
        grid = (triton.cdiv(rays, RAYS), batch * targets)
        dfield = [parameter.new_empty((grid[0] * grid[1], *parameter.shape)) for parameter in field]
        dfused = torch.empty_like(fused)
        field_gradient_kernel[grid](
            fused,
            depths,
            lengths,
            out,
            dout.contiguous(),
            *field,
            *ctx.density,
            dfused,
            *dfield,
            rays,
            samples,
            CHANNELS=fused.shape[-1],
            HIDDEN=field[0].shape[0],
            RAYS=RAYS,
            **BACKWARD,
        )
        dvolume = torch.zeros(ctx.volume_shape, dtype=fused.dtype, device=fused.device)
        scatter_kernel[triton.cdiv(rays * samples, POINTS), batch * targets](
            dfused,
            dvolume,
            frusta,
            shares,
            origins,
            directions,
            depths,
            views,
            targets,
            rays,
            samples,
            POINTS=POINTS,
            **_sizes(ctx.volume_shape),
        )
        sums = (part.sum(dim=0) for part in dfield)
        return dvolume.permute(0, 1, 5, 4, 2, 3), *[None] * 7, *sums


def _sizes(volume_shape: torch.Size) -> dict[str, int]:
    _, _, height, width, depth, channels = volume_shape
    return {"CHANNELS": channels, "WIDTH": width, "HEIGHT": height, "DEPTH": depth}
