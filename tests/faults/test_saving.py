"""Training states and snapshots that are written while training goes on: what a run does about them, and at its end."""

import contextlib
import functools
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from genvs import files
from genvs.errors import InputError
from tests.conftest import counted
from tests.small_training import (
    BATCH,
    CPU,
    fresh_state,
    kimg,
    last_state,
    records,
    reporter_of,
    small_run,
    train,
    unequal,
)
from training.config import TrainConfig
from training.monitor import Monitor
from training.reporting import Reporter
from training.signals import StopRequest
from training.state import MAX_SKIPPED_IN_A_ROW, TrainState, load_training_state, restore

Before = Callable[[dict, Path], None]


@pytest.fixture
def before_saving(monkeypatch) -> Callable[[Before], None]:
    """Has a function called in the writing thread before each file of tensors."""
    save_atomic = files.save_atomic

    def install(function: Before) -> None:
        def save(obj, path) -> None:
            function(obj, Path(path))
            save_atomic(obj, path)

        monkeypatch.setattr(files, "save_atomic", save)

    return install


def saving_run(cars: Path, updates: int, **changes) -> TrainConfig:
    """Records every update, and saves a state every second one."""
    return small_run(cars, updates, **{"kimg_per_tick": kimg(2), "state_ticks": 1, **changes})


def test_training_goes_on_while_a_state_is_written_and_the_state_is_of_its_time(cars, tmp_path, before_saving):
    contents: list[dict] = []

    def first_two_more_updates(content: dict, path: Path) -> None:
        deadline = time.monotonic() + 60
        while len(records(path.parent)) < 4 and not contents:
            assert time.monotonic() < deadline, "training waits for the write"
            time.sleep(0.01)
        if path.suffix == ".pt":
            contents.append(content)

    before_saving(first_two_more_updates)
    # The next state, due after these two updates, waits for the first; the last one, at the end, for the second.
    train(saving_run(cars, 6), tmp_path / "slow")
    assert [content["cur_nimg"] for content in contents] == [2 * BATCH, 4 * BATCH, 6 * BATCH]
    assert any("Timing/save_pause_sec" in record for record in records(tmp_path / "slow"))
    assert unequal(contents[0], train(small_run(cars, 2), tmp_path / "two updates")) == []


@pytest.fixture
def after_step(monkeypatch) -> Callable[[Callable[[TrainState], None]], None]:
    """Has a function called with the state at the end of each step."""
    step = Reporter.step

    def install(function: Callable[[TrainState], None]) -> None:
        def step_and_call(reporter: Reporter) -> None:
            step(reporter)
            function(reporter.state)

        monkeypatch.setattr(Reporter, "step", step_and_call)

    return install


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_record_that_cannot_be_written_ends_the_run_with_one_line(tmp_path):
    with contextlib.closing(Monitor(tmp_path, CPU, rank=0, cur_nimg=0, total=9)) as monitor:
        monitor.stats_file.close()
        monitor.stats_file = open("/dev/full", "w", buffering=1)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'$"):
            monitor.record(8)


def test_a_run_is_not_done_before_its_last_file_is_written(cars, tmp_path, before_saving):
    def fail(content: dict, path: Path) -> None:
        if path.suffix == ".pkl":
            time.sleep(0.2)
            raise OSError("the snapshot could not be saved")

    before_saving(fail)
    with pytest.raises(OSError, match="the snapshot could not be saved"):
        train(small_run(cars, 1), tmp_path)


# However a run ends


def test_an_interrupt_during_a_write_loses_nothing(cars, tmp_path, before_saving, monkeypatch):
    monkeypatch.setattr(StopRequest, "SAME_REQUEST_SECONDS", 3600.0)
    written = []

    def interrupt(content: dict, path: Path) -> None:
        while not written and len(records(path.parent)) < 3:
            time.sleep(0.01)  # until training has gone on
        os.kill(os.getpid(), signal.SIGINT)  # also while the last state is written: the same request, again
        time.sleep(0.2)
        written.append(content.get("cur_nimg") or content["notes"]["cur_nimg"])

    before_saving(interrupt)
    state = train(saving_run(cars, 1000), tmp_path)
    last = state["cur_nimg"]
    assert written == [2 * BATCH, last, last] and last < 1000 * BATCH, "two states, and a snapshot at the end"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_a_step_waits_for_the_write(cars, tmp_path, before_saving, after_step, error):
    before_saving(lambda content, path: time.sleep(0.3))

    def fail(state: TrainState) -> None:
        if state.cur_nimg == 2 * BATCH:
            raise error("of the step")

    after_step(fail)
    with pytest.raises(error, match="of the step"):
        train(saving_run(cars, 5), tmp_path)
    assert last_state(tmp_path)["cur_nimg"] == 2 * BATCH


# What is saved, and what of it is taken back


def put(content: dict, path: str, value) -> dict:
    """`content` with another value, or without one (None), at a path with slashes."""
    name, _, rest = path.partition("/")
    key = int(name) if name.isdecimal() else name
    changed = {**content, key: put(content[key], rest, value) if rest else value}
    return {name: part for name, part in changed.items() if part is not None}


MOMENT = "optimizer/state/0/exp_avg"
DAMAGES = [
    *[(f"cur_nimg={value}", "cur_nimg", value) for value in (None, "8", -8, 7, True)],
    *[(f"scale={value}", "scale", value) for value in (None, math.nan, 0.0, math.inf, 1)],
    *[(name, name, value) for name, value in (("skipped", -1), ("skipped_in_a_row", 0.5), ("scale_updates", None))],
    *[(name, name, None) for name in ("config", "data", "net", "ema", "optimizer")],
    ("config of another type", "config", {"net": 1}),
    ("no moments", "optimizer/state", {}),
    ("a moment of another shape", MOMENT, torch.zeros(3)),
    ("a moment that is not finite", f"{MOMENT}_sq", math.inf),
    ("a step without a number", "optimizer/state/0/step", math.nan),
    *[(f"{part}: {value}", f"{part}/*", value) for part in ("net", "ema") for value in (None, math.nan, "text")],
]


@pytest.mark.parametrize(("path", "value"), [each[1:] for each in DAMAGES], ids=[each[0] for each in DAMAGES])
def test_a_damaged_state_is_refused_by_name_and_changes_nothing(trained, tmp_path, path, value):
    content, state = trained
    part, _, name = path.partition("/")
    if name == "*":
        path = f"{part}/{max(content[part])}"
    if isinstance(value, float) and "/" in path:
        like = functools.reduce(lambda tree, key: tree[int(key) if key.isdecimal() else key], path.split("/"), content)
        value = torch.full_like(like, value)
    file = tmp_path / "training-state-000000.pt"
    files.save_atomic(put(content, path, value), file)
    before = [tensor.clone() for tensor in state.net.state_dict().values()]
    with pytest.raises(InputError) as caught:
        restore(state, load_training_state(file), file)
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)
    counted("damaged training states refused by name", 1, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, state.net.state_dict().values(), strict=True))
    assert state.cur_nimg == 0 and not any(moment["exp_avg"].any() for moment in state.optimizer.moments)


@pytest.fixture(scope="module")
def trained(cars, tmp_path_factory) -> tuple[dict, TrainState]:
    """The training state of a run, as it was saved, and a fresh one that could take it."""
    config = small_run(cars, 2, optimizer="adam")
    return train(config, tmp_path_factory.mktemp("trained")), fresh_state(config)


def test_a_fault_of_the_device_is_not_taken_for_a_damaged_state(cars, trained, tmp_path, monkeypatch):
    state = fresh_state(small_run(cars, optimizer="adam"))
    monkeypatch.setattr(state.ema, "load_state_dict", Mock(side_effect=RuntimeError("CUDA error")))
    with pytest.raises(RuntimeError, match="CUDA error"):
        restore(state, trained[0], tmp_path)


@pytest.mark.parametrize("interrupted", [True, False])
@pytest.mark.parametrize("fault", ["updates in a row", "without bound"])
def test_nothing_is_saved_of_a_run_that_has_gone_wrong_since_the_last_record(cars, tmp_path, interrupted, fault):
    config = small_run(cars)
    state = fresh_state(config)
    if fault == "updates in a row":
        for _ in range(MAX_SKIPPED_IN_A_ROW):
            state.count_update(torch.tensor(True))
    else:
        net = state.net if interrupted else state.ema
        next(net.parameters()).data.fill_(1e30)
    with reporter_of(config, state, tmp_path) as reporter, pytest.raises(FloatingPointError, match=fault):
        reporter.finish(interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["stats.jsonl"]
