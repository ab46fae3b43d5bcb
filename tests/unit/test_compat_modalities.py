"""Networks of CrossModalityDiffusion: four of the unofficial GeNVS with rgb's renderer, in one."""

import dataclasses
import re

import pytest
import torch
from torch.testing import assert_close

import genvs
from genvs.compat import UnofficialGeNVS
from genvs.compat.unofficial import corner_rays, range_angle_images
from genvs.compat.weights import network_of
from genvs.config import GeNVSConfig
from genvs.modalities import MODALITIES
from genvs.snapshot import main
from tests.published import joint_weights, published_config, published_weights, write_snapshot
from tests.small_model import SIZE, some_cameras
from tests.unit.srn_folder import refused

THEIRS = {"rgb": "rgb", "depth": "lidar_depth", "sar": "raysar", "sonar": "sonar"}  # in order of MODALITIES


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, torch.Tensor]]:
    """The weights of each modality's network, under their names of modalities."""
    return {theirs: published_weights(seed=seed) for seed, theirs in enumerate(THEIRS.values())}


def test_the_published_names_and_shapes_are_read(shared):
    """All 4 x 1016, without their numbers."""
    rows = re.findall(r"^(\S+)\t\(([\d, ]*)\)\t(\w+)\t", (shared / "reference" / "state_dict.txt").read_text(), re.M)
    weights = {
        name: torch.empty([int(side) for side in re.findall(r"\d+", shape)], dtype=getattr(torch, kind), device="meta")
        for name, shape, kind in rows
    }
    net = network_of(joint_weights(dict.fromkeys(THEIRS.values(), weights)))
    assert len(weights) == 1016 and net.config.modalities == tuple(THEIRS)
    assert (net.config.encoder, net.config.denoiser) == (
        dataclasses.replace(GeNVSConfig().encoder, aspp_rates=(12, 24, 36)),
        GeNVSConfig().denoiser,
    )


def test_each_modality_has_its_own_encoder_and_denoiser_and_all_have_the_renderer_of_rgb(parts, tmp_path):
    path = write_snapshot(tmp_path / "theirs.pkl", joint_weights(parts), method_name="distance_squared")
    main([str(path), str(tmp_path / "converted.pkl")], halve=False)
    net, found = genvs.load_snapshot(tmp_path / "converted.pkl"), {}
    assert type(net) is UnofficialGeNVS
    stated = {"view_weighting": "distance_squared", "modalities": tuple(THEIRS)}
    assert net.config == dataclasses.replace(published_config(), **stated)
    singles = {name: network_of(parts[theirs], "distance_squared").eval() for name, theirs in THEIRS.items()}
    for name, single in singles.items():
        for key, tensor in single.state_dict().items():
            if name == "rgb" or not key.startswith("renderer."):
                found[re.sub(r"^(encoder|denoiser)s\.rgb", rf"\1s.{name}", key)] = tensor
    state = net.state_dict()
    assert state.keys() == found.keys() and all(torch.equal(state[key], found[key]) for key in state)

    images = torch.rand(2, 2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kinds = torch.tensor([[2, 0], [3, 1]])
    inputs, targets = dataclasses.replace(some_cameras(2, 2), modality=kinds), some_cameras(2, 1, seed=5)
    with torch.no_grad():
        volumes = net.encode(images, inputs)
        for index, name in enumerate(MODALITIES):
            own = kinds == index
            assert_close(volumes[own], singles[name].encode(images[own][None])[0])
            feature_image = net.render(volumes, inputs, targets, modality=name)
            as_photo = singles["rgb"].render(volumes, inputs, targets)
            assert (name == "sonar") != torch.equal(feature_image, as_photo)
            given = images[0], torch.tensor(1.0), feature_image[:, 0]
            assert_close(net.denoise(*given, modality=name), singles[name].denoise(*given))


def test_other_weights_are_refused(parts):
    unknown = refused("infrared", lambda: network_of(joint_weights({**parts, "infrared": {"x": torch.zeros(1)}})))
    assert "modality" in unknown
    refused("genvs_rgb", lambda: network_of(joint_weights({"sonar": parts["sonar"]})))
    refused("of sar", lambda: network_of({**joint_weights(parts), "genvs_raysar.denoiser.extra": torch.zeros(1)}))
    without = {name: weight for name, weight in parts["sonar"].items() if "map_layer0" not in name}
    refused("denoisers.sonar.unet.embed0", lambda: network_of(joint_weights({**parts, "sonar": without})))


def test_samples_are_added_where_a_sonar_sees_them():
    """Four pixels share a sample, and their mean place is its bearing and its range, with the far plane on top."""
    cameras, width = some_cameras(1, 1, dtype=torch.float64), 16
    field_of_view = 2 * torch.atan(0.5 / cameras.intrinsics[0, 0, 0, 0])
    share, elevation, distance = torch.tensor([[-0.3, 0, 0.2], [0.1, -0.2, 0.3], [1, 1.3, 1.6]], dtype=torch.float64)
    bearing = share * field_of_view
    across = torch.stack([elevation.cos() * bearing.sin(), elevation.sin(), elevation.cos() * bearing.cos()], dim=-1)
    points = cameras.centers[0, 0] + (cameras.c2w[0, 0, :3, :3] @ (distance * across.T)).T
    values = torch.eye(3, dtype=torch.float64)
    pictures = range_angle_images(values[None, None, None], points[None, None, None], cameras, width)[0, 0]
    near, far = cameras.near[0, 0], cameras.far[0, 0]
    columns, rows = share + 0.5, (far - distance) / (far - near)
    steps = torch.linspace(0, 1, width, dtype=torch.float64)
    assert_close(pictures.sum(dim=(1, 2)), torch.ones(3, dtype=torch.float64))
    assert_close(pictures.sum(dim=1) @ steps, columns, rtol=0, atol=1e-6)
    assert_close(pictures.sum(dim=2) @ steps, rows, rtol=0, atol=1e-6)
    # All but the middle of a camera's far plane is farther away than that, and is added to the top row.
    origins, directions = (rays.flatten(2, 3)[..., None, :] for rays in corner_rays(cameras, width))
    ones = torch.ones(1, 1, width**2, 1, 1, dtype=torch.float64)
    beyond = range_angle_images(ones, origins + far * directions, cameras, width)
    assert beyond[..., 0, :].sum().item() == pytest.approx(width**2)
