"""The benchmarks' operation counts against what torch counts as the networks run, and the published floors."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import floors
from genvs.config import PRESETS, GeNVSConfig
from genvs.models import GeNVS
from tests.small_model import some_cameras

VIEWS = 2


def on_meta(config: GeNVSConfig) -> tuple[GeNVS, dict]:
    """The model without memory or arithmetic, and arguments for one sample of it."""
    with torch.device("meta"):
        net = GeNVS(config)
        size = config.resolution
        images, noisy = torch.rand(1, VIEWS, 3, size, size), torch.rand(1, 3, size, size)
        sigma = torch.ones(1)
    cameras = {"inputs": some_cameras(1, VIEWS).to("meta"), "targets": some_cameras(1, 1).to("meta")}
    return net, {"images": images, "noisy": noisy, "sigma": sigma, "cameras": cameras}


def convolution_backward(grad, x, weight, bias, stride, padding, dilation, transposed, *rest, **kwargs) -> int:
    """Each wanted gradient takes as much as forward. torch's own count forgets the groups of depthwise weights."""
    output_mask = rest[2]
    return 2 * math.prod(x if transposed else grad) * math.prod(weight[1:]) * sum(output_mask[:2])


def counted(function) -> tuple[int, torch.Tensor]:
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward}
    ) as counter:
        result = function()
    return counter.get_total_flops(), result


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_operations_are_those_that_torch_counts(config: GeNVSConfig) -> None:
    net, sample = on_meta(config)
    cameras = sample["cameras"]
    encoded, volume = counted(lambda: net.encode(sample["images"]))
    rendered, feature_image = counted(lambda: net.render(volume, **cameras))
    denoised, image = counted(lambda: net.denoise(sample["noisy"], sample["sigma"], feature_image[0]))
    backward, _ = counted(lambda: image.sum().backward())
    assert VIEWS * floors.encoder(config).operations == pytest.approx(encoded, rel=5e-3)
    assert floors.renderer(config, VIEWS).operations == pytest.approx(rendered, rel=5e-3)
    assert floors.denoiser(config).operations == pytest.approx(denoised, rel=5e-3)
    training = floors.training_work(config, VIEWS, batch=1).operations
    assert training == pytest.approx(encoded + rendered + denoised + backward, rel=5e-3)


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_parameters_are_those_of_the_model(config: GeNVSConfig) -> None:
    with torch.device("meta"):
        net = GeNVS(config)
    for layers, part in (
        (floors.encoder(config), net.encoder),
        (floors.renderer(config, VIEWS), net.renderer),
        (floors.denoiser(config), net.denoiser),
    ):
        assert layers.parameters == sum(parameter.numel() for parameter in part.parameters())


def test_the_published_floors_of_srn128_are_met() -> None:
    config, rate = PRESETS["srn128"], (floors.RATES["bf16"], floors.BANDWIDTH)
    assert floors.training_work(config, 2, batch=32).seconds(*rate) == pytest.approx(1.56e-3, rel=0.01)
    assert floors.sampling_work(config, 49, batch=16).seconds(*rate) == pytest.approx(13.4e-3, rel=0.01)
    assert floors.update_work(config).seconds(*rate) == pytest.approx(0.86e-3, rel=0.01)


def test_bytes_bound_what_has_few_operations() -> None:
    config = PRESETS["srn128"]
    work = floors.render_work(config, 2)
    # Two volumes of 16 x 64 x 128 x 128 bf16 numbers go in, 16 x 64 x 64 come out.
    assert work.bytes == 2 * (2 * 16 * 64 * 128 * 128 + 16 * 64 * 64)
    assert work.seconds(790e12, 4.3e12) == work.bytes / 4.3e12
