"""Packs and processes: one makes a pack for all, and one that is stopped leaves nothing that would be trusted."""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from genvs.data.stored import StoredScenes
from genvs.data.workers import run_in_workers
from tests.faults.launcher import PATIENCE, separate, wait_for
from tests.ranks import on_ranks
from tests.small_training import small_run
from tests.unit.packed_folder import (
    equal_scenes,
    forbid_packing,
    opened,
    pack_of,
    packed_scenes,
    unfinished,
    visible,
    write_uneven_split,
)
from tests.unit.srn_folder import refused, write_split
from torch_utils import distributed
from training.data import open_data, pack_data


@pytest.fixture
def split(tmp_path) -> Path:
    return write_uneven_split(tmp_path / "cars_train")


# --- several processes ------------------------------------------------------------------------------------------------


def make_for_race(split: Path, decoded) -> None:
    load = StoredScenes.load

    def counting(self, scene: int, *views):
        with decoded.get_lock():
            decoded.value += 1
        time.sleep(0.1)
        return load(self, scene, *views)

    StoredScenes.load = counting
    dataset = packed_scenes(split)
    StoredScenes.load = load
    assert equal_scenes(dataset, opened(split))


@pytest.mark.filterwarnings("default:.*waiting until it has finished")
def test_of_several_processes_at_once_one_makes_it(split):
    context = multiprocessing.get_context("fork")
    decoded = context.Value("i", 0)
    racers = [context.Process(target=make_for_race, args=(split, decoded)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(PATIENCE)
    assert [racer.exitcode for racer in racers] == [0, 0, 0] and decoded.value == 3
    assert visible(split.parent) == ["cars_train", "cars_train.32px.pack"] and not unfinished(split)


def on_two_ranks(rank: int, good: Path, bad: Path, unwritable: Path) -> None:
    """Runs in each of two processes; a failed assertion fails the test."""
    distributed.init("cpu")
    if rank == 1:
        StoredScenes.make_packs = None  # only the first process looks at all files
    data = open_data(small_run(good))
    pack_data(data)
    line = refused("car2/rgb/3.png", lambda: pack_data(open_data(small_run(bad))))
    assert "cannot be decoded" in line
    files = open_data(small_run(unwritable))
    pack_data(files)
    distributed.shutdown()
    shutil.rmtree(good, ignore_errors=True)
    assert equal_scenes(data.train, files.train)


def test_one_rank_makes_it_for_all(tmp_path):
    good, bad, unwritable = (write_split(tmp_path / name / "cars_train") for name in "abc")
    path = bad / "car2" / "rgb" / "3.png"
    path.write_bytes(path.read_bytes()[:-20])
    forbid_packing(unwritable)
    on_ranks(on_two_ranks, good, bad, unwritable)
    assert [pack_of(split).exists() for split in (good, bad, unwritable)] == [True, False, False]


# --- interrupted ------------------------------------------------------------------------------------------------------

SLOWLY = """
import sys, time
import click
from genvs.data.stored import StoredScenes
from dnnlib.command import run_command

load = StoredScenes.load
StoredScenes.load = lambda self, *places: (time.sleep(2 * (places[0] > 0)), load(self, *places))[1]

@click.command()
def main():
    StoredScenes(sys.argv[1], resolution=32).make_packs(int(sys.argv[2]))

run_command(main, [])
"""


def interrupted_packing(split: Path, number: int, workers: int, delay: float) -> tuple[int, str]:
    """Exit code and stderr of a process that was sent a signal while it packed `split`, as a terminal sends it."""
    arguments = [sys.executable, "-c", SLOWLY, str(split), str(workers)]
    with separate(arguments) as process:
        wait_for(process, lambda: unfinished(split))
        time.sleep(delay)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


@pytest.mark.parametrize(("workers", "delay"), [(0, 0.1), (2, 0.005)])
def test_interrupted_it_ends_and_leaves_nothing(split, workers, delay):
    assert interrupted_packing(split, signal.SIGINT, workers, delay) == (130, "\n")
    assert visible(split.parent) == ["cars_train"] and not unfinished(split)


def test_what_a_killed_process_leaves_is_not_trusted_and_taken_over(split):
    code, _ = interrupted_packing(split, signal.SIGKILL, 2, 0.4)
    assert code == -signal.SIGKILL
    assert visible(split.parent) == ["cars_train"] and unfinished(split)
    assert equal_scenes(packed_scenes(split), opened(split))
    assert visible(split.parent) == ["cars_train", "cars_train.32px.pack"] and not unfinished(split)


def test_interrupted_while_its_workers_start_it_leaves_none(monkeypatch):
    start = multiprocessing.Process.start

    def start_and_interrupt(process) -> None:
        start(process)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start_and_interrupt)
    with pytest.raises(KeyboardInterrupt) as interrupted:
        run_in_workers(lambda index: None, 5, 2, "Working")
    for worker in multiprocessing.active_children():  # torch ends a slow one, and does not wait for its end
        worker.join(PATIENCE)
    assert not multiprocessing.active_children(), interrupted  # which holds on to the frames
