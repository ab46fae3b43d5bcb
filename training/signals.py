"""Stopping a run with Ctrl-C or SIGTERM, on any rank."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import torch

from torch_utils import distributed

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # Linux's number of the call by which a process asks for a signal when its parent ends
ALONE_SECONDS = 8  # that a rank which was asked to stop waits for a batch before it stops without the others
SLOW_STEP_SECONDS = 5  # that a lone process may take to stop, within a step on a CPU or a call of a library
STOP_CHECK_ROUNDS = 4  # rounds after which GPUs ask each other whether to stop


class StopRequest:
    """Ends training after the current step on Ctrl-C or SIGTERM, and at once on a later one.

    rounds: of an update. The more there are, the more often ranks ask each other, because a launcher waits only so
    long.
    """

    # A launcher passes on a signal that its process group has received too: the same request, twice.
    SAME_REQUEST_SECONDS = 2.0

    def __init__(self, device: torch.device, rounds: int = 1) -> None:
        self.first_time: float | None = None
        self.lone_gpu, self.in_step = device.type == "cuda" and distributed.get_world_size() == 1, False
        self.any_rank = distributed.AnyRank(device)
        # On a CPU, updates are slow, and asking costs nothing.
        self.check_steps = max(1, STOP_CHECK_ROUNDS // rounds) if device.type == "cuda" else 1
        self.checks = 0
        self._listen()

    def _listen(self) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, frame) -> None:
        now = time.monotonic()
        if self.first_time is None:
            self.first_time = now
            # A recording that is broken off would leave the GPU unusable.
            if self.lone_gpu and self.in_step and not torch.cuda.is_current_stream_capturing():
                raise CutShort
        elif now - self.first_time > self.SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt

    def agreed(self) -> bool:
        """Whether any rank was asked to stop. Every rank must call it once a step."""
        # Triton's compiler replaces the handlers by LLVM's, and then two signals at once, which `timeout` and launchers
        # send, can kill the process: LLVM's are gone when the second arrives.
        self._listen()
        if distributed.get_world_size() == 1:
            return self.first_time is not None
        self.checks += 1
        return self.checks % self.check_steps == 0 and self.any_rank(self.first_time is not None)

    def while_waiting(self, seconds: float) -> bool:
        """Whether to stop after this long without a batch. Several ranks would have to agree, so they wait for it; but
        after ALONE_SECONDS the others cannot go on either, and each stops by itself.
        """
        return self.first_time is not None and (distributed.get_world_size() == 1 or seconds >= ALONE_SECONDS)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """`may_cut_short` for any rank. In a lone process on a GPU, where recording a step can take a minute, a request
        to stop raises CutShort at once.
        """
        with self.may_cut_short(every_rank=True):
            self.in_step = True
            try:
                yield
            finally:
                self.in_step = False

    @contextlib.contextmanager
    def may_cut_short(self, *, every_rank: bool = False) -> Iterator[None]:
        """Raises CutShort in place of an error in the block, if a lone process (or every_rank) was asked to stop.

        A signal to the process group also ends children such as the compiler that Triton starts, and a rank that has
        stopped by itself (`while_waiting`) is missed by the others. The block must leave the training state as it was.
        """
        try:
            yield
        except (OSError, ValueError, ArithmeticError):  # of files, input and training that diverges
            raise
        except Exception as error:
            if self.first_time is None or not (every_rank or distributed.get_world_size() == 1):
                raise
            raise CutShort from error


class CutShort(Exception):
    """Raised in place of an error that the request to stop has caused."""


class SlowStep:
    """Saves and ends a lone process on a CPU that is asked to stop in a step of minutes, as large networks take there.

    Python handles signals in the main thread, between two of its own instructions, and a backward pass is a single one.
    So a thread waits for signals. If the main thread is inside `with slow_step:` SLOW_STEP_SECONDS after one, it calls
    `save`, which must not need what changes there, and ends the process.
    """

    def __init__(self, device: torch.device, save: Callable[[], None]) -> None:
        self.save, self.closed = save, False
        self.outside = threading.Lock()  # held here except in a step
        self.outside.acquire()
        self.sender = None
        if device.type == "cpu" and distributed.get_world_size() == 1:
            receiver, self.sender = socket.socketpair()
            self.sender.setblocking(False)
            signal.set_wakeup_fd(self.sender.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=[receiver], daemon=True).start()

    def _watch(self, receiver: socket.socket) -> None:
        with receiver:
            while number := receiver.recv(1):
                if ord(number) in STOP_SIGNALS:
                    time.sleep(SLOW_STEP_SECONDS)
                    with self.outside:
                        if not self.closed:
                            self.save()
                            os._exit(130)

    def __enter__(self) -> None:
        self.outside.release()

    def __exit__(self, *exception) -> None:
        self.outside.acquire()

    def close(self) -> None:
        self.closed = True
        del self.save  # What it refers to must not be freed by the thread, perhaps while Python ends: that aborts.
        self.outside.release()
        if self.sender is not None:
            signal.set_wakeup_fd(-1)
            self.sender.close()


def stop_at_once() -> None:
    """Let Ctrl-C and SIGTERM end the program, with a line from rank 0, until there is a StopRequest.

    Where the main thread waits in C, as it does for ranks that start later, no handler of Python's runs: a thread then
    ends the process after SLOW_STEP_SECONDS.
    """
    told = "stopped before training began; nothing was saved"

    def stop(number: int, frame) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # the launcher may send it again
        distributed.print0(told, flush=True)
        raise KeyboardInterrupt

    def watch(receiver: socket.socket, sender: socket.socket) -> None:
        while number := receiver.recv(1):
            time.sleep(SLOW_STEP_SECONDS)
            if signal.getsignal(ord(number)) is stop:  # which has not run, and no StopRequest has replaced
                distributed.print0(told, flush=True)
                os._exit(130)

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a signal to a child is not for this process
    threading.Thread(target=watch, args=[receiver, sender], daemon=True).start()
    for number in STOP_SIGNALS:
        signal.signal(number, stop)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM, so that a process started here never runs this process's handlers."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def detach_worker(worker: int) -> None:
    """Make a loader process, started in `signals_blocked`, survive a signal to the run's process group.

    The run still needs its loaders to finish the update and save. They end when it ends.
    """
    os.setsid()
    if sys.platform == "linux":  # else a loader that waits for its batch to be read would outlive a killed run
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # drops a signal that was held back
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
