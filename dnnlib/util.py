"""A log file beside the terminal, readable durations, and downloads."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import shutil
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm


class _Tee:
    """A text stream that writes to `stream` and, as long as it is open, to `file`."""

    def __init__(self, stream: TextIO, file: io.FileIO) -> None:
        self._stream = stream
        self._file = file

    def write(self, text: str) -> int:
        # A carriage return in front redraws a line on a terminal (a progress bar): no text for a file.
        if not self._file.closed and not text.startswith("\r"):
            with contextlib.suppress(OSError):  # with a full disk, what cannot be logged is still printed
                self._file.write(text.encode())
        with self._without_reader():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._without_reader():
            self._stream.flush()

    @contextlib.contextmanager
    def _without_reader(self) -> Iterator[None]:
        """Ctrl-C ends `tee` as well: what is printed from then on is only logged."""
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def logged(path: str | os.PathLike[str]) -> Iterator[None]:
    """Copies everything that is printed to stdout and stderr into a file too, inside the block.

    The file is appended to, without a buffer, so that the log survives a kill. The trace of an error that leaves the
    block is kept too. Code that has kept `sys.stdout` from inside the block may go on writing to it: that reaches the
    terminal alone. Raises OSError if the file cannot be opened.
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
                file.write(traceback.format_exc().encode())
            raise


def format_time(seconds: float) -> str:
    """A duration with the units that matter: "42s", "1m 05s", "2h 03m 04s", "1d 02h 03m"."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    if s < 60 * 60:
        return f"{s // 60}m {s % 60:02}s"
    if s < 24 * 60 * 60:
        return f"{s // (60 * 60)}h {s // 60 % 60:02}m {s % 60:02}s"
    return f"{s // (24 * 60 * 60)}d {s // (60 * 60) % 24:02}h {s // 60 % 60:02}m"


def download(url: str, path: str | os.PathLike[str]) -> None:
    """Fetches `url` into the file `path`, with a progress bar; the folder is made if need be.

    The file appears whole or not at all. Raises OSError with one line that names the URL, the reason and the path.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=30) as response, open(temporary, "wb") as file:
            expected = response.headers.get("Content-Length")
            size = int(expected) if expected else None
            with tqdm.wrapattr(response, "read", total=size, desc=path.name, leave=False, disable=None) as body:
                shutil.copyfileobj(body, file, 1 << 20)
            if size is not None and file.tell() != size:
                raise OSError(f"it ended after {file.tell()} of {size} bytes")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException, ValueError) as error:  # a ValueError is a malformed URL
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the response, too
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise OSError(f"{url} could not be downloaded ({reason}): fetch it yourself and put it at {path}") from error
    finally:
        temporary.unlink(missing_ok=True)
