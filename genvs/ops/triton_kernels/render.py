"""The whole rendering of feature images in one kernel: project, sample, fuse, field MLP, composite.

A program takes a tile of rays and walks along them, near to far. Backward is two kernels. The first walks the same way
over the fused features that forward has stored: with P_k the features rendered up to sample k, the gradient of a
sample's optical depth is T_{k+1} f_k.g - (P_S - P_k).g, which needs only the final image besides what lies before k.
The second scatters the fused features' gradients into the volumes, a tile of rays at a few samples a program.

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
SCATTERED = 8  # samples along a ray, that one program scatters
# One stage, because the weights do not change from one sample to the next.
BACKWARD = {"num_warps": 4, "num_stages": 1}


# One view is no case of its own, because Triton would pipeline the walk then, and take 11 s to compile it, not 1.
@triton.jit(do_not_specialize=["views"])
def render_kernel(
    volume_ptr, frusta_ptr, shares_ptr, origins_ptr, directions_ptr, depths_ptr, lengths_ptr, known_ptr,
    out_ptr, fused_ptr, scale_ptr, transmittance_ptr,
    w1_ptr, b1_ptr, w2_ptr, b2_ptr, w3_ptr, b3_ptr, density_scale, density_shift, views, targets, rays, samples,
    CHANNELS: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr,
    RAYS: tl.constexpr, GROUP: tl.constexpr, KNOWN: tl.constexpr, COUNT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Rendered features `[B, T, R, C]`; and for backward the fused ones, `[B, T, S, R, C]`, and the factors with which
    `fuse_at` made them, `[B, T, S, R]`.

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
    weights = parts.load_weights(w1_ptr, w2_ptr, w3_ptr, CHANNELS, HIDDEN, DOT)
    start, steps, within = target * rays * samples, ray * samples, ray[:, None] * CHANNELS + columns[None, :]
    for sample in range(samples):
        kept = start + sample * rays
        t = tl.load(depths_ptr + (start + sample) + steps, mask=in_rays, other=0.0)
        length = tl.load(lengths_ptr + (start + sample) + steps, mask=in_rays, other=0.0)
        fused, scale = parts.fuse_at(
            volume_ptr, frusta_ptr, shares_ptr, views, ox + t * dx, oy + t * dy, oz + t * dz,
            CHANNELS, WIDTH, HEIGHT, DEPTH, RAYS,
        )  # fmt: skip
        fused = fused.to(DOT)
        if KEEP:
            tl.store(fused_ptr + kept * CHANNELS + within, fused, mask=in_rays[:, None])
            tl.store(scale_ptr + kept + ray, scale, mask=in_rays)
        _, _, raw, features = parts.evaluate_field(fused, weights, b1_ptr, b2_ptr, w3_ptr, b3_ptr, CHANNELS, HIDDEN)
        features = parts.with_known(features, known_ptr, at * samples + sample, in_rays, KNOWN, COUNT, CHANNELS)
        passed = tl.exp(-density_scale * parts.softplus(raw + density_shift) * length)
        seen = ((1 - passed) * transmittance)[:, None] * features
        if GROUP:
            sums = tl.sum(tl.reshape(seen, [RAYS // GROUP, GROUP, CHANNELS]), axis=1)
            group = tl.program_id(0) * (RAYS // GROUP) + tl.arange(0, RAYS // GROUP)
            sums_at = ((target * (rays // GROUP) + group) * samples + sample)[:, None] * CHANNELS + columns[None, :]
            tl.store(out_ptr + sums_at, sums, mask=(group < rays // GROUP)[:, None])
            if KEEP:
                tl.store(transmittance_ptr + kept + ray, transmittance, mask=in_rays)
        else:
            out += seen
        transmittance *= passed
    if not GROUP:
        tl.store(out_ptr + target * rays * CHANNELS + within, out, mask=in_rays[:, None])


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
    target, ray = tl.program_id(1).to(tl.int64), tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_rays, at, columns = ray < rays, target * rays + ray, tl.arange(0, CHANNELS)
    # behind: the features behind sample k, times the gradient.
    behind, transmittance = tl.zeros([RAYS], tl.float32), tl.full([RAYS], 1.0, tl.float32)
    start, steps, within = target * rays * samples, ray * samples, ray[:, None] * CHANNELS + columns[None, :]
    if not ELEVATIONS:
        image = target * rays * CHANNELS
        dout = tl.load(dout_ptr + image + within, mask=in_rays[:, None], other=0.0)
        behind = tl.sum(tl.load(out_ptr + image + within, mask=in_rays[:, None], other=0.0) * dout, axis=1)
    weights = parts.load_weights(w1_ptr, w2_ptr, w3_ptr, CHANNELS, HIDDEN, DOT)
    dw1, dw2 = tl.zeros([HIDDEN, 2 * CHANNELS], tl.float32), tl.zeros([HIDDEN, HIDDEN], tl.float32)
    dw3, db2 = tl.zeros([HIDDEN, 2 * CHANNELS], tl.float32), tl.zeros([HIDDEN, CHANNELS], tl.float32)
    db_density, db3 = tl.zeros([RAYS], tl.float32), tl.zeros([RAYS, CHANNELS], tl.float32)
    for step in range(samples):
        sample = samples - 1 - step if ELEVATIONS else step
        kept = start + sample * rays
        if ELEVATIONS:
            image_at = (at // ELEVATIONS * samples + sample)[:, None] * CHANNELS + columns[None, :]
            dout = tl.load(dout_ptr + image_at, mask=in_rays[:, None], other=0.0)
            transmittance = tl.load(transmittance_ptr + kept + ray, mask=in_rays, other=0.0)
        length = tl.load(lengths_ptr + (start + sample) + steps, mask=in_rays, other=0.0)
        fused = tl.load(fused_ptr + kept * CHANNELS + within, mask=in_rays[:, None], other=0.0)
        if DOT == tl.float32:  # all the parts of them that its products take would fill the shared memory
            held = parts.load_weights(w1_ptr, w2_ptr, w3_ptr, CHANNELS, HIDDEN, DOT)
        else:
            held = weights
        h1, h2, raw, features = parts.evaluate_field(fused, held, b1_ptr, b2_ptr, w3_ptr, b3_ptr, CHANNELS, HIDDEN)
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
        db_density, db3 = db_density + draw, db3 + dchange
        dfused, dw1, dw2, db2, dw3 = parts.add_field_gradient(
            draw, dchange, fused, h1, h2, w3_ptr, held, dw1, dw2, db2, dw3
        )
        tl.store(dfused_ptr + kept * CHANNELS + within, dfused.to(DOT), mask=in_rays[:, None])
    parts.store_shares(
        dw1_ptr, db1_ptr, dw2_ptr, db2_ptr, dw3_ptr, db3_ptr, dw1, dw2, db2, dw3, db_density, db3, CHANNELS, HIDDEN
    )


@triton.jit
def scatter_kernel(
    dfused_ptr, scale_ptr, dvolume_ptr, frusta_ptr, shares_ptr, origins_ptr, directions_ptr, depths_ptr,
    views, targets, rays, samples,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, DEPTH: tl.constexpr,
    RAYS: tl.constexpr, SCATTERED: tl.constexpr,
):  # fmt: skip
    """Adds the gradients of fused features `[B, T, S, R, C]` to the gradient of a view's volume.

    All programs of a view come before those of the next, because the cache holds about one volume.
    """
    volume, columns = tl.program_id(2) // targets, tl.arange(0, CHANNELS)
    target = (volume // views * targets + tl.program_id(2) % targets).to(tl.int64)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    in_rays, at = ray < rays, target * rays + ray
    dvolume_ptr += volume.to(tl.int64) * (HEIGHT * WIDTH * DEPTH * CHANNELS)
    frustum, share = parts.load_frustum(frusta_ptr + volume * 16), tl.load(shares_ptr + target * views + volume % views)
    ox, oy, oz = parts.load3(origins_ptr, at, in_rays)
    dx, dy, dz = parts.load3(directions_ptr, at, in_rays)
    start, steps, within = target * rays * samples, ray * samples, ray[:, None] * CHANNELS + columns[None, :]
    first = tl.program_id(1) * SCATTERED
    for sample in range(first, tl.minimum(first + SCATTERED, samples)):
        kept = start + sample * rays
        t = tl.load(depths_ptr + (start + sample) + steps, mask=in_rays, other=0.0)
        voxel, fractions, valid = parts.locate(frustum, ox + t * dx, oy + t * dy, oz + t * dz, WIDTH, HEIGHT, DEPTH)
        valid &= in_rays
        mask = valid[:, None] & (columns >= 0)[None, :]
        gradient = tl.load(dfused_ptr + kept * CHANNELS + within, mask=mask, other=0.0)
        # At a volume's border, rounding may make forward see a point in fewer views, and its factor be up to 1e30.
        weight = tl.minimum(share * tl.load(scale_ptr + kept + ray, mask=valid, other=0.0), 1.0)
        to = dvolume_ptr + (voxel * CHANNELS)[:, None] + columns[None, :]
        for number in tl.static_range(8):
            away, part = parts.corner(number, weight, fractions, WIDTH, HEIGHT, DEPTH)
            value = (part[:, None] * gradient.to(tl.float32)).to(dvolume_ptr.dtype.element_ty)
            tl.atomic_add(to + away * CHANNELS, value, mask=mask, sem="relaxed")


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
        walked = (batch, targets, samples, num_rays)
        fused = volume.new_empty((*walked, volume.shape[-1])) if keep else None
        scale = torch.empty(walked, **like) if keep else None
        transmittance = torch.empty(walked, **like) if keep and group else None
        sizes = {"HIDDEN": field[0].shape[0], "RAYS": RAYS, "GROUP": group, "KEEP": keep, **place}
        render_kernel[triton.cdiv(num_rays, RAYS), batch * targets](
            volume, *rays, values, out, fused, scale, transmittance, *field, *density,
            volume.shape[1], *depths.shape[1:], **sizes, **_sizes(volume.shape),
        )  # fmt: skip
        if elevations > RAYS:
            out = out.unflatten(2, (-1, elevations // RAYS)).sum(dim=3)
        ctx.density, ctx.elevations, ctx.known, ctx.volume_shape = density, elevations, place, volume.shape
        ctx.save_for_backward(*rays, scale, values, None if group else out, transmittance, fused, *field)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, dout):
        *places, lengths, scale, values, out, transmittance, fused = ctx.saved_tensors[:11]
        field = ctx.saved_tensors[11:]
        batch, views = ctx.volume_shape[:2]
        targets, samples, rays = scale.shape[1:]
        grid = (triton.cdiv(rays, RAYS), batch * targets)
        dfield = [parameter.new_empty((grid[0] * grid[1], *parameter.shape)) for parameter in field]
        dfused = torch.empty_like(fused)
        sizes = {"CHANNELS": fused.shape[-1], "HIDDEN": field[0].shape[0], "RAYS": RAYS, **BACKWARD}
        field_gradient_kernel[grid](
            fused, lengths, values, out, transmittance, dout.contiguous(), *field, *ctx.density,
            dfused, *dfield, rays, samples, ELEVATIONS=ctx.elevations, **ctx.known, **sizes,
        )  # fmt: skip
        dvolume = torch.zeros(ctx.volume_shape, dtype=_sums_dtype(fused), device=fused.device)
        tile = {"RAYS": RAYS, "SCATTERED": SCATTERED, **_sizes(ctx.volume_shape)}
        scatter_kernel[grid[0], triton.cdiv(samples, SCATTERED), batch * views * targets](
            dfused, scale, dvolume, *places, views, targets, rays, samples, **tile
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
