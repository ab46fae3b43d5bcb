"""Imported first: until `run_command` or the program handles them, Ctrl-C and SIGTERM end the program with one line.

Imports alone take seconds, and a traceback from within them would tell the user nothing.
"""

import os
import signal
from typing import Any


def stop(number: int, frame) -> None:
    print("stopped before it began; nothing was saved", flush=True)
    os._exit(130)


HANDLERS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
for number, default in HANDLERS.items():
    if signal.getsignal(number) == default:  # else it is ignored, as in the background
        signal.signal(number, stop)


def end() -> None:
    """Gives the signals back to Python's own handlers."""
    for number, default in HANDLERS.items():
        if signal.getsignal(number) is stop:
            signal.signal(number, default)
