"""Our networks against outputs of the published reimplementation's, where it computes what it should.

The shared data hold its outputs for weights that a formula makes from their names, which are its own.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from genvs.config import PRESETS, DenoiserConfig
from genvs.models.encoder import FeatureVolumeEncoder
from genvs.models.unet import UNet


class Published:
    """Its inputs and outputs, and its weights by name."""

    def __init__(self, folder: Path) -> None:
        self.shapes: dict[str, list[int]] = json.loads((folder / "state_dict_keys.json").read_text())
        self.inputs, self.outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")

    def weight(self, name: str) -> Tensor:
        shape = self.shapes[name]
        values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            gain = math.sqrt(2) if name.startswith("pixel_nerf_net") else 1.0
            values *= np.float32(gain / math.sqrt(math.prod(shape[1:])))
        else:
            values = np.float32(0.1) * values + np.float32(name.endswith(".weight"))
        return torch.from_numpy(values)

    def bias(self, weight_name: str) -> Tensor:
        """The bias beside a weight; zero where it has none."""
        name = weight_name.removesuffix("weight") + "bias"
        return self.weight(name) if name in self.shapes else torch.zeros(self.shapes[weight_name][0])

    def output(self, name: str) -> Tensor:
        return torch.from_numpy(self.outputs[name])


@pytest.fixture(scope="module")
def published(shared) -> Published:
    return Published(shared / "reference" / "parity")


# The U-Net: its blocks come in the order of ours


def unet_places(net: UNet, names: list[str]) -> dict[str, nn.Module]:
    """Its modules, such as `enc.64x64_down`, to ours."""
    blocks, residuals = iter([*net.encoder, *net.middle, *net.decoder]), iter(net.residual_convs)
    places: dict[str, nn.Module] = {}
    for place in dict.fromkeys(re.sub(r"((enc|dec)\.[^.]+).*", r"\1", name) for name in names):
        if place.endswith("_conv"):
            places[place] = net.conv_in if place.startswith("enc") else net.conv_out
        elif place.endswith("_aux_norm"):
            places[place] = net.norm_out
        elif place.endswith("_aux_residual"):
            places[place] = next(residuals)
        elif place.startswith(("enc", "dec")):
            places[place] = next(blocks)
    return places


def published_unet(published: Published) -> UNet:
    """The conditioned U-Net of 32 channels with its weights."""
    net = UNet(DenoiserConfig(model_channels=32), 128, 19, 3).requires_grad_(False)
    prefix, unused = "denoiser.model.", ("resample_filter", "map_augment")
    names = [name.removeprefix(prefix) for name in published.shapes if name.startswith(prefix)]
    places, loaded = unet_places(net, names), set()
    for name in names:
        if any(part in name for part in unused):
            continue
        place = re.match(r"(enc|dec)\.[^.]+", name)
        module = places[place[0]] if place else net
        ours = name.removeprefix(f"{place[0]}." if place else "").replace("map_layer", "embed")
        ours = re.sub("^(norm2|qkv|proj)", lambda layer: f"attention.{layer[0].rstrip('2')}", ours)
        module.get_parameter(ours).copy_(published.weight(prefix + name))
        loaded.add(module.get_parameter(ours))
    assert len(loaded) == len(list(net.parameters())), "every weight is loaded"
    return net


def test_the_unet_computes_what_the_published_one_does(published):
    """Its conditioning is scaled by c_in, as ours is not; so the preconditioning is written out here."""
    net = published_unet(published)
    targets = torch.from_numpy(published.inputs["target_imgs"]).flatten(0, 1)
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(11))
    low = published.output("feature_low_nojitter").flatten(0, 1)
    features = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=True)
    for sigma, image in ((0.1, 0), (3.0, 1), (80.0, 3)):
        one, total = slice(image, image + 1), math.hypot(sigma, 0.5)
        noisy = targets[one] + sigma * noise[one]
        output = net(torch.cat([noisy, features[one]], dim=1) / total, torch.tensor([math.log(sigma) / 4]))
        denoised = (0.5 / total) ** 2 * noisy + sigma * 0.5 / total * output
        assert_close(denoised, published.output(f"D_sigma_{sigma}")[one], rtol=0, atol=2e-5)


# The encoder: convolutions one after the other, of which its unused BatchNorms and segmentation head are left out


CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def published_encoder(published: Published) -> FeatureVolumeEncoder:
    encoder = FeatureVolumeEncoder(PRESETS["srn128"].encoder, 128).requires_grad_(False)
    stages = [encoder.stage16, encoder.up8, encoder.stage8, encoder.up4, encoder.stage4]
    head = [encoder.head_ups[0], encoder.head_stages[0], encoder.head_ups[1], encoder.head_stages[1]]
    order = [encoder.backbone, encoder.aspp, encoder.low_level, encoder.fuse, *stages, *head, encoder.to_volume]
    convs = [m for part in order for m in part.modules() if isinstance(m, CONVOLUTIONS)]
    names = [name for name, shape in published.shapes.items() if name.startswith("pixel_nerf_net.encoder")]
    names = [name for name in names if len(published.shapes[name]) == 4 and "segmentation_head" not in name]
    assert len(set(convs)) == sum(isinstance(m, CONVOLUTIONS) for m in encoder.modules()), "every weight is loaded"
    for conv, name in zip(convs, names, strict=True):
        weight, conv_bias = published.weight(name), published.bias(name)
        if isinstance(conv, nn.Linear):  # the head: its volume's channels are the slower index, ours the faster one
            weight, conv_bias = (
                part.unflatten(0, (16, 64)).transpose(0, 1).flatten(0, 1) for part in (weight[:, :, 0, 0], conv_bias)
            )
        conv.weight.zero_()
        conv.weight[:, : weight.shape[1]].copy_(weight)  # what a convolution of ours sees besides is left out
        if conv.bias is not None:
            conv.bias.copy_(conv_bias)
    return encoder


def test_the_encoder_computes_what_the_published_one_does(published):
    encoder = published_encoder(published)
    image = torch.from_numpy(published.inputs["input_imgs"]).flatten(0, 1)[3:4]
    features = encoder.backbone(image)
    for number, feature in enumerate(features, start=1):
        expected = published.output(f"resnet{number}_slice")[3:4]
        assert_close(feature[:, ::16, ::4, ::4], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    aspp = published.output("aspp")[3:4]
    assert_close(encoder.aspp(features[-1])[:, ::8], aspp, rtol=1e-4, atol=1e-4 * float(aspp.abs().max()))
    volume = F.relu(encoder(image))[0]  # its volumes are never negative
    expected = published.output("volume_slice")[1, 0]
    assert_close(volume[:, ::8, ::16, ::16], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
