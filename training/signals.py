"""How a run is asked to stop: Ctrl-C and SIGTERM, on any rank."""

from __future__ import annotations

import signal
import time

import torch

from torch_utils import distributed

STOP_CHECK_ROUNDS = 4  # GPUs tell each other this often whether they were asked to stop


class StopRequest:
    """Ctrl-C or SIGTERM ends training after the current step; a later one ends it at once."""

    # A launcher passes on the signal that its whole process group got: one request, twice.
    SAME_REQUEST_SECONDS = 5.0

    def __init__(self, device: torch.device, rounds: int = 1) -> None:
        """rounds: of an update. The longer it takes, the more often ranks ask: a launcher does not wait for ever."""
        self.first_time: float | None = None
        self.any_rank = distributed.AnyRank(device)
        # CPUs' updates are slow, and asking costs them nothing.
        self.check_steps = max(1, STOP_CHECK_ROUNDS // rounds) if device.type == "cuda" else 1
        self.checks = 0
        for number in (signal.SIGINT, signal.SIGTERM):
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
