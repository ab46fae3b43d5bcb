"""Fixtures for the tests of fused kernels."""

from collections.abc import Callable

import pytest

from genvs import ops
from tests.fused_checks import DEVICE


@pytest.fixture
def kernels(monkeypatch) -> None:
    """Operations run as kernels, also without a GPU."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(ops, "uses_kernels", lambda x: not ops._reference_only.get())


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The operations that run as plain torch."""
    made = []

    def spied(name: str, plain: Callable) -> Callable:
        def call(*args, **options):
            made.append(name)
            return plain(*args, **options)

        return call

    for name in ("render", "resample_volume", "group_norm_silu", "conv_epilogue", "downsample", "upsample", "concat"):
        monkeypatch.setattr(ops.reference, name, spied(name, getattr(ops.reference, name)))
    return made
