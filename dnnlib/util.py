"""A log file beside the terminal."""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO


class _Tee:
    """A text stream that writes to `stream` and, while it is open, to `file`."""

    def __init__(self, stream: TextIO, file: io.FileIO) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        # A progress bar starts with a carriage return, which redraws its line on a terminal: a file does not want it.
        if not self._file.closed and not text.startswith("\r"):
            with contextlib.suppress(OSError):  # on a full disk, the terminal still gets the text
                self._file.write(text.encode(errors="backslashreplace"))  # file names may be in any encoding
        self._on_terminal(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._on_terminal(self._stream.flush)

    def _on_terminal(self, call: Callable[..., Any], *args: str) -> None:
        """Ctrl-C also ends a `tee` that reads the stream: from then on only the file gets the text."""
        try:
            call(*args)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def logged(path: str | os.PathLike[str]) -> Iterator[None]:
    """Inside the block, appends to a file what is printed to stdout and stderr, and the trace of an error that ends it.

    The file has no buffer, so the log survives a kill. Code that keeps `sys.stdout` after the block still prints to the
    terminal. Raises OSError if the file cannot be opened.
    """
    with (
        open(path, "ab", buffering=0) as file,
        contextlib.redirect_stdout(_Tee(sys.stdout, file)),
        contextlib.redirect_stderr(_Tee(sys.stderr, file)),
    ):
        try:
            yield
        except Exception:
            with contextlib.suppress(OSError):
                file.write(traceback.format_exc().encode(errors="backslashreplace"))
            raise
