"""Ranks and collectives. All of it also works in a process without a launcher, as the only rank."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

# Imported before there is a process group. Imported later, as by DDP, its functions' default arguments would keep the
# group alive. Its threads would outlive Python, and one that then frees a tensor aborts the process (libtorch 2.13).
import torch.distributed.nn

from dnnlib.command import named_options

# What torchrun sets for each process, and what `init_process_group` reads.
_LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def init(device_type: str, *, timeout: timedelta = timedelta(minutes=30)) -> torch.device:
    """Joins the process group that the launcher describes, if there is one, and returns this rank's device.

    `device_type` is "cuda" (NCCL; the device is the one numbered LOCAL_RANK) or "cpu" (gloo). `timeout` is how long a
    collective waits for the other ranks; the default leaves one of them enough time to pack a dataset.
    """
    device = torch.device(device_type)
    if device.type == "cuda":
        device = torch.device("cuda", get_local_rank())
        torch.cuda.set_device(device)
    if all(name in os.environ for name in _LAUNCH_VARIABLES) and not is_initialized():
        if device.type == "cuda":
            torch.distributed.init_process_group("nccl", timeout=timeout, device_id=device)
        else:
            torch.distributed.init_process_group("gloo", timeout=timeout)
    return device


def shutdown() -> None:
    """Leaves the process group, whose threads end. Call it when the work is done on every rank.

    A DDP module keeps the group alive: delete it first.
    """
    if is_initialized():
        # Rank 0 hosts the store of the group: it must not leave while another rank is still busy.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def is_initialized() -> bool:
    """Whether this process is in a process group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def get_rank() -> int:
    """This process among all; 0 unlaunched."""
    return torch.distributed.get_rank() if is_initialized() else int(os.environ.get("RANK", 0))


def get_local_rank() -> int:
    """This process among those of its machine; 0 unlaunched."""
    return int(os.environ.get("LOCAL_RANK", 0))


def get_world_size() -> int:
    """How many processes there are: of the group; else what WORLD_SIZE announces (a dry run for a launch); else 1."""
    return torch.distributed.get_world_size() if is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def print0(*args: Any, **kwargs: Any) -> None:
    """`print` on rank 0 alone."""
    if get_rank() == 0:
        print(*args, **kwargs)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Collects Python's user warnings; at the end rank 0 prints each once, as a line on stderr.

    Options of the running command stand in place of parameters in backticks.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print0(f"Warning: {named_options(message)}", file=sys.stderr, flush=True)


def barrier() -> None:
    """Waits until every rank is here."""
    if is_initialized():
        torch.distributed.barrier()


def gather_objects(value: Any) -> list[Any]:
    """Every rank's `value` (anything picklable), in the order of ranks, on every rank."""
    if not is_initialized():
        return [value]
    values = [None] * get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def broadcast_object(value: Any) -> Any:
    """Rank 0's `value` (anything picklable), on every rank."""
    return gather_objects(value)[0]


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sums `tensor` over the ranks, in place, and returns it. It must be on the device that `init` returned."""
    if is_initialized():
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.SUM)
    return tensor


class AnyRank:
    """Whether a flag was raised on any rank. The answer comes with the next call, so that no rank waits for its device.

    any_rank = AnyRank(device)       # the device that `init` returned
    any_rank(flag)                   # on all ranks; returns the same on all, for the flags of the last call
    """

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._device = device
        self._answer = torch.zeros((), dtype=torch.int32, pin_memory=cuda)
        self._arrived = torch.cuda.Event() if cuda else None

    def __call__(self, flag: bool) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()  # of the last call, long ago
        answer = bool(self._answer)
        raised = torch.full((), int(flag), dtype=torch.int32, device=self._device)
        if is_initialized():
            torch.distributed.all_reduce(raised, torch.distributed.ReduceOp.MAX)
        self._answer.copy_(raised, non_blocking=True)
        if self._arrived is not None:
            self._arrived.record()
        return answer
