"""What the integration tests share."""

from pathlib import Path

import pytest

from genvs.models import GeNVS
from tests.small_model import saved, small_net


@pytest.fixture(scope="module")
def net() -> GeNVS:
    """A network of random weights."""
    return small_net().requires_grad_(False)


@pytest.fixture(scope="module")
def snapshot(net, tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("run") / "network-snapshot-000001.pkl", net)


@pytest.fixture(scope="module")
def options(snapshot, cars) -> list[object]:
    """Of a short evaluation."""
    return ["--ckpt_path", snapshot, "--data", cars, "--split", "val", "--denoising_steps", 1, "--device", "cpu"]
