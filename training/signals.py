"""How a run is asked to stop: Ctrl-C and SIGTERM, on any rank."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import torch

from torch_utils import distributed

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOP_CHECK_ROUNDS = 4  # GPUs tell each other this often whether they were asked to stop


class StopRequest:
    """Ctrl-C or SIGTERM ends training after the current step; a later one ends it at once."""

    # A launcher passes on the signal that its whole process group received: one request, twice.
    SAME_REQUEST_SECONDS = 5.0

    def __init__(self, device: torch.device, rounds: int = 1) -> None:
        """rounds: of an update. With more of them ranks ask more often, since a launcher waits for a limited time."""
        self.first_time: float | None = None
        self.any_rank = distributed.AnyRank(device)
        # Updates on a CPU are slow, and asking costs nothing there.
        self.check_steps = max(1, STOP_CHECK_ROUNDS // rounds) if device.type == "cuda" else 1
        self.checks = 0
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, frame) -> None:
        now = time.monotonic()
        if self.first_time is None:
            self.first_time = now
        elif now - self.first_time > self.SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt

    def agreed(self) -> bool:
        """Whether any rank was asked to stop. Every rank must call it once a step."""
        requested = self.first_time is not None
        if distributed.get_world_size() == 1:
            return requested
        self.checks += 1
        return self.checks % self.check_steps == 0 and self.any_rank(requested)


def stop_at_once() -> None:
    """From now on, until there is a StopRequest, Ctrl-C and SIGTERM end the program, and rank 0 says so."""

    def stop(number: int, frame) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # the launcher may send it again
        distributed.print0("stopped before training began; nothing was saved", flush=True)
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait, so that a process started here never runs this process's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def detach_worker(worker: int) -> None:
    """Make a loader process that was started with `signals_blocked` outlive a signal to the run's process group.

    Such a signal asks the run to stop, and the run needs its loaders to end the update and save. They end with it.
    """
    os.setsid()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # drops a signal that is waiting
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
