"""Fixtures of the tests of data."""

from pathlib import Path

import pytest

from tests.unit.srn_folder import write_scene


@pytest.fixture
def scene(tmp_path) -> Path:
    """A good scene with the views 1 to 4. Tests spoil it."""
    return write_scene(tmp_path / "cars_train" / "car1", num_views=4)
