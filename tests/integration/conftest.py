"""What the integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from genvs.data.synthetic.dataset import ensure_dataset


@pytest.fixture(scope="session")
def cars(tmp_path_factory) -> Path:
    """The embedded dataset, small: 12 training and 3 held-out cars of 6 views at 32 pixels."""
    path = tmp_path_factory.mktemp("datasets") / "cars"
    ensure_dataset(path, scenes=12, views=6, resolution=32, val_scenes=3, workers=2)
    return path
