"""Work on many scenes, shared out to processes, with a progress bar."""

import contextlib
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from genvs.errors import InputError
from genvs.machine import usable_cores


@contextlib.contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C arrives after the block. Processes that are started in it never see one: their parent ends them.

    A mask would not do: a thread that does not have it, as BLAS starts some, would take the signal.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets it
        yield
        return
    arrived: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if arrived:
            signal.raise_signal(signal.SIGINT)


def run_in_workers(work: Callable[[int], None], count: int, workers: int, title: str, *, finish: bool = False) -> None:
    """Calls work(0), ..., work(count - 1) in `workers` processes or, with 0, in this one. Leaves no process behind.

    Raises the first InputError or OSError that `work` raises. finish: do the rest after an InputError, and raise the
    last one; the others are warnings.
    """

    def failure_of(index: Any) -> Exception | None:
        try:
            work(index)
        except (InputError, OSError) as error:
            return error  # raised here it would lose its arguments, and keep the loader alive
        return None

    workers = min(workers, count, usable_cores())
    loader: DataLoader = DataLoader(
        range(count),  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=failure_of,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # others could not send `work` to a process
        generator=torch.Generator(),  # else it would draw from the caller's random numbers
    )
    failures = None
    try:
        with _interrupt_held_back():
            failures = iter(loader)
        refused: InputError | None = None
        for failure in tqdm(failures, desc=title, total=count, unit="scenes", disable=None):
            if finish and isinstance(failure, InputError):
                if refused:
                    warnings.warn(str(refused), stacklevel=3)
                refused = failure
            elif failure is not None:
                raise failure
        if refused:
            raise refused
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they keep the workers alive, whose end `del` waits for
        raise
    finally:
        del failures
