"""`UnofficialGeNVS` against numbers of the unofficial implementation itself, stage by stage.

`tests/data/unofficial.npz` contains inputs and a part of the outputs (every few rows, channels or samples) of a network
with weights that a formula makes from their names. With `-s` this prints the error at every stage.
"""

import functools
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from genvs.compat import UnofficialGeNVS
from genvs.compat.unofficial import corner_rays, mean_of_views, weights_inclusive, with_shared_lens
from genvs.compat.weights import network_of
from genvs.diffusion.samplers import sample_heun
from genvs.geometry import Cameras, frustum_matrix, to_opencv
from genvs.ops.reference import places_in_volume

TOLERANCE = 1e-4  # root mean square of the difference, over that of the expected values
SIGMAS = (0.002, 0.1, 0.5, 3.0, 80.0)
ONE = slice(1, 2)  # of the views, to save time
DATA = Path(__file__).parents[1] / "data" / "unofficial.npz"
ROWS, COLUMNS = torch.tensor([0, 31, 32, 10, 63, 0]), torch.tensor([0, 31, 33, 50, 63, 40])  # of the rays


class Published:
    """Its inputs, outputs and weights."""

    def __init__(self) -> None:
        with np.load(DATA) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "shapes"}
            shapes = json.loads(str(file["shapes"]))
        self.inputs, self.outputs, self.overrides = (
            {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
            for kind in ("input/", "output/", "override/")
        )
        self.weights = {name: self.weight(name, shape) for name, shape in shapes.items()}

    def weight(self, name: str, shape: list[int]) -> Tensor:
        if name in self.overrides:
            return self.overrides[name]
        if name.endswith("num_batches_tracked"):
            return torch.zeros(shape, dtype=torch.int64)
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if name.endswith("resample_filter"):
            values = np.full(shape, 0.25, np.float32)
        elif name.endswith("running_var"):
            values = 1 + abs(values)
        elif len(shape) > 1:
            gain = math.sqrt(2) if name.startswith("pixel_nerf_net") else 1.0
            values *= np.float32(gain / math.sqrt(math.prod(shape[1:])))
        else:
            values = np.float32(0.1) * values + np.float32(name.endswith(".weight"))
        return torch.from_numpy(values)

    def cameras(self, poses: str) -> Cameras:
        """Cameras from its poses. Its focal length is in half heights, and its planes are divided by that."""
        c2w, focal = to_opencv(self.inputs[poses], "opengl"), self.inputs["focal"].float()
        intrinsics = torch.tensor([[0.5 * focal, 0, 0.5], [0, 0.5 * focal, 0.5], [0, 0, 1]])
        planes = (self.inputs[name] * self.inputs["focal"] for name in ("z_near", "z_far"))
        near, far = (plane.float().expand(c2w.shape[:2]) for plane in planes)
        return Cameras(c2w, intrinsics.expand(*c2w.shape[:2], 3, 3), near, far)


def encoder_stages(net: UnofficialGeNVS, published: Published) -> tuple[Tensor, list[tuple[str, Tensor, str]]]:
    """The volumes, and every stage before them: its name, what is found and the name of what is expected."""
    inside: dict[str, Any] = {}
    for name in ("aspp", "fuse", "backbone"):
        part = net.encoders["rgb"].get_submodule(name)
        part.register_forward_hook(lambda _, __, output, name=name: inside.update({name: output}))
    volume = net.encode(published.inputs["input_imgs"])
    theirs = volume.flip(3)  # theirs has the farthest depth first
    resnet = enumerate(inside["backbone"].values(), start=1)
    stages = [(f"ResNet, stage {k}", x[::5, ::16, ::4, ::4], f"resnet{k}_slice") for k, x in resnet]
    return volume, [
        *stages,
        ("ASPP", inside["aspp"][::5, ::32], "aspp"),
        ("decoder", inside["fuse"][::5, ::64, ::4, ::4], "decoder_slice"),
        ("feature volume", theirs[:, ::2, ::4, ::16, ::32, ::32], "volume_slice"),
        ("feature volume, mean by channel", theirs.mean(dim=(3, 4, 5)), "volume_channel_mean"),
        ("feature volume, deviation by channel", theirs.std(dim=(3, 4, 5)), "volume_channel_std"),
    ]


def ray_values(
    net: UnofficialGeNVS, volume: Tensor, inputs: Cameras, targets: Cameras
) -> Iterator[tuple[str, Tensor, str]]:
    """Every quantity along six rays."""
    shared_inputs, shared_targets = (with_shared_lens(cameras, of=inputs) for cameras in (inputs, targets))
    frusta, focal = frustum_matrix(shared_inputs), 2 * shared_inputs.intrinsics[0, 0, 0, 0]
    depths = net.renderer.depths(shared_targets, len(ROWS), None)
    origins, directions = (rays[:, :, ROWS, COLUMNS] for rays in corner_rays(shared_targets, 64))
    points = origins[..., None, :] + depths[..., None] * directions[..., None, :]
    uvw = [places_in_volume(points.flatten(1, 3), frusta[:, v])[0].unflatten(1, points.shape[1:4]) for v in range(3)]
    fused = mean_of_views(volume, points, frusta, net.renderer.view_weights(inputs, targets))
    density, features = net.renderer.field_values(fused)
    yield "sample depths", depths[0, 0, 0] / focal, "times_nojitter_one_ray"
    yield "points", points[..., ::8, :], "ray_pts_nojitter"
    places = torch.stack(uvw, dim=1)[..., ::8, :]
    yield "places in volumes", (2 * places - 1) * torch.tensor([1, 1, -1]), "ray_uvw_nojitter"
    yield "fused features", fused[..., ::8, :], "ray_feats_nojitter"
    yield "field", torch.cat([density[..., None], features], dim=-1)[..., ::8, :], "ray_mlp_nojitter"
    yield "weights along rays", weights_inclusive(density, depths / focal), "ray_weights_nojitter"


def denoised(net: UnofficialGeNVS, feature_image: Tensor, published: Published) -> Iterator[tuple[str, Tensor, str]]:
    """The denoiser at every noise level, and samples."""
    targets = published.inputs["target_imgs"].flatten(0, 1)
    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(targets.shape, generator=generator)
    latent = torch.randn(1, *targets.shape[1:], generator=generator).expand_as(targets)  # one for all views
    for sigma in SIGMAS:
        output = net.denoise((targets + sigma * noise)[ONE], torch.tensor(sigma), feature_image[ONE])
        yield f"denoiser at sigma {sigma:g}", output[..., ::8, ::8], f"D_sigma_{sigma}"
    mixed = published.outputs["sigmas_mixed"][:, None, None, None]
    output = net.denoise(targets + mixed * noise, mixed, feature_image)
    yield "denoiser at mixed sigmas", output[..., ::8, ::8], "D_mixed"
    denoise = functools.partial(net.denoise, feature_image=feature_image[ONE])
    for steps, name in ((1, "sample, 1 step"), (4, "sample, 4 steps")):
        sample = sample_heun(denoise, latent[ONE], num_steps=steps)
        yield name, sample[..., ::8, ::8], f"sample_{steps}step"


def relative_error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).double().norm() / expected.double().norm())


@pytest.fixture(scope="module")
def published() -> Published:
    return Published()


@torch.no_grad()
def test_every_stage_agrees(published):
    net = network_of(published.weights).eval()
    inputs, targets = published.cameras("input_poses"), published.cameras("target_poses")
    volume, stages = encoder_stages(net, published)
    stages += ray_values(net, volume, inputs, targets)
    low = net.renderer(volume, inputs, targets)
    feature_image = net.enlarge(low.flatten(0, 1))
    stages += [
        ("feature image, as rendered", low[..., ::8, ::8], "feature_low_nojitter"),
        ("feature image, enlarged", feature_image.unflatten(0, (2, 2))[..., ::16, ::16], "feature_slice_nojitter"),
        *denoised(net, feature_image, published),
    ]
    errors = {stage: relative_error(found, published.outputs[name][: len(found)]) for stage, found, name in stages}
    print(*(f"{stage}: {error:.1e}" for stage, error in errors.items()), sep="\n")
    assert len(errors) == 26
    assert not {stage: error for stage, error in errors.items() if not error < TOLERANCE}


def test_opacity_includes_the_own_interval(published):
    """The published weights along six rays sum to the published opacity. Ours would not."""
    rays = published.outputs["ray_weights_nojitter"].sum(dim=-1)
    torch.testing.assert_close(rays, published.outputs["opacity_nojitter"], rtol=0, atol=1e-5)
    assert (rays - published.outputs["opacity_exclusive_nojitter"]).abs().max() > 0.005
