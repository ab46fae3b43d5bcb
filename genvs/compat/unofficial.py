"""The unofficial implementation's numerics, for networks that were trained with them.

`UnofficialGeNVS` differs from `GeNVS` in the following, all of it in this file:

* Feature volumes are never negative (a ReLU follows the head), and the head does not see the image's colours.
* The focal length and the near and far planes of the batch's first camera are used for all. The principal point is the
  middle of the image.
* Rays pass through the corners of the image's outermost pixels, not through pixel centres. Samples lie on the near
  plane, on the far plane and evenly between. Jitter moves all but the first and last by up to half an interval.
* Volumes fade to zero at their borders, over half a voxel. Views that do not see a point contribute zeros.
* Density is the ReLU of the field's output. An interval reaches to the next sample, in units of depth over focal length
  (where the image reaches from -1 to 1), and the last interval is infinite.
* Transmittance includes the sample's own interval, so that opaque samples are invisible.
* Feature images are enlarged with `align_corners=True`.
* c_in multiplies the feature image too.
* Without a feature image, the denoiser sees unit normal noise in its place.

In networks of several modalities (CrossModalityDiffusion, arXiv 2501.09838) every input and every target is a pinhole
camera's, but for sonar targets: `range_angle_images`.

Its volumes begin with the farthest depth; `genvs.compat.weights` reorders the head's weights, so that ours begin with
the nearest. It also jitters samples in inference, which makes videos flicker; this is not repeated here.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs.config import EncoderConfig
from genvs.geometry import Cameras, frustum_matrix
from genvs.geometry.cameras import apply_linear
from genvs.models.colours import Colours
from genvs.models.denoiser import ConditionedDenoiser
from genvs.models.encoder import FeatureVolumeEncoder
from genvs.models.genvs import GeNVS
from genvs.models.renderer import FeatureRenderer
from genvs.ops.reference import places_in_volume
from genvs.random import Stream, fold, normal, uniform


class UnofficialEncoder(FeatureVolumeEncoder):
    """Volumes are never negative. Parameters that the unofficial network does not have are not trained.

    These are the biases of convolutions with a normalisation layer after them, and the weights of the colours.
    """

    WITHOUT_BIAS = ("backbone", "aspp", "low_level", "fuse")

    def __init__(self, config: EncoderConfig, resolution: int, colours: Colours) -> None:
        super().__init__(config, resolution, colours)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not (name.startswith(self.WITHOUT_BIAS) and name.endswith(".bias")))

    def head_weight(self) -> Tensor:
        weight = self.to_volume.weight
        return torch.cat([weight[:, :-3], weight[:, -3:].detach()], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(super().forward(images))


class UnofficialRenderer(FeatureRenderer):
    """Shared focal length, rays through corners, zeros outside volumes, transmittance that includes the interval."""

    def forward(
        self,
        feature_volume: Tensor,
        inputs: Cameras,
        targets: Cameras,
        keys: Tensor | None = None,
        modality: str = "rgb",
    ) -> Tensor:
        """As in `FeatureRenderer`, in float32."""
        width = self.config.render_width
        weights = self.view_weights(inputs, targets)
        inputs, targets = (with_shared_lens(cameras, of=inputs) for cameras in (inputs, targets))
        depths = self.depths(targets, width * width, keys)
        origins, directions = (rays.flatten(2, 3) for rays in corner_rays(targets, width))
        points = origins[..., None, :] + depths[..., None] * directions[..., None, :]
        with torch.autocast(points.device.type, enabled=False):
            fused = mean_of_views(feature_volume, points, frustum_matrix(inputs), weights)
            density, features = self.field_values(fused)
            if modality == "sonar":
                return range_angle_images(density[..., None] * features, points, targets, width)
            # An image from -1 to 1 is 2 wide, so its focal length is twice ours, which is over the width.
            focal = 2 * targets.intrinsics[..., 0, 0]
            sample_weights = weights_inclusive(density, depths / focal[..., None, None])
            rendered = (sample_weights[..., None] * features).sum(dim=-2)
        return rendered.mT.unflatten(-1, (width, width))

    def depths(self, targets: Cameras, num_rays: int, keys: Tensor | None) -> Tensor:
        """Depths of the samples, `[B, T, num_rays, S]`."""
        count = self.config.num_samples
        steps = torch.linspace(0, 1, count, device=targets.device).expand(*targets.shape, num_rays, count)
        if keys is not None:
            jitter = uniform(fold(keys, Stream.JITTER), (num_rays, count)) - 0.5
            jitter[..., 0], jitter[..., -1] = 0, 0
            steps = steps + jitter / (count - 1)
        near, far = targets.near[..., None, None], targets.far[..., None, None]
        return near + (far - near) * steps

    def field_values(self, fused: Tensor) -> tuple[Tensor, Tensor]:
        """As `genvs.ops.reference.evaluate_field`: density is per unit of depth over focal length."""
        raw = self.field.layers(fused)
        return F.relu(raw[..., 0]), fused + raw[..., 1:]


class UnofficialDenoiser(ConditionedDenoiser):
    """c_in multiplies the feature image too."""

    def forward(self, noisy: Tensor, sigma: Tensor, feature_image: Tensor, *others, **named) -> Tensor:
        _, _, c_in, _ = self.preconditioning(sigma.float().reshape(-1, 1, 1, 1), self.sigma_data)
        return super().forward(noisy, sigma, c_in * feature_image, *others, **named)


class UnofficialGeNVS(GeNVS):
    """The unofficial implementation's model."""

    encoder_type, renderer_type, denoiser_type = UnofficialEncoder, UnofficialRenderer, UnofficialDenoiser

    def encode_as(self, modality: str, images: Tensor, cameras: Cameras | None) -> Tensor:
        """As in `GeNVS`; volumes of every modality lie in the frusta of pinhole cameras."""
        return self.encoders[modality](images)

    def enlarge(self, feature_image: Tensor) -> Tensor:
        size = (self.config.resolution, self.config.resolution)
        return F.interpolate(feature_image, size=size, mode="bilinear", align_corners=True)

    def without_conditioning(self, feature_image: Tensor, keys: Tensor) -> Tensor:
        keys = fold(keys, Stream.UNCONDITIONED)
        return normal(keys, tuple(feature_image.shape[-3:])).to(feature_image.dtype)


def with_shared_lens(cameras: Cameras, of: Cameras) -> Cameras:
    """`cameras` with the focal length (over the image's height), near and far plane of the first camera in `of`."""
    first = (0,) * len(of.shape)
    focal = of.intrinsics[first][1, 1]
    intrinsics = torch.diag(torch.stack([focal, focal, torch.ones_like(focal)]))
    intrinsics[:2, 2] = 0.5
    near, far = (plane[first].expand(cameras.shape) for plane in (of.near, of.far))
    return Cameras(cameras.c2w, intrinsics.expand(*cameras.shape, 3, 3), near, far)


def corner_rays(cameras: Cameras, width: int) -> tuple[Tensor, Tensor]:
    """As `genvs.geometry.generate_rays` for a square image, but from corner to corner."""
    corners = torch.linspace(-1, 1, width, device=cameras.device, dtype=cameras.c2w.dtype)
    x, y = torch.meshgrid(corners, corners, indexing="xy")
    focal = 2 * cameras.intrinsics[..., 0, 0, None, None]
    in_camera = torch.stack([x / focal, y / focal, torch.ones_like(x / focal)], dim=-1)
    directions = apply_linear(cameras.c2w[..., :3, :3], in_camera.flatten(-3, -2)).unflatten(-2, (width, width))
    return cameras.centers[..., None, None, :].expand_as(directions), directions


def mean_of_views(volume: Tensor, points: Tensor, frusta: Tensor, view_weights: Tensor) -> Tensor:
    """As `genvs.ops.reference.fuse_views`, with zeros outside volumes. One view at a time, to save memory."""
    flat = points.flatten(1, 3)
    fused = torch.zeros(*points.shape[:-1], volume.shape[2], device=points.device)
    for view in range(volume.shape[1]):
        grid = (2 * places_in_volume(flat, frusta[:, view])[0] - 1)[:, :, None, None]
        sampled = F.grid_sample(volume[:, view].float(), grid, padding_mode="zeros", align_corners=False)
        share = view_weights[:, :, view, None, None, None]
        fused = fused + share * sampled.flatten(2).mT.unflatten(1, points.shape[1:4])
    return fused


def weights_inclusive(density: Tensor, times: Tensor) -> Tensor:
    """Weights `[..., S]` of the samples along rays. density, times: `[..., S]`."""
    deltas = torch.cat([times.diff(dim=-1), torch.full_like(times[..., :1], 1e10)], dim=-1)
    optical_depth = density * deltas
    return -torch.expm1(-optical_depth) * torch.exp(-optical_depth.cumsum(dim=-1))


def range_angle_images(values: Tensor, points: Tensor, cameras: Cameras, width: int) -> Tensor:
    """Sums `[B, T, C, width, width]` of the samples' values `[B, T, R, S, C]` by bearing and range, far on top.

    A sample has no length and hides nothing behind it. What lies outside the picture is added to its border. points:
    world, `[B, T, R, S, 3]`.
    """
    offsets = (points - cameras.centers[..., None, None, :]).flatten(2, 3)
    right, down = cameras.c2w[..., None, :3, 0], cameras.c2w[..., None, :3, 1]
    level = offsets - (offsets * down).sum(dim=-1, keepdim=True) * down
    bearing = torch.asin((level * right).sum(dim=-1) / level.norm(dim=-1))
    near, far = cameras.near[..., None], cameras.far[..., None]
    u = bearing / (2 * torch.atan(0.5 / cameras.intrinsics[..., 0, :1])) + 0.5
    v = (far - offsets.norm(dim=-1)) / (far - near)
    places = torch.stack([v, u], dim=-1).clamp(0, 1) * (width - 1)  # row and column
    first = places.floor().clamp(max=width - 2)
    values, share = values.flatten(2, 3), places - first
    image = values.new_zeros(*values.shape[:2], width * width, values.shape[-1])
    for row, column in itertools.product((0, 1), repeat=2):
        weight = (share[..., 0] if row else 1 - share[..., 0]) * (share[..., 1] if column else 1 - share[..., 1])
        pixel = ((first[..., 0] + row) * width + first[..., 1] + column).long()
        image = image.scatter_add(2, pixel[..., None].expand_as(values), weight[..., None] * values)
    return image.mT.unflatten(-1, (width, width))
