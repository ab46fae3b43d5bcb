"""Files that appear whole or not at all, locks, numbered folders, and a reader of tensors that executes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from genvs.errors import InputError


def save_atomic(obj: Any, path: str | os.PathLike[str]) -> None:
    """`torch.save` to `path`, which at any time holds the old file or the whole new one, even after a power cut.

    Raises OSError naming `path` if it cannot be written (disk full, read-only folder); the old file stays.
    """
    with replacing(Path(path)) as file:
        torch.save(obj, file)


def write_atomic(text: str, path: str | os.PathLike[str]) -> None:
    """Writes `text` (UTF-8) to `path` as `save_atomic` does."""
    with replacing(Path(path)) as file:
        file.write(text.encode())


def remove_orphans(folder: str | os.PathLike[str]) -> None:
    """Removes the unfinished files that killed processes of this machine left in `folder`."""
    for path in Path(folder).glob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and not _is_alive(int(pid)):
            with contextlib.suppress(OSError):  # nothing depends on it
                path.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Locks `path`, which is created if need be, against other processes until the block or this process ends.

    Forked processes do not inherit the lock. On file systems without locks it does nothing.
    Raises BlockingIOError if another process holds the lock, unless `wait`; OSError if the file cannot be opened.
    """
    with open(path, "ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):  # POSIX lets systems say either
            raise BlockingIOError(f"{path} is held by another process") from None
        except OSError:
            pass
        yield


def new_numbered_folder(parent: str | os.PathLike[str], name: str) -> Path:
    """Makes `parent/NNNNN-name`, with the number after the largest there; never a folder of another process.

    Raises OSError if it cannot be made.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name[:5]) for path in parent.glob("[0-9][0-9][0-9][0-9][0-9]-*")]
    for number in itertools.count(max(taken, default=-1) + 1):
        if not any(parent.glob(f"{number:05d}-*")):
            with contextlib.suppress(FileExistsError):
                folder = parent / f"{number:05d}-{name}"
                folder.mkdir()
                return folder
    raise AssertionError("the count does not end")


def load(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Reads what `torch.save` wrote, if it holds only tensors and plain containers; nothing in it is executed.

    Checksums are compared first, which `torch.load` does not do. Raises InputError for whatever is wrong with the file.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe would wait for its writer
            raise InputError(f"{path} is no file: name one")
        _check_whole(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, which end in an error of one line below
            return torch.load(path, map_location=map_location, weights_only=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: name a file in it") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the file and its permissions") from error
    except Exception as error:  # damaged bytes lead to errors of every kind
        raise InputError(_diagnosis(path, str(error))) from error


def load_format(path: str | os.PathLike[str], name: str, version: int, remedy: str) -> dict[str, Any]:
    """Reads a dict that states this format and version. Raises InputError if it does not."""
    content = load(path)
    check_format(content, path, name, version, remedy)
    return content


def check_format(content: Any, path: str | os.PathLike[str], name: str, version: int, remedy: str) -> None:
    """Raises InputError if `content`, read from `path`, is not of this format and version."""
    if not isinstance(content, dict) or content.get("format") != name:
        raise InputError(f"{path} is not a {name}: {remedy}")
    if content.get("version") != version:
        raise InputError(
            f"{path} is a {name} of version {content.get('version')}, this program reads {version}: {remedy}"
        )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` if the block succeeds, and is removed otherwise."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise OSError(cause.errno, f"could not be saved: {cause.strerror}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # it is gone after success, and must not hide the error above
            temporary.unlink()


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind `error`. torch.save reports a failed write as a RuntimeError without the reason."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _fsync_folder(folder: Path) -> None:
    """Makes a new name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_whole(path: Path) -> None:
    """Raises InputError if `path` is empty, or a zip archive (torch's format) that is cut short or damaged."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if not magic:
        raise InputError(f"{path} is empty: use another copy of it")
    if magic == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
            raise InputError(f"{path} is cut short or damaged: use another copy of it") from None
        if damaged is not None:
            raise InputError(f"{path} is damaged (the checksum of {damaged!r} is wrong): use another copy of it")


def _diagnosis(path: Path, reason: str) -> str:
    """In one line what torch.load says in many."""
    blocked = re.search(r"GLOBAL ([\w.]+)|(TorchScript)", reason)
    if blocked:
        return (
            f"{path} holds more than tensors and plain containers ({blocked[1] or blocked[2]}), which could run code "
            "when it is read, so it is refused: save a state dict of tensors instead"
        )
    return f"{path} is not a file of tensors that torch.save wrote, or is damaged: check the path or use another copy"
