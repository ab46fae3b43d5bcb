"""Files that appear whole or not at all, locks, numbered folders, and a reader of tensors that executes nothing."""

import contextlib
import fcntl
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

    Raises OSError, naming `path`, if it cannot be written (full disk, read-only folder). The old file is kept then.
    """
    with replacing(Path(path)) as file:
        torch.save(obj, file)


def write_atomic(text: str, path: str | os.PathLike[str]) -> None:
    """Writes `text` (UTF-8) to `path`, as `save_atomic` does."""
    with replacing(Path(path)) as file:
        file.write(text.encode())


def remove_orphans(folder: str | os.PathLike[str]) -> None:
    """Removes the unfinished files that killed processes left in `folder`, which the caller has locked."""
    for path in Path(folder).glob(".*.[0-9]*.tmp"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
    """Locks `path` against other processes until the block or this process ends. Creates the file if necessary.

    Forked processes do not inherit the lock. On file systems without locks it only warns.
    If another process holds the lock, waits for it with a warning, or raises InputError if `wait` is False. Raises
    OSError if the file cannot be opened.
    """
    where = os.path.dirname(path)
    with open(path, "ab") as file:
        try:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # POSIX allows either
                busy = f"{where}: another process writes there"
                if not wait:
                    raise InputError(f"{busy}: wait for it, or choose another folder") from None
                warnings.warn(f"{busy}: waiting until it has finished", stacklevel=3)
                fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            unlocked = f"this file system has no locks ({error.strerror})"
            warnings.warn(f"{where}: {unlocked}: see that no second program writes there too", stacklevel=3)
        yield


def new_numbered_folder(parent: str | os.PathLike[str], name: str) -> Path:
    """Makes `parent/NNNNN-name`, numbered after the last such folder, and never returns one of another process.

    Raises OSError if it cannot be made.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        taken = [int(path.name[:5]) for path in parent.glob("[0-9][0-9][0-9][0-9][0-9]-*")]
        folder = parent / f"{max(taken, default=-1) + 1:05d}-{name}"
        with contextlib.suppress(FileExistsError):  # another process was sooner
            folder.mkdir()
            return folder


def load(path: str | os.PathLike[str]) -> Any:
    """Reads tensors and plain containers that `torch.save` wrote, and executes nothing.

    Compares checksums first, which `torch.load` does not do. Raises InputError for any fault in the file.
    """
    path = Path(path)
    try:
        if path.is_fifo():  # opening it would wait for its writer
            raise InputError(f"{path} is a pipe: name a file")
        with open(path, "rb") as file:
            if file.read(4) == b"PK\x03\x04" and (part := zipfile.ZipFile(file).testzip()):
                raise ValueError(f"the checksum of {part} is wrong")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error
    except Exception as error:  # damaged bytes lead to errors of every kind
        fault = "is not a file of tensors that torch.save wrote, or is damaged: check the path or use another copy"
        if blocked := re.search(r"GLOBAL ([\w.]+)|(TorchScript)", str(error)):
            fault = (
                f"holds more than tensors and plain containers ({blocked[1] or blocked[2]}), which could run code when "
                "it is read, so it is refused: save a state dict of tensors instead"
            )
        raise InputError(f"{path} {fault}") from error


def check_format(content: Any, path: str | os.PathLike[str], name: str, version: int, remedy: str) -> None:
    """Raises InputError if `content`, read from `path`, is not a dict that states this format and version."""
    if not isinstance(content, dict) or content.get("format") != name:
        raise InputError(f"{path} is not a {name}: {remedy}")
    if (found := content.get("version")) != version:
        raise InputError(f"{path} is a {name} of version {found}, this program reads {version}: {remedy}")


class NotSavedError(OSError):
    """Of `replacing`: the file cannot be written."""


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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new name survives a power cut
        finally:
            os.close(folder)
    except NotSavedError:  # another file, which the block writes
        raise
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as a RuntimeError with the reason in its context.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise NotSavedError(cause.errno, f"could not be saved: {cause.strerror}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # after success there is none, and the error above must not be hidden
            temporary.unlink()
