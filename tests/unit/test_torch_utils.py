"""torch_utils: ranks and statistics; alone and as two processes on gloo."""

import contextlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.browser import wait_until
from tests.conftest import ROOT
from tests.faults.launcher import PATIENCE
from tests.ranks import on_ranks
from torch_utils import distributed
from training.monitor import Monitor

CPU = torch.device("cpu")


# --- one process that nothing launched


def test_unlaunched_is_one_rank(monkeypatch, capsys) -> None:
    assert distributed.init("cpu") == CPU
    assert not distributed.is_initialized()
    assert (distributed.get_rank(), distributed.get_local_rank(), distributed.get_world_size()) == (0, 0, 1)
    distributed.barrier()
    any_rank = distributed.AnyRank(CPU)
    assert [any_rank(flag) for flag in (True, True, False, False)] == [False, True, True, False], "one call later"
    distributed.print0("hello", "there", sep=", ")
    assert capsys.readouterr().out == "hello, there\n"
    distributed.shutdown()
    monkeypatch.setattr(os, "environ", {})
    distributed.announce(8)
    assert (distributed.get_rank(), distributed.get_world_size()) == (0, 8), "a dry run knows their number"


# --- two processes


def on_two_ranks(rank: int) -> None:
    """Runs in each of two processes; a failed assertion fails the test."""
    device = distributed.init("cpu")
    assert distributed.is_initialized()
    assert (distributed.get_rank(), distributed.get_local_rank(), distributed.get_world_size()) == (rank, rank, 2)
    distributed.barrier()
    assert distributed.gather_objects(10 * rank) == [0, 10]
    any_rank = distributed.AnyRank(device)
    flags = [(rank == 1, False), (False, True), (rank == 0, False), (True, True), (False, True)]
    assert [any_rank(flag) for flag, _ in flags] == [answer for _, answer in flags], "to the flags of the call before"

    monitor = Monitor(Path(), device, rank=1, cur_nimg=0, total=1)
    for value in (1.0, 2.0):
        monitor.report("both", value + 2 * rank)  # 1 2 | 3 4
        monitor.report("bad", float("nan") if rank == 1 else 0.0)
    monitor.report(f"only {rank}", torch.tensor(float(rank)))
    means = monitor.means()
    assert math.isnan(means.pop("bad")) and means == {"both": 2.5, "only 0": 0.0, "only 1": 1.0}
    assert monitor.means() == {}

    net = DistributedDataParallel(torch.nn.Linear(3, 1, bias=False))
    net(torch.ones(1, 3)).sum().backward()
    distributed.check_ddp_consistency(net)
    torch.manual_seed(0)
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    distributed.check_ddp_consistency(other)
    if rank == 1:
        other[1].running_mean[1] = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    with pytest.raises(RuntimeError, match=r"^1\.running_mean is not the same on all ranks"):
        distributed.check_ddp_consistency(other)
    assert gloo_threads(), "what shutdown ends"
    del net  # it holds on to the process group
    distributed.shutdown()
    assert not distributed.is_initialized()
    wait_until(lambda: not gloo_threads())  # one that is at work while Python ends would abort the process


def gloo_threads() -> list[str]:
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            names.append(path.read_text().strip())
    return [name for name in names if "gloo" in name]


def test_on_two_ranks() -> None:
    on_ranks(on_two_ranks)


# --- the launcher


PROGRAM = """
import signal, time
import click
@click.command()
@click.option("--dry-run", is_flag=True)
@click.option("--code", type=int)
def main(dry_run, code):
    if not dry_run:
        stop = []
        signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
        print("ready", flush=True)
        while not stop: time.sleep(0.01)
        raise SystemExit(code)
if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("code", [0, 130])
def test_a_terminated_launch_ends_as_its_program_does(tmp_path, code: int) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [tmp_path / "program.py", f"--code={code}"]
    command = [sys.executable, "torch_utils/launch.py", "--nproc-per-node=1", *program]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(PATIENCE) == code
