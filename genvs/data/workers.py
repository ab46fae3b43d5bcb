"""Work on many scenes, shared out to processes, with a progress bar."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from genvs.errors import InputError


def run_in_workers(work: Callable[[int], None], count: int, workers: int, title: str) -> None:
    """Calls work(0), ..., work(count - 1) in `workers` processes or, with 0, in this one. Leaves no process behind.

    Raises the first InputError or OSError that `work` raises. Call it in the main thread, which receives Ctrl-C.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, count, cores)
    loader = DataLoader(
        _Work(work, count),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_ignore_interrupts,
        multiprocessing_context="fork" if workers else None,  # others could not send `work` to a process
        generator=torch.Generator(),  # else it would draw from the caller's random numbers
    )
    # Ctrl-C during a fork would be printed and then ignored, so it is kept until the workers have started.
    caught: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        failures = iter(loader)
    finally:
        signal.signal(signal.SIGINT, previous)
    try:
        if caught:
            signal.raise_signal(signal.SIGINT)
        for failure in tqdm(failures, desc=title, total=count, unit="scenes", disable=None):
            if failure is not None:
                raise failure
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they keep the workers alive, whose end `del` waits for
        raise
    finally:
        del failures


class _Work(Dataset):
    """Item i is the error that work(i) raises, or None."""

    def __init__(self, work: Callable[[int], None], count: int) -> None:
        self.work, self.count = work, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Exception | None:
        try:
            self.work(index)
        except (InputError, OSError) as error:
            return error  # raised here it would lose its arguments, and keep the loader alive
        return None


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the whole process group, but the parent decides what ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
