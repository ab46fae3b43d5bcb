"""Fixtures and rules for all tests."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from genvs.data.synthetic.dataset import ensure_dataset
from genvs.machine import LAUNCH_VARIABLES, usable_cores

ROOT = Path(__file__).parents[1]
NO_GPU = "there is no CUDA device"
_counts: list[tuple[str, tuple[int, int]]] = []  # of the test that runs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="every kill, stop and mutation, and the browser (10 minutes)")


def counted(what: str, good: int, tried: int) -> None:
    """Adds to the counts that are printed at the end."""
    _counts.append((what, (good, tried)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> None:
    """Puts the counts in the test's report, by which they reach the process that prints them."""
    item.user_properties = list(_counts)
    _counts.clear()


def pytest_configure() -> None:
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # counts only before the first import of Triton
    # Tensors this small are slower on several threads, and other processes want the cores too.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start
    for name in (*LAUNCH_VARIABLES, "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        os.environ.pop(name, None)  # left over from a launcher
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1")  # the servers that tests ask are their own


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Processes of `pytest -n auto`, as test.sh has it: one if there is a GPU, whose memory and time tests measure.

    Else one more than there are cores, because tests of whole runs often wait.
    """
    return 1 if torch.cuda.is_available() else min(8, usable_cores() + 1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Gives every test the same start, whichever tests came before.

    Python's own handlers of signals: a run, an import or the shell may have left others. And the same random numbers.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests marked `gpu` if there is no GPU."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    good, tried = Counter[str](), Counter[str]()
    without_gpu = 0
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        without_gpu += report in terminalreporter.stats.get("skipped", []) and NO_GPU in str(report.longrepr)
        for what, (more, tries) in getattr(report, "user_properties", []):
            good[what] += more
            tried[what] += tries
    if without_gpu:
        terminalreporter.write_line(f"{without_gpu} tests need a GPU and were skipped: {NO_GPU}.")
    for what in sorted(tried):
        terminalreporter.write_line(f"{what}: {good[what]} of {tried[what]}")


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
