"""Loader processes: how their batches reach the training process, and what happens when one does not come."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, _utils

from genvs.errors import InputError
from torch_utils import distributed
from training.signals import detach_worker, signals_blocked

SHARED_MEMORY = Path("/dev/shm")
PATIENCE = 50  # seconds without a batch after which a run ends

# When a run ends, torch waits this long for each loader in turn before it ends one that hangs. Its own 5 s, for eight
# loaders, would let a run be saved too late.
_utils.MP_STATUS_CHECK_INTERVAL = 0.5


def worker_start(workers: int, batch_bytes: int) -> Callable[[int], None]:
    """The `worker_init_fn` of this many loaders per rank. They send batches of `batch_bytes` through shared memory, or
    as bytes if it has no room for them, as in a container: a batch that does not fit would never come.
    """
    batches = 2 * workers + 2  # two for each loader, torch's default, and two that this process uses
    needed = 1.05 * batches * batch_bytes * distributed.get_local_world_size()
    fits = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > needed
    return detach_worker if fits else _without_shared_memory


def _without_shared_memory(worker: int) -> None:
    detach_worker(worker)
    ForkingPickler.register(Tensor, lambda tensor: (torch.from_numpy, (tensor.numpy(),)))


def batches_of(loader: DataLoader, stopped: Callable[[int], bool]) -> Iterator[Any]:
    """The batches of a `loader` whose timeout is one second. They end when `stopped(seconds waited for a batch)`.

    Raises InputError, with the loader's number, if no batch comes for PATIENCE seconds.
    """
    with signals_blocked():  # here the workers start
        batches = iter(loader)
    received = seconds = 0
    while True:
        try:
            batch = next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            seconds += 1
            if stopped(seconds):
                return
            if seconds == PATIENCE:
                free = shutil.disk_usage(SHARED_MEMORY).free / 2**20
                raise InputError(
                    f"loader {received % loader.num_workers} of {loader.num_workers} has sent no batch for {PATIENCE} "
                    f"seconds ({SHARED_MEMORY} has {free:.0f} MB free): see what it has printed above, and whether the "
                    "disk with the data answers, or set `workers` to 0"
                ) from None
            continue
        received, seconds = received + 1, 0
        yield batch
