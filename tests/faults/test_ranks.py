"""Several processes: resumed exactly, started alike; and one of them fails, stalls, drifts, or has bad numbers."""

import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from genvs import files
from genvs.data.scenes import SceneDataset
from genvs.errors import InputError
from tests.conftest import counted
from tests.faults.launcher import (
    LOOPBACK,
    PATIENCE,
    begun,
    children,
    completed,
    finished,
    listening,
    lives,
    stalled,
    wait_for,
)
from tests.ranks import on_ranks
from tests.small_training import BATCH, kimg, last_state, opened, records, resume, small_run, train, unequal
from torch_utils import distributed
from training import signals, training_loop
from training.config import TrainConfig
from training.data import check_ranks_agree
from training.loss import GeNVSLoss


def kill_one(process: subprocess.Popen, number: int) -> list[int]:
    """Kill one of the launcher's processes. Returns them all."""
    ranks = children(process)
    os.kill(ranks[number % 2], signal.SIGKILL)
    return ranks


def test_a_run_is_restarted_and_loses_no_update_until_it_may_not_be_restarted_again(started, tmp_path, every_fault):
    """Then all processes end soon: without the launcher's patience, which is ten minutes."""
    restarts = 10 if every_fault else 1
    run_dir = shutil.copytree(started, tmp_path / "run")
    with begun(run_dir, "--duration=1", "--dump=1", processes=2, PET_MAX_RESTARTS=str(restarts)) as process:
        for number in range(restarts):
            before = kill_one(process, number)
            wait_for(process, lambda before=before: len({*children(process)} - {*before}) == len(before))
            seen = len(records(run_dir))
            wait_for(process, lambda seen=seen: len(records(run_dir)) > seen)
            assert listening(process) == {LOOPBACK}, "others cannot connect to a run on one machine"
        ranks = kill_one(process, restarts)
        finished(process, code=137)
    assert not any(map(lives, ranks))
    nimgs = [record["nimg"] for record in records(run_dir)]
    assert nimgs == list(range(BATCH, nimgs[-1] + 1, BATCH)) and last_state(run_dir)["cur_nimg"] > BATCH
    counted("restarts after a killed rank that went on", restarts, restarts)


def test_a_bad_file_that_one_rank_meets_ends_all_and_is_named_once(started, cars, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(cars.parent, data)
    for image in (data / "cars_train").glob("00000[1-9]/rgb/*.png"):  # not of the first scene, which is checked
        image.write_bytes(image.read_bytes()[:-50])
    run_dir = shutil.copytree(started, tmp_path / "run")
    options = ["--duration=1", f"--data={data / 'cars'}", "--cache=false"]
    out, err = completed(run_dir, *options, code=2, processes=2)
    assert "Done" not in out
    assert [line for line in err.splitlines() if line.startswith("Error: ")], err
    assert all("cannot be decoded" in line for line in err.splitlines() if line.startswith("Error: ")), err
    assert "Traceback" not in err, err


# In ranks that the test starts


def stop_and_resume(rank: int, config: TrainConfig, folder: Path, steps: range) -> None:
    """A run in two rounds that is stopped after each of these steps, and one that is not, end equal."""
    whole = train(config, folder / "whole")
    for step in steps:
        run_dir = folder / f"stopped-{step}"
        train(dataclasses.replace(config, duration_kimg=step * config.batch_size / 1000), run_dir)
        end = resume(run_dir, duration_kimg=config.duration_kimg)
        assert unequal(end, whole) == [], f"stopped after {step}"


def started_alike(rank: int, config: TrainConfig) -> None:
    facts = opened(config).facts()
    own = {"data": f"{config.data}{rank}", "workers": rank}  # where the data lie may differ
    check_ranks_agree(dataclasses.replace(config, **own), facts, 0)
    faster = dataclasses.replace(config, lr=1 / (1 + rank))
    others = {"lr 1.0 -> 0.5": (faster, facts, 0), "far 0 -> 1": (config, {"far": rank}, 0)}
    for name, arguments in (others | {"images seen 0 -> 1": (config, facts, rank)}).items():
        with pytest.raises(InputError, match=f"^process 1 differs from process 0 .{name}."):
            check_ranks_agree(*arguments)


def on_three_ranks(rank: int, data: str, folder: Path, updates: int) -> None:
    distributed.init("cpu")
    small = {"batch_size": 6, "batch_gpu": 1, "num_targets": 1}
    config = small_run(data, **small, duration_kimg=updates * 6 / 1000)
    stop_and_resume(rank, config, folder, range(1, updates))
    started_alike(rank, config)
    distributed.shutdown()


def test_three_ranks(cars, tmp_path, every_fault):
    updates = 21 if every_fault else 3
    on_ranks(on_three_ranks, str(cars), tmp_path, updates, world_size=3)
    counted("resumes of three ranks equal bit for bit", updates - 1, updates - 1)


def one_is_asked_to_stop(rank: int, config: TrainConfig, folder: Path) -> None:
    """By a signal to rank 1 alone: both stop after the same update, and the run is saved."""
    step = training_loop.update_weights

    def step_and_stop(state, *args) -> None:
        step(state, *args)
        if rank == 1 and state.cur_nimg == BATCH:
            os.kill(os.getpid(), signal.SIGTERM)

    training_loop.update_weights = step_and_stop
    try:
        state = train(small_run(config.data, 100), folder / "asked")
    finally:
        training_loop.update_weights = step
    assert distributed.gather_objects(state["cur_nimg"]) == [state["cur_nimg"]] * 2
    assert BATCH < state["cur_nimg"] < 10 * BATCH


def slow_save(rank: int, config: TrainConfig, folder: Path) -> None:
    """Rank 0 writes for longer than a collective may take, and training goes on."""
    save, step = files.save_atomic, training_loop.update_weights

    def slow(content, path) -> None:
        time.sleep(7 if content.get("cur_nimg") == 4 else 0)
        save(content, path)

    def slower_step(*args) -> None:
        time.sleep(0.5)
        step(*args)

    files.save_atomic, training_loop.update_weights = slow, slower_step
    try:
        train(small_run(config.data, 16, kimg_per_tick=kimg(1), state_ticks=1000, snapshot_ticks=1000), folder / "slow")
    finally:
        files.save_atomic, training_loop.update_weights = save, step


def bad_numbers(rank: int, config: TrainConfig, folder: Path) -> None:
    """Where a loss on rank 1 is not finite, both ranks skip the update, and weights stay finite."""
    call, factors = GeNVSLoss.__call__, iter([1.0, math.nan, math.inf, 1.0, 1.0])

    def spoilt(loss_fn: GeNVSLoss, net, batch):
        terms = call(loss_fn, net, batch)
        return dataclasses.replace(terms, total=terms.total * (next(factors) if rank == 1 else 1.0))

    GeNVSLoss.__call__ = spoilt  # type: ignore[method-assign]
    try:
        state = train(small_run(config.data, 5), folder / "bad")
    finally:
        GeNVSLoss.__call__ = call  # type: ignore[method-assign]
    assert state["skipped"] == 2 and state["cur_nimg"] == 20
    assert all(tensor.isfinite().all() for part in ("net", "ema") for tensor in state[part].values())


def drift(rank: int, config: TrainConfig, folder: Path) -> None:
    """The last bit of a tensor's weights on rank 1 is found before the next state is saved.

    Of one weight only, the update between may round it away.
    """
    step = training_loop.update_weights

    def drifting(state, *args) -> None:
        step(state, *args)
        if rank == 1 and state.cur_nimg == 4:
            weight = next(state.net.parameters()).data
            weight.copy_(torch.nextafter(weight, torch.tensor(9.0)))

    training_loop.update_weights = drifting
    try:
        with pytest.raises(RuntimeError, match="not the same on all ranks"):
            train(small_run(config.data, 9, kimg_per_tick=kimg(1), state_ticks=3), folder / "drift")
    finally:
        training_loop.update_weights = step
    distributed.barrier()
    assert not list((folder / "drift").glob("*.pt")), "nothing is saved"


def on_two_ranks(rank: int, data: str, folder: Path) -> None:
    distributed.init("cpu", timeout=distributed.timedelta(seconds=60))
    for part in (one_is_asked_to_stop, bad_numbers, drift):
        part(rank, small_run(data), folder)
    distributed.shutdown()


def test_two_ranks(cars, tmp_path):
    on_ranks(on_two_ranks, str(cars), tmp_path)


def data_that_hang(rank: int, data: str, folder: Path) -> None:
    """Rank 1 gets no third batch. Rank 0 waits for its gradients."""
    distributed.init("cpu")
    torch.multiprocessing.set_start_method("fork", force=True)  # the loader is to have `hang` too
    read, step, calls = SceneDataset.__getitem__, training_loop.update_weights, []

    def hang(dataset, requests):
        calls.append(0)
        time.sleep(600 if rank == 1 and len(calls) == 3 else 0)
        return read(dataset, requests)

    def step_and_stop(state, *args) -> None:
        step(state, *args)
        if state.cur_nimg == BATCH:
            os.kill(os.getpid(), signal.SIGINT)

    signals.ALONE_SECONDS, SceneDataset.__getitem__, training_loop.update_weights = 5, hang, step_and_stop
    with pytest.raises(KeyboardInterrupt):
        train(small_run(data, 100, workers=1), folder)
    os._exit(0)  # without the collectives of an orderly end


def test_ranks_can_be_stopped_while_one_of_them_waits_for_data(cars, tmp_path, capfd):
    on_ranks(data_that_hang, str(cars), tmp_path)
    assert last_state(tmp_path)["cur_nimg"] == 2 * BATCH
    assert capfd.readouterr().out.count("Stopped at") == 2, "each rank saves the state, which is the same"


def with_little_patience(rank: int, data: str, folder: Path) -> None:
    distributed.init("cpu", timeout=distributed.timedelta(seconds=6))
    slow_save(rank, small_run(data), folder)
    distributed.shutdown()


def test_a_slow_save_ends_no_rank(cars, tmp_path):
    train(small_run(cars, 1), tmp_path / "warm")  # the first update takes seconds, which each rank would need anew
    on_ranks(with_little_patience, str(cars), tmp_path)
    assert last_state(tmp_path / "slow")["cur_nimg"] == 64


def test_a_stalled_rank_ends_the_run_after_the_time_limit(started, tmp_path):
    """Without the launcher's patience, which is ten minutes."""
    stalled(shutil.copytree(started, tmp_path / "run"), CUDA_VISIBLE_DEVICES="")


def stalls_beside_a_watch(rank: int, error: Path) -> None:
    distributed.init("cpu")
    with open(error, "a") as sys.stderr:
        watch = distributed.StallWatch(3.0)
        for _ in range(8):  # longer than the watch waits
            time.sleep(0.5)
            watch.moved_on()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        distributed.barrier()


def test_a_watch_names_the_rank_that_stalls_where_collectives_do_not(tmp_path):
    """As with NCCL, whose limit is longer."""
    context = on_ranks(stalls_beside_a_watch, tmp_path / "error", join=False)
    for process in context.processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in context.processes] == [1, -signal.SIGKILL]
    assert (tmp_path / "error").read_text() == (
        "Error: rank 1 of 2 does not answer (no step was made for 3 s): see what ended or stalled there\n"
    )


def one_ends_and_one_saves(rank: int, saved: Path) -> None:
    distributed.init("cpu")
    if rank == 0:
        with distributed.silent_ranks_named(0.5):
            distributed.barrier()
    if rank == 1:
        time.sleep(2)
        saved.touch()
    os._exit(0)


def test_a_rank_that_saves_because_another_has_ended_is_not_killed(tmp_path, capfd):
    context = on_ranks(one_ends_and_one_saves, tmp_path / "saved", world_size=3, join=False)
    for process in context.processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in context.processes] == [1, 0, 0] and (tmp_path / "saved").exists()
    assert re.match(r"Error: ranks 1, 2 of 3 do not answer \(.*Connection (closed|reset) by", capfd.readouterr().err)
