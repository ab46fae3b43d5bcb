"""The networks: sizes, shapes, preconditioning, dropout, and ImageNet weights."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from genvs.config import BACKBONE_STRIDE, PRESETS
from genvs.models import GeNVS
from genvs.models.backbone import IMAGENET_MEAN, IMAGENET_STD, ResNet, load_imagenet_weights
from genvs.models.colours import colours_of
from genvs.models.encoder import ASPP, FeatureVolumeEncoder
from genvs.settings import set_by_path
from tests.small_model import SIZE, randomize, small_config, small_net, some_batch, some_cameras

# Sizes


def test_srn128_encodes_to_the_papers_volume():
    config = PRESETS["srn128"]
    with torch.device("meta"):
        encoder = FeatureVolumeEncoder(config.encoder, config.resolution, colours_of("rgb", config))
        volume = encoder(torch.zeros(2, 3, 128, 128))
        backbone = ResNet(config.encoder.widths, config.encoder.blocks)
        features = backbone(torch.zeros(1, 3, 128, 128))
    assert volume.shape == (2, 16, 64, 128, 128)
    sizes = {2: (64, 64, 64), 4: (64, 32, 32), 8: (128, 16, 16), 16: (256, 8, 8), 32: (512, 8, 8)}
    assert {stride: tuple(f.shape[1:]) for stride, f in features.items()} == sizes
    assert backbone.channels == {stride: size[0] for stride, size in sizes.items()}
    # torchvision's ResNet-34 has 21,284,672 without its classifier; BatchNorm's scales go, its shifts stay as biases.
    norm_scales = sum(p.numel() for name, p in backbone.named_parameters() if name.endswith("bias"))
    assert sum(p.numel() for p in backbone.parameters()) == 21_284_672 - norm_scales


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_tap_of_the_dilated_convolutions_learns(preset):
    """A tap that is dilated beyond the feature map sees only padding, and never gets a gradient."""
    config = PRESETS[preset]
    aspp = ASPP(config.encoder.widths[3], config.encoder.decoder_channels, config.encoder.aspp_rates)
    side = config.resolution // BACKBONE_STRIDE
    aspp(normal(2, config.encoder.widths[3], side, side)).square().sum().backward()
    for rate, branch in zip(config.encoder.aspp_rates, aspp.atrous, strict=True):
        of_taps = branch[0].weight.grad.abs().sum(dim=(0, 1))
        assert (of_taps > 0).all(), f"rate {rate} on {side}x{side}"


@pytest.mark.parametrize(("resolution", "share"), [(32, 1), (64, 0.25), (64, 0.5), (256, 0.5)])
def test_a_small_model_runs_at_every_resolution(resolution, share):
    """From images to a denoised view, and back to the gradients of all weights."""
    base = set_by_path(small_config(channel_mult=(1, 1, 1, 1), attention_resolutions=(4,)), {"resolution": resolution})
    encoder = dataclasses.replace(base.encoder, volume_width=int(share * resolution))
    net = GeNVS(dataclasses.replace(base, encoder=encoder, renderer=dataclasses.replace(base.renderer, num_samples=2)))
    randomize(net)
    image = torch.rand(1, 1, 3, resolution, resolution) * 2 - 1
    inputs, targets = some_cameras(1, 1), some_cameras(1, 1, seed=1)
    keys, keep = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool)
    denoised, feature_image = net(image, inputs, targets, image, torch.ones(1, 1, 1, 1, 1), keep, keys)
    assert denoised.shape == image.shape and feature_image.shape == (1, 1, 8, resolution, resolution)
    denoised.square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


# Preconditioning


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("sigma", [0.002, 0.1, 0.5, 3.0, 80.0])
def test_the_unet_sees_a_unit_variance_image_and_the_features_as_they_are(sigma, centre):
    net = small_net(centre_on_colours=centre).denoisers["rgb"]
    seen: list = []
    net.unet.register_forward_hook(lambda module, arguments, output: seen.append((*arguments, output)))
    features = normal(4, 8, SIZE, SIZE, seed=1)
    mean = features[:, :3] + 1 if centre else 0.0  # in feature images the colour white is 0
    noisy = mean + 0.5 * normal(4, 3, SIZE, SIZE) + sigma * normal(4, 3, SIZE, SIZE, seed=2)
    denoised = net(noisy, torch.tensor(sigma), features)
    ((x, c_noise, keys, labels, output),) = seen
    assert keys is None and labels is None
    assert torch.equal(x[:, 3:], features), "conditioning is not scaled by c_in"
    assert x[:, :3].std().item() == pytest.approx(1, abs=0.05)
    total = math.hypot(sigma, 0.5)
    assert_close(x[:, :3], (noisy - mean) / total, rtol=1e-4, atol=1e-5)
    assert_close(c_noise, torch.full((4,), math.log(sigma) / 4))
    expected = mean + (0.5 / total) ** 2 * (noisy - mean) + sigma * 0.5 / total * output
    assert_close(denoised, expected, rtol=1e-4, atol=1e-5)


# Dropout and the whole


def test_where_conditioning_is_dropped_it_has_no_effect_and_no_gradient():
    net, batch = small_net(), some_batch(3)
    keys, keep, sigma = torch.arange(6).reshape(3, 2), torch.tensor([[True, False]] * 3), torch.ones(3, 2, 1, 1, 1)
    feature_image = torch.randn(3, 2, 8, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    broken = feature_image.clone()
    broken[:, 1] = torch.nan
    others = (batch.targets.images, sigma, keep, keys)
    denoised = net.denoise_targets(broken.requires_grad_(), *others)
    assert_close(denoised, net.denoise_targets(feature_image, *others), rtol=0, atol=0)
    denoised.sum().backward()
    assert (broken.grad[:, 1] == 0).all() and (broken.grad[:, 0] != 0).any()


# ImageNet weights


WIDTHS, BLOCKS = (8, 8, 12, 16), (2, 1, 2, 1)


def norm_of(conv: str) -> str:
    """torchvision's name of the BatchNorm after a convolution."""
    return conv.replace("downsample.0", "downsample.1").replace("conv", "bn")


def convolutions(backbone: ResNet) -> dict[str, torch.nn.Conv2d]:
    return {name: part for name, part in backbone.named_modules() if isinstance(part, torch.nn.Conv2d)}


def torchvision_state() -> dict[str, Tensor]:
    """A random state dict with torchvision's names: convolutions without bias, BatchNorms, a classifier."""
    state = {"fc.weight": torch.zeros(1000, WIDTHS[-1]), "fc.bias": torch.zeros(1000)}
    for number, (name, conv) in enumerate(convolutions(ResNet(WIDTHS, BLOCKS)).items()):
        state[f"{name}.weight"] = normal(*conv.weight.shape, seed=number) / math.sqrt(conv.weight[0].numel())
        moments = normal(4, len(conv.weight), seed=100 + number)
        values = {"weight": moments[0], "bias": moments[1], "running_mean": moments[2]}
        values |= {"running_var": 0.2 + moments[3].abs(), "num_batches_tracked": torch.tensor(1)}
        state |= {f"{norm_of(name)}.{kind}": value for kind, value in values.items()}
    return state


def test_imagenet_weights_fold_batchnorm_exactly():
    """Only padding differs: torchvision pads with the mean colour, ours with mid-gray."""
    backbone, state = ResNet(WIDTHS, BLOCKS), torchvision_state()
    assert {"bn1.bias", "layer1.1.bn2.weight", "layer2.0.downsample.1.running_var"} <= state.keys()
    load_imagenet_weights(backbone, state)
    for name, conv in convolutions(backbone).items():
        images = x = normal(2, conv.in_channels, 16, 16)
        if name == "conv1":
            mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
            x = ((images + 1) / 2 - mean) / std
        kinds = ("running_mean", "running_var", "weight", "bias")
        norm = [state[f"{norm_of(name)}.{kind}"] for kind in kinds]
        expected = F.batch_norm(F.conv2d(x, state[f"{name}.weight"]), *norm, eps=1e-5)
        assert_close(F.conv2d(images, conv.weight, conv.bias), expected, rtol=1e-4, atol=1e-4)


def test_empty_rays_show_the_background_that_the_network_is_trained_on():
    """An image of the background gives volumes of zeros in the first three channels, whatever its colour."""
    for color in ((255, 255, 255), (0, 0, 0), (0, 51, 255)):
        config = small_config()
        config = dataclasses.replace(config, scene=dataclasses.replace(config.scene, background=color))
        net, level = GeNVS(config), torch.tensor(color) / 127.5 - 1
        images = level[:, None, None].expand(1, 1, 3, config.resolution, config.resolution).contiguous()
        with torch.no_grad():
            volume = net.encode(images)[0, 0, :3]
        torch.testing.assert_close(volume, torch.zeros_like(volume), rtol=0, atol=1e-6)
        assert config.scene.background_levels == pytest.approx(level.tolist())
