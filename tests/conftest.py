"""Fixtures and rules for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from genvs.data.synthetic.dataset import ensure_dataset

ROOT = Path(__file__).parents[1]
_without_gpu: list[str] = []
_counts: dict[str, tuple[int, int]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="every kill, stop and mutation of tests/faults (30 minutes)")


def counted(what: str, good: int, tried: int) -> None:
    """Adds to the counts that are printed at the end."""
    before = _counts.get(what, (0, 0))
    _counts[what] = before[0] + good, before[1] + tried


def pytest_configure() -> None:
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # counts only before the first import of Triton
    torch.set_num_threads(1)  # tensors this small are slower on several, and other processes want the cores too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips and counts tests marked `gpu` if there is no GPU."""
    # A shell that starts the tests in the background makes them ignore Ctrl-C, and scripts that they import end at it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
            _without_gpu.append(item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _without_gpu:
        terminalreporter.write_line(f"{len(_without_gpu)} tests need a GPU and were skipped: there is no CUDA device.")
    for what, (good, tried) in _counts.items():
        terminalreporter.write_line(f"{what}: {good} of {tried}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and reference values beside the project; tests that need it are skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the shared data is not there: {folder}")
    return folder


@pytest.fixture(scope="session")
def cars(tmp_path_factory) -> Path:
    """The embedded dataset, small: 12 training and 3 held-out cars of 6 views at 32 pixels."""
    path = tmp_path_factory.mktemp("datasets") / "cars"
    ensure_dataset(path, scenes=12, views=6, resolution=32, val_scenes=3, workers=2)
    return path
