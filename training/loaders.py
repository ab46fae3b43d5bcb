"""Loader processes: how their batches reach the training process, and what happens when one does not come."""

from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, _utils

from genvs import machine
from genvs.errors import InputError
from training.signals import detach_worker, signals_blocked

PATIENCE = 50  # seconds without a batch after which a run ends

# When a run ends, torch waits this long for each loader in turn before it ends one that hangs. Its own 5 s, for eight
# loaders, would let a run be saved too late.
_utils.MP_STATUS_CHECK_INTERVAL = 0.5


def worker_start(workers: int, batch_bytes: int) -> Callable[[int], None]:
    """The `worker_init_fn` of this many loaders per rank. They send batches of `batch_bytes` through shared memory, or
    as bytes if it has no room for them, as in a container: a batch that does not fit would never come.
    """
    needed = machine.shared_memory_of_loaders(workers, batch_bytes) * machine.get_local_world_size()
    return detach_worker if machine.free_shared_memory() > needed else _without_shared_memory


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
                free = machine.free_shared_memory() / 2**20
                raise InputError(
                    f"loader {received % loader.num_workers} of {loader.num_workers} has sent no batch for {PATIENCE} "
                    f"seconds ({machine.SHARED_MEMORY} has {free:.0f} MB free): see what it has printed above, and "
                    "whether the disk with the data answers, or set `workers` to 0"
                ) from None
            continue
        received, seconds = received + 1, 0
        yield batch
