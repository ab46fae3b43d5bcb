"""The whole rendering of feature images in one kernel: project, sample, fuse, field MLP, composite.

A program takes a tile of rays and walks along them, near to far. Backward is two kernels. The first walks the same way
over the fused features that forward has stored: with P_k the features rendered up to sample k, the gradient of a
sample's optical depth is T_{k+1} f_k.g - (P_S - P_k).g, which needs only the final image besides what lies before k.
The second scatters the fused features' gradients into the volumes, a tile of samples a program.

For a sensor that keeps the range, features are summed over the elevations of an azimuth, whose rays lie one after the
other. At each sample, a program stores the sums over those of its rays that belong to one azimuth. If an azimuth has
more rays than a tile, plain torch adds up the tiles' sums. Nothing is added atomically, so forward repeats bit by bit.
The gradient g_k of the image then differs from sample to sample, and the gradient of an optical depth is
T_{k+1} f_k.g_k - sum over j > k of w_j f_j.g_j, where w_j is a sample's weight. Backward walks from far to near, so
that it has this sum when it needs it. Forward stores T_k for that: 4 bytes a sample, where the fused features take 32
or more. To walk from near to far, backward would need the total first, and so evaluate the field twice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

from genvs.ops.triton_kernels import render_parts as parts

RAYS = 64  # of a tile
# Backward splits the first hidden layer into halves. Products that sum over a tile then have fewer than 64 rows, and do
# not use the asynchronous tensor cores (wgmma), with which Triton 3.6 reuses their operands' memory too early.
# One stage, because the weights do not change from one sample to the next.
BACKWARD = {"num_warps": 4, "num_stages": 1}
POINTS = 64  # samples that one program scatters


@triton.jit
def render_kernel(
    volume_ptr, frusta_ptr, shares_ptr, origins_ptr, directions_ptr, depths_ptr, lengths_ptr, known_ptr,
    out_ptr, fused_ptr, transmittance_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, density_scale, density_shift,
    views, targets, rays, samples,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr,
    RAYS: tl.constexpr, GROUP: tl.constexpr, KNOWN: tl.constexpr, COUNT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Rendered features `[B, T, R, C]`; and for backward the fused ones, `[B, T, R, S, C]`.

    GROUP: if not 0, features are summed over groups of so many rays instead, `[B, T, R / GROUP, S, C]`; for backward
    there are the transmittances too, `[B, T, S, R]`. KNOWN, COUNT: the first of the channels whose values are
    those of known_ptr, and their number.
    """
    DOT: tl.constexpr = volume_ptr.dtype.element_ty
    target, ray = tl.program_id(1).to(tl.int64), tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_rays, at, columns = ray < rays, target * rays + ray, tl.arange(0, CHANNELS)
    volume_ptr += target // targets * views * (HEIGHT * WIDTH * DEPTH * CHANNELS)
    frusta_ptr += target // targets * views * 16
    shares_ptr += target * views
    ox, oy, oz = parts.load3(origins_ptr, at, in_rays)
    dx, dy, dz = parts.load3(directions_ptr, at, in_rays)
    out, transmittance = tl.zeros([RAYS, CHANNELS], tl.float32), tl.full([RAYS], 1.0, tl.float32)
    b2 = tl.load(b2_ptr + tl.arange(0, HIDDEN))[None, :]
    for sample in range(samples):
        t = tl.load(depths_ptr + at * samples + sample, mask=in_rays, other=0.0)
        length = tl.load(lengths_ptr + at * samples + sample, mask=in_rays, other=0.0)
        fused = parts.fuse_at(
            volume_ptr, frusta_ptr, shares_ptr, views, ox + t * dx, oy + t * dy, oz + t * dz,
            CHANNELS, WIDTH, HEIGHT, DEPTH, RAYS,
        )  # fmt: skip
        # Rounded here as it is stored, so that backward computes the same densities.
        fused = fused.to(DOT).to(tl.float32)
        if KEEP:
            fused_at = fused_ptr + (at * samples + sample)[:, None] * CHANNELS + columns[None, :]
            tl.store(fused_at, fused.to(fused_ptr.dtype.element_ty), mask=in_rays[:, None])
        h1 = parts.first_layer(fused, w1_ptr, b1_ptr, 0, HIDDEN, CHANNELS, DOT)
        h2 = parts.relu(parts.into_second_layer(h1, w2_ptr, 0, HIDDEN, HIDDEN, DOT) + b2)
        raw, features = parts.field_output(h2, fused, w3_ptr, b3_ptr, CHANNELS, HIDDEN, DOT)
        features = parts.with_known(features, known_ptr, at * samples + sample, in_rays, KNOWN, COUNT, CHANNELS)
        passed = tl.exp(-density_scale * parts.softplus(raw + density_shift) * length)
        seen = ((1 - passed) * transmittance)[:, None] * features
        if GROUP:
            sums = tl.sum(tl.reshape(seen, [RAYS // GROUP, GROUP, CHANNELS]), axis=1)
            group = tl.program_id(0) * (RAYS // GROUP) + tl.arange(0, RAYS // GROUP)
            sums_at = ((target * (rays // GROUP) + group) * samples + sample)[:, None] * CHANNELS + columns[None, :]
            tl.store(out_ptr + sums_at, sums, mask=(group < rays // GROUP)[:, None])
            if KEEP:
                tl.store(transmittance_ptr + (target * samples + sample) * rays + ray, transmittance, mask=in_rays)
        else:
            out += seen
        transmittance *= passed
    if not GROUP:
        tl.store(out_ptr + at[:, None] * CHANNELS + columns[None, :], out, mask=in_rays[:, None])


@triton.jit
def field_gradient_kernel(
    fused_ptr, lengths_ptr, known_ptr, out_ptr, transmittance_ptr, dout_ptr,
    w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, density_scale, density_shift,
    dfused_ptr, dw1_ptr, db1_ptr, dw2_ptr, db2_ptr, dw3_ptr, db3_ptr, rays, samples,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, RAYS: tl.constexpr, ELEVATIONS: tl.constexpr,
    KNOWN: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Stores the fused features' gradients, and each program's part of the field's, `[programs, ...]`.

    ELEVATIONS: rays of an azimuth, over which features were summed; 0 if they were summed along rays.
    """
    DOT: tl.constexpr = fused_ptr.dtype.element_ty
    HALF: tl.constexpr = HIDDEN // 2
    target, ray = tl.program_id(1).to(tl.int64), tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_rays, at, columns = ray < rays, target * rays + ray, tl.arange(0, CHANNELS)
    # behind: the features behind sample k, times the gradient.
    behind, transmittance = tl.zeros([RAYS], tl.float32), tl.full([RAYS], 1.0, tl.float32)
    if not ELEVATIONS:
        image_at = at[:, None] * CHANNELS + columns[None, :]
        dout = tl.load(dout_ptr + image_at, mask=in_rays[:, None], other=0.0)
        behind = tl.sum(tl.load(out_ptr + image_at, mask=in_rays[:, None], other=0.0) * dout, axis=1)
    dw1a, db1a = tl.zeros([CHANNELS, HALF], tl.float32), tl.zeros([HALF], tl.float32)
    dw1b, db1b = tl.zeros([CHANNELS, HALF], tl.float32), tl.zeros([HALF], tl.float32)
    dw2a, dw2b = tl.zeros([HALF, HIDDEN], tl.float32), tl.zeros([HALF, HIDDEN], tl.float32)
    dw3, db2 = tl.zeros([CHANNELS, HIDDEN], tl.float32), tl.zeros([HIDDEN], tl.float32)
    db3, dw_density = tl.zeros([CHANNELS], tl.float32), tl.zeros([HIDDEN], tl.float32)
    db_density = tl.zeros([RAYS], tl.float32)
    for step in range(samples):
        sample = samples - 1 - step if ELEVATIONS else step
        if ELEVATIONS:
            image_at = (at // ELEVATIONS * samples + sample)[:, None] * CHANNELS + columns[None, :]
            dout = tl.load(dout_ptr + image_at, mask=in_rays[:, None], other=0.0)
            transmittance_at = transmittance_ptr + (target * samples + sample) * rays + ray
            transmittance = tl.load(transmittance_at, mask=in_rays, other=0.0)
        length = tl.load(lengths_ptr + at * samples + sample, mask=in_rays, other=0.0)
        sample_at = (at * samples + sample)[:, None] * CHANNELS + columns[None, :]
        fused = tl.load(fused_ptr + sample_at, mask=in_rays[:, None], other=0.0).to(tl.float32)
        h1a, h1b, h2, raw, features = parts.field_in_halves(
            fused, w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, CHANNELS, HIDDEN, DOT
        )
        features = parts.with_known(features, known_ptr, at * samples + sample, in_rays, KNOWN, COUNT, CHANNELS)
        passed = tl.exp(-density_scale * parts.softplus(raw + density_shift) * length)
        weight = (1 - passed) * transmittance
        transmittance *= passed
        along = tl.sum(features * dout, axis=1)
        behind = behind if ELEVATIONS else behind - weight * along
        draw = (transmittance * along - behind) * length * density_scale * tl.sigmoid(raw + density_shift)
        behind = behind + weight * along if ELEVATIONS else behind
        dchange = weight[:, None] * dout
        if COUNT > 0:
            dchange = tl.where(parts.is_known(KNOWN, COUNT, CHANNELS), 0.0, dchange)
        dfused, dw1a, dw1b, db1a, db1b, dw2a, dw2b, db2, dw_density, dw3, db_density, db3 = parts.add_field_gradient(
            draw, dchange, fused, h1a, h1b, h2, w1_ptr, w2_ptr, w3_ptr,
            dw1a, dw1b, db1a, db1b, dw2a, dw2b, db2, dw_density, dw3, db_density, db3, CHANNELS, HIDDEN, DOT,
        )  # fmt: skip
        tl.store(dfused_ptr + sample_at, dfused.to(dfused_ptr.dtype.element_ty), mask=in_rays[:, None])
    parts.store_shares(
        dw1_ptr, db1_ptr, dw2_ptr, db2_ptr, dw3_ptr, db3_ptr,
        dw1a, dw1b, db1a, db1b, dw2a, dw2b, db2, dw_density, dw3, db_density, db3, CHANNELS, HIDDEN,
    )  # fmt: skip


@triton.jit
def scatter_kernel(
    dfused_ptr, dvolume_ptr, frusta_ptr, shares_ptr, origins_ptr, directions_ptr, depths_ptr,
    views, targets, rays, samples,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """Adds the gradients of fused features `[B, T, R, S, C]` to the volumes' gradients."""
    target, point = tl.program_id(1).to(tl.int64), tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    inside, at, columns = point < rays * samples, target * rays + point // samples, tl.arange(0, CHANNELS)
    point = target * rays * samples + point
    dvolume_ptr += target // targets * views * (HEIGHT * WIDTH * DEPTH * CHANNELS)
    frusta_ptr += target // targets * views * 16
    shares_ptr += target * views
    ox, oy, oz = parts.load3(origins_ptr, at, inside)
    dx, dy, dz = parts.load3(directions_ptr, at, inside)
    t = tl.load(depths_ptr + point, mask=inside, other=0.0)
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    shares = tl.zeros([POINTS], tl.float32)
    for view in range(views):
        _, _, _, _, _, _, valid = parts.locate(frusta_ptr + view * 16, x, y, z, WIDTH, HEIGHT, DEPTH)
        shares += tl.where(valid, tl.load(shares_ptr + view), 0.0)
    gradient_at = point[:, None] * CHANNELS + columns[None, :]
    gradient = tl.load(dfused_ptr + gradient_at, mask=inside[:, None], other=0.0).to(tl.float32)
    gradient /= tl.maximum(shares, parts.MIN_WEIGHT_SUM)[:, None]
    for view in range(views):
        i, j, k, fi, fj, fk, valid = parts.locate(frusta_ptr + view * 16, x, y, z, WIDTH, HEIGHT, DEPTH)
        share = tl.load(shares_ptr + view)
        mask = (inside & valid)[:, None] & (columns >= 0)[None, :]
        for number in tl.static_range(8):
            voxel, weight = parts.corner(number, i, j, k, fi, fj, fk, WIDTH, HEIGHT, DEPTH)
            value = ((weight * share)[:, None] * gradient).to(dvolume_ptr.dtype.element_ty)
            tl.atomic_add(dvolume_ptr + voxel[:, None] * CHANNELS + columns[None, :], value, mask=mask, sem="relaxed")
        dvolume_ptr += HEIGHT * WIDTH * DEPTH * CHANNELS


class Render(torch.autograd.Function):
    """See `genvs.ops.render`."""

    @staticmethod
    def forward(
        ctx, volume, frusta, shares, origins, directions, depths, lengths, density, elevations, known, *field
    ):  # fmt: skip
        # [B, V, C, D, H, W] to the order of the kernels; a copy only if its memory has another order.
        volume = volume.permute(0, 1, 4, 5, 3, 2).contiguous()
        rays = [part.float().contiguous() for part in (frusta, shares, origins, directions, depths, lengths)]
        field = [parameter.contiguous() for parameter in field]
        values = None if known is None else known.values.float().contiguous()
        place = {"KNOWN": 0, "COUNT": 0} if known is None else {"KNOWN": known.first, "COUNT": values.shape[-1]}
        keep, elevations = any(ctx.needs_input_grad), elevations or 0
        batch, targets, num_rays, samples = depths.shape
        group = min(elevations, RAYS)
        shape = (num_rays // group, samples) if group else (num_rays,)
        like = {"dtype": torch.float32, "device": volume.device}
        out = torch.empty((batch, targets, *shape, volume.shape[-1]), **like)
        fused = volume.new_empty((*depths.shape, volume.shape[-1])) if keep else None
        transmittance = torch.empty((batch, targets, samples, num_rays), **like) if keep and group else None
        sizes = {"HIDDEN": field[0].shape[0], "RAYS": RAYS, "GROUP": group, "KEEP": keep, **place}
        render_kernel[triton.cdiv(num_rays, RAYS), batch * targets](
            volume, *rays, values, out, fused, transmittance, *field, *density,
            volume.shape[1], *depths.shape[1:], **sizes, **_sizes(volume.shape),
        )  # fmt: skip
        if elevations > RAYS:
            out = out.unflatten(2, (-1, elevations // RAYS)).sum(dim=3)
        ctx.density, ctx.elevations, ctx.known, ctx.volume_shape = density, elevations, place, volume.shape
        ctx.save_for_backward(*rays, values, None if group else out, transmittance, fused, *field)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        frusta, shares, origins, directions, depths, lengths, *walked, fused = ctx.saved_tensors[:10]
        field = ctx.saved_tensors[10:]
        batch, views = ctx.volume_shape[:2]
        _, targets, rays, samples = depths.shape
        grid = (triton.cdiv(rays, RAYS), batch * targets)
        dfield = [parameter.new_empty((grid[0] * grid[1], *parameter.shape)) for parameter in field]
        dfused = torch.empty_like(fused)
        sizes = {"CHANNELS": fused.shape[-1], "HIDDEN": field[0].shape[0], "RAYS": RAYS, **BACKWARD}
        field_gradient_kernel[grid](
            fused, lengths, *walked, dout.contiguous(), *field, *ctx.density, dfused, *dfield, rays, samples,
            ELEVATIONS=ctx.elevations, **ctx.known, **sizes,
        )  # fmt: skip
        dvolume = torch.zeros(ctx.volume_shape, dtype=_sums_dtype(fused), device=fused.device)
        places, sizes = (frusta, shares, origins, directions, depths), {"POINTS": POINTS, **_sizes(ctx.volume_shape)}
        scatter_kernel[triton.cdiv(rays * samples, POINTS), batch * targets](
            dfused, dvolume, *places, views, targets, rays, samples, **sizes
        )
        sums = (part.sum(dim=0) for part in dfield)
        return dvolume.to(fused.dtype).permute(0, 1, 5, 4, 2, 3), *[None] * 9, *sums


def _sums_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of sums of gradients of volumes like `x`: that of `x`, if the GPU has fast atomic additions of it.

    In bf16 that takes half the memory and traffic of float32. A voxel gets a few contributions from each target, so
    the sum's rounding error is about that of the result. GPUs before Hopper have no atomic additions of bf16.
    """
    slow = x.is_cuda and x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) < (9, 0)
    return torch.float32 if slow else x.dtype


def _sizes(volume_shape: torch.Size) -> dict[str, int]:
    _, _, height, width, depth, channels = volume_shape
    return {"CHANNELS": channels, "WIDTH": width, "HEIGHT": height, "DEPTH": depth}
