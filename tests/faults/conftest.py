"""What the tests of faults share."""

from pathlib import Path

import pytest

from tests.faults.launcher import at_start
from tests.small_training import kimg, small_run
from tests.unit.srn_folder import write_scene


@pytest.fixture(scope="session")
def every_fault(request) -> bool:
    """Whether --all was given."""
    return request.config.getoption("--all")


@pytest.fixture
def scene(tmp_path) -> Path:
    """A good scene with the views 1 to 4. Tests spoil it."""
    return write_scene(tmp_path / "cars_train" / "car1", num_views=4)


@pytest.fixture(scope="session")
def started(cars, tmp_path_factory) -> Path:
    """A run at its start, in its folder; to be copied."""
    return at_start(small_run(cars, 3, kimg_per_tick=kimg(1)), tmp_path_factory.mktemp("started"))
