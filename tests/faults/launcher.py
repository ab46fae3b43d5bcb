"""Runs `train.py` in one or several separate processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from tests.small_training import fresh_state, save_state
from training.config import TrainConfig

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds


def at_start(config: TrainConfig, run_dir: Path) -> Path:
    """Make a run that has not made an update yet."""
    save_state(run_dir, config, fresh_state(config))
    return run_dir


@contextlib.contextmanager
def separate(command: Sequence, **options) -> Iterator[subprocess.Popen]:
    """A process in its own session, which is killed in the end if it has not ended."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **{"cwd": ROOT, **pipes, **options}) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def launched(
    run_dir: Path, *options: str, processes: int = 1, prefix: Sequence[str] = (), **variables: str
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """The run in `run_dir`, resumed by `train.py` as a `separate` process.

    prefix: a command that runs another one.
    """
    launcher = ["torch_utils/launch.py", "--standalone", "--nproc-per-node", str(processes)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return separate(
        [*prefix, sys.executable, *(launcher if processes > 1 else []), "train.py", "--resume", str(run_dir), *options],
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables},
    )


@contextlib.contextmanager
def begun(run_dir: Path, *options: str, records: int = 2, **how) -> Iterator[subprocess.Popen]:
    """`launched`, once it has made this many records."""
    stats = run_dir / "stats.jsonl"
    with launched(run_dir, *options, **how) as process:
        wait_for(process, lambda: stats.exists() and len(stats.read_text().splitlines()) >= records)
        yield process


def wait_for(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    """Returns when `happened()`, which must be while the process lives and within two minutes."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished(process: subprocess.Popen, code: int) -> tuple[str, str]:
    """stdout and stderr of a process that ends with this exit code within two minutes."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    return out, err


def completed(run_dir: Path, *options: str, code: int = 0, **how) -> tuple[str, str]:
    """`finished`, of a run that is `launched`."""
    with launched(run_dir, *options, **how) as process:
        return finished(process, code)


def children(process: subprocess.Popen) -> list[int]:
    """Its processes, those of a launcher in the order of their ranks."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def join_group(rank: int, world_size: int, port: int) -> None:
    """Makes this process, which has no launcher, a rank."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
