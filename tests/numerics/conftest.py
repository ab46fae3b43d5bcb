"""Fixtures for the tests of fused kernels."""

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
    for name in ("render", "resample_volume", "group_norm_silu", "conv_epilogue", "downsample", "upsample", "concat"):
        plain = getattr(ops.reference, name)
        spy = lambda *args, name=name, plain=plain, **options: (made.append(name), plain(*args, **options))[1]  # noqa: E731
        monkeypatch.setattr(ops.reference, name, spy)
    return made
