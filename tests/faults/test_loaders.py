"""Loader processes that lose a batch, hang, are killed, or have no shared memory."""

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from genvs import machine
from genvs.errors import InputError
from tests.conftest import ROOT
from tests.faults.launcher import PATIENCE, begun, children, finished, lives
from tests.small_training import records
from training import loaders
from training.loaders import batches_of, worker_start


class Numbers(Dataset):
    """Each item is its index, except item `bad`."""

    def __init__(self, bad: object = None) -> None:
        self.bad = bad

    def __getitem__(self, number: int) -> object:
        return self.bad if self.bad and number == 3 else torch.tensor([number])


class Lost:
    """An item that cannot be sent: the thread that sends it prints why, and the item never comes."""

    def __reduce__(self):
        raise OSError("no space left")


def loader(dataset: Dataset, workers: int = 2, **options) -> DataLoader:
    init = options.pop("worker_init_fn", worker_start(workers, 8))
    options |= {"batch_size": None, "sampler": itertools.count(), "num_workers": workers, "timeout": 1}
    return DataLoader(dataset, worker_init_fn=init, **options)


def test_a_batch_that_never_comes_ends_the_run_naming_the_loader(monkeypatch, capfd):
    batches = batches_of(loader(Numbers(Lost())), lambda seconds: False)
    assert [int(next(batches)) for _ in range(3)] == [0, 1, 2]
    monkeypatch.setattr(loaders, "PATIENCE", 4)
    with pytest.raises(InputError, match="^loader 1 of 2 has sent no batch for 4 seconds .*/dev/shm"):
        next(batches)
    assert "no space left" in capfd.readouterr().err


def test_the_run_can_be_stopped_while_it_waits(capfd):
    got, waited = [], []
    for batch in batches_of(loader(Numbers(Lost())), lambda seconds: waited.append(seconds) or len(got) == 3):
        got.append(int(batch))
    assert got == [0, 1, 2] and waited[-1] == 1
    capfd.readouterr()


class Hangs(Dataset):
    """Items that never come, as from a disk that does not answer."""

    def __getitem__(self, number: int) -> object:
        time.sleep(600)


def test_loaders_that_hang_do_not_keep_a_run_from_ending():
    start = time.monotonic()
    assert list(batches_of(loader(Hangs(), workers=4), lambda seconds: True)) == []
    assert time.monotonic() - start < 15, "torch would wait for 5 seconds for each"
    assert not multiprocessing.active_children()


def test_a_killed_loader_ends_the_run_at_once(started, tmp_path):
    with begun(shutil.copytree(started, tmp_path / "run"), "--duration=1", "--workers=2") as process:
        victim = children(process)[-1]
        os.kill(victim, signal.SIGKILL)
        _, err = finished(process, code=1)
    assert f"(pid {victim}) is killed" in err.replace("(pid(s) ", "(pid ")


def test_batches_come_through_shared_memory_where_it_has_room(monkeypatch, tmp_path):
    assert worker_start(2, 1000) is loaders.detach_worker
    free = machine.free_shared_memory()
    for small in (worker_start(2, free // 6), worker_start(0, free)):
        with contextlib.closing(batches_of(loader(Numbers(), worker_init_fn=small), lambda seconds: False)) as batches:
            got = list(itertools.islice(batches, 8))
        assert [int(batch) for batch in got] == list(range(8))
        assert not any(batch.is_shared() for batch in got)
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert worker_start(2, 1) is not loaders.detach_worker


def own_mounts() -> list[str]:
    """A command prefix that gives the command separate mounts; skips the test where that is not allowed."""
    for command in (["unshare", "-m"], ["unshare", "-rm"]):
        if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    pytest.skip("needs unshare -m")


def test_training_in_a_container_with_hardly_any_shared_memory(started, tmp_path):
    """64 kB would not hold two batches; training runs, and one signal ends it after a save."""
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
    run_dir = shutil.copytree(started, tmp_path / "run")
    prefix = [*own_mounts(), "sh", "-c", mount, "sh"]
    with begun(run_dir, "--duration=1", "--workers=2", prefix=prefix) as process:
        process.terminate()
        finished(process, code=130)
    assert len(records(run_dir)) >= 2 and len(list(run_dir.glob("training-state-*.pt"))) == 2


KILLED_RUN = """
import itertools, multiprocessing, os, signal, time, torch
from torch.utils.data import DataLoader
from training import loaders
start = loaders._without_shared_memory
loader = DataLoader(torch.zeros(100, 1 << 20), None, num_workers=2, timeout=1, worker_init_fn=start)
batches = loaders.batches_of(loader, lambda seconds: False)
next(batches)
time.sleep(1)  # the loaders fill their pipes
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_loaders_end_with_a_killed_run():
    """Also while they wait for a batch to be read, which nobody will do any more."""
    run = subprocess.run([sys.executable, "-c", KILLED_RUN], cwd=ROOT, capture_output=True, text=True)
    workers, deadline = run.stdout.split(), time.monotonic() + PATIENCE
    assert len(workers) == 2, run.stderr
    while any(map(lives, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
