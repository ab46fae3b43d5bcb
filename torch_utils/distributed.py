"""Ranks and collectives. Everything also works in a process without a launcher, as the only rank."""

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch.distributed import is_initialized

from dnnlib.command import named_options
from genvs.machine import LAUNCH_VARIABLES, get_local_world_size, is_launched

TIME_LIMIT = timedelta(minutes=30)  # of a collective: long enough for one rank to draw or pack a dataset
NCCL_WAITS = timedelta(minutes=1)  # beyond it, so that `StallWatch` comes first
_pids: list[int] = []  # of the processes of all ranks


def init(device_type: str, *, timeout: timedelta = TIME_LIMIT) -> torch.device:
    """Joins the process group that the launcher describes, if there is one, and returns this rank's device.

    device_type: "cuda" (NCCL; the device is number LOCAL_RANK) or "cpu" (gloo). timeout: of a collective.
    """
    device = torch.device(device_type)
    if device.type == "cuda":
        device = torch.device("cuda", get_local_rank())
        torch.cuda.set_device(device)
    if is_launched() and not is_initialized():
        # If this were imported later, as parts of torch do, its default arguments would keep the process group and its
        # threads alive until Python has ended; a thread that then frees a tensor aborts the process (libtorch 2.13).
        from torch.distributed import nn  # noqa: F401

        if device.type == "cuda":
            torch.distributed.init_process_group("nccl", timeout=timeout + NCCL_WAITS, device_id=device)
        else:
            torch.distributed.init_process_group("gloo", timeout=timeout)
        _pids[:] = gather_objects(os.getpid())
    return device


def announce(processes: int) -> None:
    """Lets a dry run in this process know how many processes will be launched."""
    os.environ |= {**dict.fromkeys(LAUNCH_VARIABLES, "0"), "WORLD_SIZE": str(processes)}


def shutdown() -> None:
    """Waits for all ranks and leaves the process group."""
    if is_initialized():
        torch.distributed.barrier()  # rank 0 hosts the group's store, which the others may still need
        torch.distributed.destroy_process_group()


def get_rank() -> int:
    """The number of this process; 0 without a launcher."""
    if is_initialized():
        return torch.distributed.get_rank()
    return int(os.environ["RANK"]) if is_launched() else 0


def get_local_rank() -> int:
    """The number of this process on its machine; 0 without a launcher."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_launched() else 0


def get_world_size() -> int:
    """The number of processes; before `init`, the number that the launcher announces; 1 without a launcher."""
    if is_initialized():
        return torch.distributed.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def print0(*args: Any, **kwargs: Any) -> None:
    """`print` on rank 0 alone."""
    if get_rank() == 0:
        print(*args, **kwargs)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Collects Python's user warnings. At the end rank 0 prints each once, as a line on stderr that names options."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print0(f"Warning: {named_options(message)}", file=sys.stderr, flush=True)


def barrier() -> None:
    """Waits for all ranks."""
    if is_initialized():
        torch.distributed.barrier()


def gather_objects(value: Any) -> list[Any]:
    """The `value` (anything picklable) of every rank, in the order of ranks, on every rank."""
    if not is_initialized():
        return [value]
    values = [None] * get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def check_ddp_consistency(module: torch.nn.Module) -> None:
    """Compares every parameter and buffer with rank 0's, by a hash. All ranks must call it.

    Raises RuntimeError on every rank if any rank differs, naming the first tensor that does.
    """
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    hashes = [torch.hash_tensor(tensor.detach()).item() for tensor in tensors.values()]
    for name, first, *others in zip(tensors, *gather_objects(hashes), strict=True):
        if any(other != first for other in others):
            raise RuntimeError(f"{name} is not the same on all ranks: they have drifted apart")


@contextlib.contextmanager
def silent_ranks_named(seconds: float = 5.0) -> Iterator[None]:
    """Ends the process with a line that names the ranks that stall or have ended, if gloo fails because of them.

    For that every rank whose collective has failed leaves a mark in the group's store, and waits this long for the
    others to do so. Ranks that stall on this machine are killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_initialized() or "gloo" not in str(error):
            raise
        silent = _silent_ranks(seconds)
        if not silent:
            raise
        reason = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        print(_naming(silent, reason), file=sys.stderr, flush=True)
        if reason.startswith("Timed out"):  # else one has ended, and the others may be saving what they have
            _kill(silent)
        os._exit(1)  # Python's own end would abort the process where a thread still listens to the store


def _naming(silent: list[int], reason: str) -> str:
    ranks = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"
    verb = "do" if len(silent) > 1 else "does"
    return f"Error: {ranks} of {get_world_size()} {verb} not answer ({reason}): see what ended or stalled there"


def _silent_ranks(seconds: float) -> list[int]:
    store, ranks = torch.distributed.distributed_c10d._get_default_store(), range(get_world_size())
    heard: set[int] = set()

    def listen() -> None:
        store.set(f"failed/{get_rank()}", "")
        while len(heard) < len(ranks):
            heard.update(rank for rank in ranks if store.check([f"failed/{rank}"]))
            time.sleep(0.1)

    thread = threading.Thread(target=listen, daemon=True)  # a store whose process stalls never answers
    thread.start()
    thread.join(seconds)
    return [rank for rank in ranks if rank not in heard] if heard else [0]  # which has the store


def _kill(ranks: list[int]) -> None:
    """Kills those of these ranks that run on this machine. The launcher would give them minutes to save."""
    first = get_rank() - get_local_rank()
    for rank in {*ranks} & {*range(first, first + get_local_world_size())}:
        with contextlib.suppress(ProcessLookupError):  # another rank has killed it
            os.kill(_pids[rank], signal.SIGKILL)


class StallWatch:
    """Ends the process, with a line that names the ranks that stall, if `moved_on` is not called for so many seconds.

    NCCL would end it too, but without a name. All ranks must have one. Those that stall on this machine are killed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.moved_on()
        threading.Thread(target=self._watch, daemon=True).start()

    def moved_on(self) -> None:
        self._last = time.monotonic()

    def _watch(self) -> None:
        while (left := self._last + self._seconds - time.monotonic()) > 0:
            time.sleep(left)
        if is_initialized():  # training is not over
            silent, reason = _silent_ranks(5.0), f"no step was made for {self._seconds:g} s"
            line = _naming(silent, reason) if silent else f"Error: {reason} on any rank: see what stalls there"
            print(line, file=sys.stderr, flush=True)
            _kill(silent)
            os._exit(1)


class AnyRank:
    """Whether a flag was raised on any rank. Each call answers for the flags of the last one, and waits for nothing.

    any_rank = AnyRank(device)       # the device that `init` returned
    any_rank(flag)                   # on all ranks; returns the same on all of them
    """

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._device = device
        self._answer = torch.zeros((), dtype=torch.int32, pin_memory=cuda)
        self._arrived = torch.cuda.Event() if cuda else None
        self._watch = StallWatch(TIME_LIMIT.total_seconds()) if cuda and is_initialized() else None

    def __call__(self, flag: bool) -> bool:
        if self._watch is not None:
            self._watch.moved_on()
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
