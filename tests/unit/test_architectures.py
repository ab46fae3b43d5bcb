"""The U-Nets: EDM's sizes, the results of their blocks, and their labels."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from genvs import ops
from genvs.config import ARCHITECTURES, DenoiserConfig
from genvs.models.adm import ADM, ADMBlock
from genvs.models.denoiser import UNETS
from genvs.models.ncsnpp import NCSNpp, smooth_downsample, smooth_upsample
from genvs.models.unet import UNet
from tests.small_model import randomize

DDPMPP = {"channel_mult": (2, 2, 2), "residual_encoder": False}
NCSNPP = {"channel_mult": (2, 2, 2)}
ADM_64 = {"model_channels": 192, "channel_mult": (1, 2, 3, 4), "blocks_per_level": 3, "residual_encoder": False}
SMALL = {"model_channels": 16, "channel_mult": (1, 2), "blocks_per_level": 1, "attention_resolutions": (8,)}


@pytest.mark.parametrize(
    ("arch", "resolution", "in_channels", "num_classes", "config", "parameters"),
    [
        (UNet, 32, 3, 0, DDPMPP, 55_732_739),
        (UNet, 32, 3, 0, {**DDPMPP, "augment_labels": 9}, 55_733_891),
        (NCSNpp, 32, 3, 0, NCSNPP, 56_395_523),
        (NCSNpp, 32, 3, 0, {**NCSNPP, "augment_labels": 9}, 56_397_827),
        (ADM, 64, 3, 1000, {**ADM_64, "attention_resolutions": (32, 16, 8)}, 295_899_267),
        (UNet, 128, 19, 0, {"augment_labels": 6}, 67_789_315),
    ],
)
def test_parameters_are_as_many_as_published(arch, resolution, in_channels, num_classes, config, parameters):
    with torch.device("meta"):
        net = arch(DenoiserConfig(**config), resolution, in_channels, 3, num_classes)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def small(arch: str, num_classes: int = 0, **config) -> UNet:
    settings = {**SMALL, "arch": arch, "residual_encoder": arch == "ncsnpp", "dropout": 0.0, **config}
    net = UNETS[arch](DenoiserConfig(**settings), 16, 5, 3, num_classes).eval()
    randomize(net)
    return net.requires_grad_(False)


@pytest.fixture(params=ARCHITECTURES)
def arch(request) -> str:
    return request.param


def some_input() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 16, 16, generator=generator), torch.randn(2, generator=generator)


def test_each_architecture_uses_all_of_its_inputs(arch):
    net, (x, c_noise) = small(arch, num_classes=3, augment_labels=6), some_input()
    labels = torch.zeros(2, 9)
    base = net(x, c_noise)
    assert base.shape == (2, 3, 16, 16)
    assert_close(net(x, c_noise, None, labels), base)
    assert (net(x, c_noise + 1) - base).abs().amax(dim=(1, 2, 3)).min() > 1e-4
    assert (net(x + 1, c_noise) - base).abs().amax(dim=(1, 2, 3)).min() > 1e-4
    for place in range(9):
        changed = labels.clone()
        changed[0, place] = 1
        change = (net(x, c_noise, None, changed) - base).abs().amax(dim=(1, 2, 3))
        assert change[0] > 1e-5 and change[1] < 1e-6, place


def test_dropout_goes_by_keys(arch):
    net, (x, c_noise) = small(arch, dropout=0.3), some_input()
    keys = torch.tensor([5, 7])
    both = net(x, c_noise, keys)
    assert (both - net(x, c_noise)).abs().max() > 1e-3
    assert_close(net(x[1:], c_noise[1:], keys[1:]), both[1:], rtol=1e-4, atol=1e-5)


def test_the_initial_network(arch):
    """Its output is nearly 0, and the layer of augmentation labels starts as in EDM: at 0 for ADM alone."""
    torch.manual_seed(0)
    net = UNETS[arch](DenoiserConfig(**SMALL, residual_encoder=arch == "ncsnpp", augment_labels=6), 16, 5, 3)
    assert net(*some_input()).abs().max() < 1e-3
    assert bool(net.embed_augment.weight.any()) == (arch != "adm")


# NCSN++


def test_the_smooth_filter_keeps_what_is_flat_and_what_is_straight():
    ramp = torch.stack([torch.full((8, 8), 3.0), torch.arange(8.0).expand(8, 8)])[None]
    down, up = smooth_downsample(ramp)[0, :, 1, 1:-1], smooth_upsample(ramp)[0, :, 4, 2:-2]
    assert_close(down, torch.tensor([[3.0, 3.0], [2.5, 4.5]]))
    assert_close(up, torch.stack([torch.full((12,), 3.0), torch.arange(0.75, 6.5, 0.5)]))


def test_the_input_skip_filters_with_the_convolutions_own_padding():
    """The 3x3 convolution first, also at pixels outside of the image, then the filter at every second pixel."""
    net, x = small("ncsnpp"), some_input()[0]
    conv = net.residual_convs[0]
    wide = F.conv2d(F.pad(x, (2, 2, 2, 2)), conv.weight)
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    kernel = (taps[:, None] * taps).expand(conv.out_channels, 1, 4, 4)
    expected = F.conv2d(wide, kernel, stride=2, groups=conv.out_channels)
    assert expected.shape[-1] == 8
    assert_close(net.branch_down(F.conv2d(x, conv.weight, padding=conv.padding)), expected)


def test_fourier_features_are_waves_of_fixed_random_frequencies():
    net = small("ncsnpp")
    features = net.encode_noise(torch.tensor([0.0, 0.1]))
    half = net.noise_channels // 2
    assert net.noise_channels == 32 and "frequencies" in net.state_dict()
    assert_close(features[0], torch.cat([torch.zeros(half), torch.ones(half)]))
    assert_close(features[1, :half], (0.2 * math.pi * net.frequencies).sin())
    with torch.no_grad():
        big = NCSNpp(DenoiserConfig(model_channels=512, channel_mult=(1,), blocks_per_level=1), 16, 3, 3)
    assert float(big.frequencies.std()) == pytest.approx(16, rel=0.15)


# ADM


def test_attention_has_a_head_for_every_64_channels():
    blocks = [ADMBlock(width, width, 8, dropout=0.0, attention=True) for width in (16, 128, 192, 200)]
    assert [block.attention.heads for block in blocks] == [1, 2, 3, 2]
    attention = blocks[1].attention.requires_grad_(False)
    randomize(attention)
    x = torch.randn(2, 128, 4, 4, generator=torch.Generator().manual_seed(0))
    normalized = F.group_norm(x, 32, attention.norm.weight, attention.norm.bias, 1e-5)
    qkv = attention.qkv(normalized).flatten(2)
    outputs = []
    for head in range(2):
        query, key, value = (qkv[:, 192 * head + part : 192 * (head + 1) : 3] for part in range(3))
        share = torch.softmax(query.mT @ key / 8, dim=-1)
        outputs.append(value @ share.mT)
    expected = x + attention.proj(torch.cat(outputs, dim=1).unflatten(2, (4, 4)))
    assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["none", "wider", "down"])
def test_an_adm_block_scales_and_shifts_after_its_second_norm(change):
    out = 24 if change == "wider" else 16
    resample = ops.downsample if change == "down" else None
    block = ADMBlock(16, out, 8, dropout=0.0, resample=resample).requires_grad_(False)
    randomize(block)
    generator = torch.Generator().manual_seed(0)
    x, embedding = torch.randn(2, 16, 8, 8, generator=generator), torch.randn(2, 8, generator=generator)

    def norm(part, value):
        return F.group_norm(value, min(32, value.shape[1] // 4), part.weight, part.bias, 1e-5)

    def shrink(value):
        return F.avg_pool2d(value, 2) if change == "down" else value

    scale, shift = block.affine(embedding)[:, :, None, None].split(out, dim=1)
    y = block.conv0(shrink(F.silu(norm(block.norm0, x))))
    y = block.conv1(F.silu(norm(block.norm1, y) * (scale + 1) + shift))
    expected = y + (block.skip(shrink(x)) if change == "wider" else shrink(x))
    assert (block.skip is not None) == (change == "wider")
    assert_close(block(x, block.affine(embedding), None), expected, rtol=1e-4, atol=1e-5)


def test_adm_attends_in_every_block_of_a_level():
    net = small("adm", blocks_per_level=2)
    attends = [block.attention is not None for block in (*net.encoder, *net.middle, *net.decoder)]
    #         level 0      down   level 1       middle         level 1             up     level 0
    assert attends == [False] * 2 + [False] + [True] * 2 + [True, False] + [True] * 3 + [False] + [False] * 3
    of_ddpmpp = small("ddpmpp", blocks_per_level=2)
    assert [block.attention is not None for block in of_ddpmpp.decoder][:3] == [False, False, True]
