"""SIGTERM and SIGINT at any time in a run: it saves, says so, and ends with 130."""

import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils import signal_handling

import genvs
from tests.conftest import counted
from tests.faults.launcher import begun, finished, launched, starting
from tests.ranks import on_ranks
from tests.small_training import BATCH, CPU, last_state, opened, records, resume, small_run, train, unequal
from torch_utils import distributed
from training import reporting, signals, training_loop
from training.data import load_batches
from training.evaluation import Evaluation
from training.signals import SlowStep, StopRequest

SAVED = "signals after which the run was saved"


def saved(run_dir: Path, out: str, err: str) -> int:
    """Asserts that a run was saved, and said so once. Returns how many images it has seen."""
    nimg = last_state(run_dir)["cur_nimg"]
    assert out.count(f"Stopped at {nimg / 1000:.6g} kimg") == 1 and "Traceback" not in err
    assert [record["nimg"] for record in records(run_dir)] == list(range(BATCH, nimg + 1, BATCH)) and nimg > BATCH
    assert genvs.load_snapshot(run_dir / "network-snapshot-000000.pkl").notes == {"cur_nimg": nimg}
    return nimg


@pytest.fixture(scope="module")
def undisturbed(cars, tmp_path_factory) -> dict:
    """The last state of a run of four updates."""
    return train(small_run(cars, 4), tmp_path_factory.mktemp("undisturbed"))


def goes_on(run_dir: Path, undisturbed: dict) -> None:
    """Asserts that a run that was saved ends as the undisturbed one."""
    counted(SAVED, 1, 1)
    assert unequal(resume(run_dir, duration_kimg=undisturbed["cur_nimg"] / 1000), undisturbed) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_timeout_sends_it_to_a_process_and_its_group(cars, started, tmp_path, number):
    """Two signals at once are one request. Nobody reads the output, as when `tee` has ended."""
    run_dir = shutil.copytree(started, tmp_path / "run")
    with begun(run_dir, "--duration=1", "--workers=2") as process:
        process.stdout.close()
        process.send_signal(number)
        os.killpg(process.pid, number)
        _, err = finished(process, code=130)
    assert err.strip() == ""
    updates = saved(run_dir, (run_dir / "log.txt").read_text(), err) // BATCH + 1
    goes_on(run_dir, train(small_run(cars, updates), tmp_path / "undisturbed"))


def test_several_processes(started, tmp_path):
    run_dir = shutil.copytree(started, tmp_path / "run")
    with begun(run_dir, "--duration=1", "--workers=1", processes=2) as process:
        os.killpg(process.pid, signal.SIGTERM)
        saved(run_dir, *finished(process, code=130))
    counted(SAVED, 1, 1)


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_at_the_start_it_says_that_nothing_was_saved(started, tmp_path, number, processes):
    run_dir = shutil.copytree(started, tmp_path / "run")
    with launched(run_dir, "--duration=1", processes=processes) as process:
        starting(process)
        process.send_signal(number)
        out, err = finished(process, code=130)
    assert out.startswith("stopped before") and "Traceback" not in err


def waits_for_another_rank(rank: int) -> None:
    os.environ["WORLD_SIZE"] = "2"
    signals.stop_at_once()
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()
    distributed.init("cpu")


def test_at_the_start_it_does_not_wait_for_other_ranks(monkeypatch, capfd):
    """Which may have ended. The wait is in C, where no handler runs."""
    monkeypatch.setattr(signals, "SLOW_STEP_SECONDS", 1)
    with pytest.raises(torch.multiprocessing.ProcessExitedException) as ended:
        on_ranks(waits_for_another_rank, world_size=1)
    assert ended.value.exit_code == 130 and capfd.readouterr().out.startswith("stopped before")


PLACES = {
    "a step": (training_loop, "update_weights"),
    "an evaluation": (Evaluation, "measure"),
    "saving a state": (reporting, "save_training_state"),
    "saving a snapshot": (reporting, "save_network_snapshot"),
}


@pytest.mark.parametrize("place", PLACES)
def test_in_the_middle_of(cars, tmp_path, undisturbed, place, monkeypatch):
    """The signal arrives while the main thread is at this place. Resumed, the run is the undisturbed one."""
    owner, attribute = PLACES[place]
    call, calls = getattr(owner, attribute), []

    def interrupted(*args, **options):
        calls.append(0)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return call(*args, **options)

    config = small_run(cars, 50, snapshot_ticks=1, state_ticks=1)
    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, interrupted)
        state = train(config, tmp_path / "run", held_out=place == "an evaluation")
    assert state["cur_nimg"] in (BATCH, 2 * BATCH)
    goes_on(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("place", [(Evaluation, "measure"), (training_loop, "accumulate_gradients")])
def test_a_signal_that_also_ends_a_child_of_the_step(cars, tmp_path, undisturbed, place, monkeypatch):
    """As a signal to the group ends the compiler that Triton has started: the run is saved as after its last update."""
    owner, attribute = place
    call, calls = getattr(owner, attribute), []

    def with_child(*args, **options):
        calls.append(0)
        if len(calls) == 2:
            with own_group_signal(signal.SIGTERM) as child:
                raise RuntimeError(f"`ptxas` failed with error code {child.wait()}")
        return call(*args, **options)

    config = small_run(cars, 50, snapshot_ticks=1, state_ticks=100)
    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, with_child)
        state = train(config, tmp_path / "run", held_out=owner is Evaluation)
    assert 0 < state["cur_nimg"] < config.total_nimg
    goes_on(tmp_path / "run", undisturbed)


def a_step_of_minutes(rank: int, cars: str, folder: Path) -> None:
    """The third step waits in C without end, as if it computed, and no handler of Python's runs."""
    accumulate, calls, mutex = training_loop.accumulate_gradients, [], ctypes.create_string_buffer(64)

    def slow(*args, **options) -> None:
        accumulate(*args, **options)
        calls.append(0)
        if len(calls) == 3:
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(mutex)

    training_loop.accumulate_gradients = slow
    train(small_run(cars, 50), folder)


def test_a_step_that_takes_minutes_is_not_waited_for(cars, tmp_path, undisturbed):
    with pytest.raises(torch.multiprocessing.ProcessExitedException) as ended:
        on_ranks(a_step_of_minutes, cars, tmp_path / "run", world_size=1)
    assert ended.value.exit_code == 130 and last_state(tmp_path / "run")["cur_nimg"] == 2 * BATCH
    goes_on(tmp_path / "run", undisturbed)


@contextlib.contextmanager
def own_group_signal(number: int) -> Iterator[subprocess.Popen]:
    """Sends a signal to this process, and to a child that it ends."""
    with subprocess.Popen(["sleep", "60"]) as child:
        child.send_signal(number)
        os.kill(os.getpid(), number)
        yield child


@pytest.fixture
def stop() -> StopRequest:
    return StopRequest(CPU)


def test_the_thread_that_waits_for_signals_keeps_nothing_of_the_run():
    """At the end it may stop after the main thread, and Python aborts where another thread then frees a tensor."""
    weights = torch.zeros(1)
    kept, slow_step = weakref.ref(weights), SlowStep(CPU, weights.sum)
    slow_step.close()
    del weights
    assert kept() is None


def test_a_second_signal_some_seconds_later_ends_the_run_at_once(stop, monkeypatch):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.agreed() and stop.while_waiting(1)
    now = time.monotonic()
    monkeypatch.setattr(signals.time, "monotonic", lambda: now + StopRequest.SAME_REQUEST_SECONDS + 0.5)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_handlers_that_a_library_has_replaced_are_set_again(stop):
    """As Triton's compiler does: its handlers are gone when a second signal arrives, which kills the process."""
    assert not stop.agreed()
    for number in signals.STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    assert not stop.agreed()
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.agreed()


def test_loaders_survive_a_signal_to_the_process_group_while_they_start(cars, monkeypatch):
    """It arrives where torch has set its handler, which ends the worker."""
    set_handlers = signal_handling._set_worker_signal_handlers

    def set_handlers_and_signal() -> None:
        set_handlers()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(signal_handling, "_set_worker_signal_handlers", set_handlers_and_signal)
    config = small_run(cars, workers=2)
    with contextlib.closing(load_batches(config, opened(config), 0, CPU)) as batches:
        assert len(list(itertools.islice(batches, 4))) == 4
