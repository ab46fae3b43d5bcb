"""Files written in a thread: copies of what was given, one at a time, and no error or file lost, however it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genvs.files import load, save_atomic
from tests.conftest import ROOT
from tests.small_training import limited
from torch_utils.background_writer import BackgroundWriter


@pytest.fixture
def writer() -> Iterator[BackgroundWriter]:
    writer = BackgroundWriter()
    yield writer
    with contextlib.suppress(OSError):
        writer.close()


class Held:
    """A `save` that goes on when it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, obj, path: Path) -> None:
        self.threads.append(threading.current_thread())
        assert self.go.wait(30)
        save_atomic(obj, path)


def test_a_second_write_waits_for_the_first(writer, tmp_path):
    first, second = Held(), Held()
    second.go.set()
    writer.submit(first, [1], tmp_path / "a.pt")
    threading.Timer(0.2, first.go.set).start()
    writer.submit(second, [2], tmp_path / "b.pt")
    assert first.go.is_set() and (tmp_path / "a.pt").exists()
    writer.close()
    assert load(tmp_path / "b.pt") == [2]
    assert first.threads == second.threads != [threading.current_thread()]
    assert not first.threads[0].is_alive(), "no thread is left"


@pytest.mark.parametrize("how", ["submit", "wait", "check", "close"])
def test_a_failed_write_is_raised_by_the_next_call(writer, tmp_path, how):
    path = tmp_path / "state"
    path.write_text("old")
    with limited(100_000), pytest.raises(OSError, match=r"could not be saved: File too large: '.*/state'$"):
        writer.submit(save_atomic, {"w": torch.zeros(100_000)}, path)
        if how == "check":
            for _ in range(3000):
                writer.check()
                threading.Event().wait(0.01)
        elif how == "submit":
            writer.submit(save_atomic, [1], tmp_path / "other")
        else:
            getattr(writer, how)()
    assert [file.name for file in tmp_path.iterdir()] == ["state"] and path.read_text() == "old"
    writer.wait()  # an error is raised once


def test_an_interrupt_while_waiting_does_not_lose_an_error(writer, tmp_path, monkeypatch):
    go = threading.Event()

    def fail_when_let_go() -> None:
        assert go.wait(30)
        raise OSError("of the write")

    writer.submit(fail_when_let_go)
    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.wait", lambda futures: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            writer.wait()
    go.set()
    with pytest.raises(OSError, match="of the write"):
        writer.close()


PROGRAM = """
import sys, time, torch
from genvs.files import save_atomic
from torch_utils.background_writer import BackgroundWriter

def slowly(obj, path):
    time.sleep(0.2)
    save_atomic(obj, path)
BackgroundWriter().submit(slowly, {"w": torch.ones(50_000)}, sys.argv[1])
raise SystemExit(3)
"""


def test_a_process_that_ends_during_a_write_leaves_the_whole_new_file(tmp_path):
    path = tmp_path / "training-state-000001.pt"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300).returncode == 3
    assert torch.equal(load(path)["w"], torch.ones(50_000))
