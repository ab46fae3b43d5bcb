"""What the integration tests share."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import genvs
from genvs.config import PRESETS, GeNVSConfig
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.models import GeNVS


@pytest.fixture(scope="session")
def cars(tmp_path_factory) -> Path:
    """The embedded dataset, small: 12 training and 3 held-out cars of 6 views at 32 pixels."""
    path = tmp_path_factory.mktemp("datasets") / "cars"
    ensure_dataset(path, scenes=12, views=6, resolution=32, val_scenes=3, workers=2)
    return path


def tiny_config() -> GeNVSConfig:
    preset = PRESETS["cpu-demo"]
    return dataclasses.replace(
        preset,
        encoder=dataclasses.replace(
            preset.encoder, widths=(8, 8, 8, 8), decoder_channels=8, low_level_channels=8, volume_depth=4
        ),
        renderer=dataclasses.replace(preset.renderer, hidden_channels=8, num_samples=6, render_width=8),
        denoiser=dataclasses.replace(preset.denoiser, model_channels=8, channel_mult=(1, 1)),
    )


@pytest.fixture(scope="module")
def net() -> GeNVS:
    """A network of random weights, none of them zero, so that every part of it shows in the images."""
    generator = torch.Generator().manual_seed(0)
    net = GeNVS(tiny_config()).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(max(1, parameter[0].numel())))
    return net


@pytest.fixture(scope="module")
def snapshot(net, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "network-snapshot-000001.pkl"
    genvs.save_snapshot(path, net.config, net.state_dict())
    return path
