"""Files written in a thread: copies of what was given, one at a time, and no error or file lost, however it ends."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genvs.files import save_atomic
from torch_utils.background_writer import BackgroundWriter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def files() -> Iterator[BackgroundWriter]:
    files = BackgroundWriter()
    yield files
    with contextlib.suppress(OSError):
        files.close()


class Held:
    """A `save` that goes on when it is let go."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, obj, path: Path) -> None:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.go.wait(30)
        save_atomic(obj, path)


def test_what_is_written_is_what_was_given(files, tmp_path):
    """Whatever happens to the tensors afterwards; also in containers, and with their layout."""
    weight = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    content = {"net": {"w": weight, "b": torch.zeros(2)}, "list": [torch.ones(3), (torch.ones(1), 0.9)], "name": "x"}
    before = weight.clone()
    save = Held()
    files.submit(save, content, tmp_path / "a.pt")
    assert save.begun.wait(30) and not (tmp_path / "a.pt").exists(), "the caller goes on meanwhile"
    for tensor in (weight, content["net"]["b"], content["list"][0], content["list"][1][0]):
        tensor.fill_(7)
    save.go.set()
    files.wait()
    loaded = files.load(tmp_path / "a.pt")
    assert torch.equal(loaded["net"]["w"], before) and loaded["net"]["w"].stride() == before.stride()
    assert torch.equal(loaded["net"]["b"], torch.zeros(2)) and torch.equal(loaded["list"][0], torch.ones(3))
    assert loaded["list"][1] == (torch.ones(1), 0.9) and loaded["name"] == "x"


def test_a_second_write_waits_for_the_first(files, tmp_path):
    first, second = Held(), Held()
    second.go.set()
    files.submit(first, [1], tmp_path / "a.pt")
    timer = threading.Timer(0.2, first.go.set)
    timer.start()
    files.submit(second, [2], tmp_path / "b.pt")
    assert first.go.is_set() and (tmp_path / "a.pt").exists()
    files.wait()
    assert files.load(tmp_path / "b.pt") == [2]
    assert first.threads == second.threads != [threading.current_thread()]
    timer.join()
    files.close()
    assert not first.threads[0].is_alive(), "no thread is left"


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow over 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("how", ["submit", "wait", "check", "close"])
def test_a_failed_write_is_told_by_the_next_call(files, tmp_path, full_disk, how):
    path = tmp_path / "state"
    path.write_text("old")
    files.submit(save_atomic, {"w": torch.zeros(100_000)}, path)
    with pytest.raises(OSError, match=r"could not be saved: File too large: '.*/state'$"):
        if how == "check":
            for _ in range(3000):
                files.check()
                threading.Event().wait(0.01)
        elif how == "submit":
            files.submit(save_atomic, [1], tmp_path / "other")
        else:
            getattr(files, how)()
    assert [file.name for file in tmp_path.iterdir()] == ["state"] and path.read_text() == "old"
    files.wait()  # an error is told once


def test_a_look_at_a_write_does_not_wait_for_it(files, tmp_path):
    save = Held()
    files.submit(save, [1], tmp_path / "a.pt")
    files.check()
    assert not save.go.is_set() and not (tmp_path / "a.pt").exists()
    save.go.set()
    files.wait()
    files.check()


def test_an_interrupt_while_waiting_does_not_lose_an_error(files, tmp_path, monkeypatch):
    go = threading.Event()

    def fail_when_let_go() -> None:
        assert go.wait(30)
        raise OSError("of the write")

    files.submit(fail_when_let_go)
    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.wait", lambda futures: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            files.wait()
    go.set()
    with pytest.raises(OSError, match="of the write"):
        files.close()


PROGRAM = """
import os, sys, time, torch
from genvs.files import save_atomic
from torch_utils.background_writer import BackgroundWriter

fsync, (path, seconds) = os.fsync, sys.argv[1:]
save_atomic({"w": torch.zeros(50_000)}, path)
def slow_fsync(descriptor):
    print("writing", flush=True)
    time.sleep(float(seconds))
    fsync(descriptor)
os.fsync = slow_fsync
BackgroundWriter().submit(save_atomic, {"w": torch.ones(50_000)}, path)
raise SystemExit(3)
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_process_that_ends_during_a_write_leaves_a_whole_file(tmp_path, killed):
    """The new one where the process ends by itself, the old one where it is killed."""
    path = tmp_path / "training-state-000001.pt"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), "60" if killed else "0.2"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "writing\n"
        if killed:
            process.kill()
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGKILL if killed else 3)
    assert torch.equal(files.load(path)["w"], torch.zeros(50_000) if killed else torch.ones(50_000))
    assert [file.name for file in tmp_path.glob("training-state-*.pt")] == [path.name], "no part of a file has its name"
