"""What the integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

import genvs
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.models import GeNVS
from tests.small_model import small_net


@pytest.fixture(scope="session")
def cars(tmp_path_factory) -> Path:
    """The embedded dataset, small: 12 training and 3 held-out cars of 6 views at 32 pixels."""
    path = tmp_path_factory.mktemp("datasets") / "cars"
    ensure_dataset(path, scenes=12, views=6, resolution=32, val_scenes=3, workers=2)
    return path


@pytest.fixture(scope="module")
def net() -> GeNVS:
    """A network of random weights."""
    return small_net().requires_grad_(False)


@pytest.fixture(scope="module")
def snapshot(net, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "network-snapshot-000001.pkl"
    genvs.save_snapshot(path, net.config, net.state_dict())
    return path


@pytest.fixture(scope="module")
def options(snapshot, cars) -> list[object]:
    """Of a short evaluation."""
    return ["--ckpt_path", snapshot, "--data", cars, "--split", "val", "--denoising_steps", 1, "--device", "cpu"]
