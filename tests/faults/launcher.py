"""Runs `train.py` in one or several separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.small_training import fresh_state, save_state
from training.config import TrainConfig

ROOT = Path(__file__).parents[2]


def at_start(config: TrainConfig, run_dir: Path) -> Path:
    """Make a run that has not made an update yet."""
    save_state(run_dir, config, fresh_state(config))
    return run_dir


def launched(
    run_dir: Path, *options: str, processes: int = 1, prefix: Sequence[str] = (), **variables: str
) -> subprocess.Popen:
    """The run in `run_dir`, resumed by `train.py` in a separate session.

    prefix: a command that runs another one.
    """
    launcher = ["torch_utils/launch.py", "--standalone", "--nproc-per-node", str(processes)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [*prefix, sys.executable, *(launcher if processes > 1 else []), "train.py", "--resume", str(run_dir), *options],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def begun(run_dir: Path, *options: str, records: int = 2, **how) -> subprocess.Popen:
    """`launched`, once it has made this many records."""
    process = launched(run_dir, *options, **how)
    stats, deadline = run_dir / "stats.jsonl", time.monotonic() + 100
    while not (stats.exists() and len(stats.read_text().splitlines()) >= records):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def finished(process: subprocess.Popen, code: int) -> tuple[str, str]:
    """stdout and stderr of a process that ends with this exit code within two minutes."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, err
    return out, err


def children(process: subprocess.Popen) -> list[int]:
    """Its processes, those of a launcher in the order of their ranks."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def join_group(rank: int, world_size: int, port: int) -> None:
    """Makes this process, which has no launcher, a rank."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
