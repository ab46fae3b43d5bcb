"""Files that appear whole or not at all, written while the work goes on; a reader of tensors that executes nothing."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import io
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from torch_utils import pickles

# What torch.save writes of tensors.
TENSOR_CALLS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")


class LoadError(Exception):
    """A file of tensors cannot be used: one line that names the file, what is wrong with it and what to do."""


def save_atomic(obj: Any, path: str | os.PathLike[str]) -> None:
    """`torch.save` to `path`, which holds the old file or the whole new one at every instant, power cuts included.

    Raises OSError naming `path` if it cannot be written (disk full, read-only folder); what was there stays.
    """
    with _replacing(Path(path)) as file:
        torch.save(obj, file)


def write_atomic(text: str, path: str | os.PathLike[str]) -> None:
    """Writes `text` (UTF-8) to `path` as `save_atomic` does."""
    with _replacing(Path(path)) as file:
        file.write(text.encode())


def remove_orphans(folder: str | os.PathLike[str]) -> None:
    """Removes the unfinished files that killed processes of this machine have left in `folder`."""
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


class BackgroundWriter:
    """Writes files in a thread, one at a time, while the caller goes on.

    files = BackgroundWriter()
    files.submit(save_atomic, content, path)     # returns when the tensors in `content` are copied
    files.close()                                # returns when the last file is written

    An error of the thread is raised by whichever method is called next. A process that ends early, but is not killed,
    still ends after the write: the interpreter waits for such threads.
    """

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._write: concurrent.futures.Future[None] | None = None

    def submit(self, save: Callable[..., None], *args: Any) -> None:
        """Has `save(*args)` called in the thread, with copies of the tensors in `args`, once the write before is done.

        The copies stay on the device where it has room for them, which takes milliseconds and keeps nobody waiting;
        otherwise they are made in the host's memory.
        """
        self.wait()
        stream, on_device = None, True
        if torch.cuda.is_initialized():
            sizes: list[int] = []
            _mapped(lambda tensor: sizes.append(tensor.nbytes * tensor.is_cuda), args)
            on_device = sum(sizes) < torch.cuda.mem_get_info()[0]
            stream = torch.cuda.Stream()  # of its own: the way to the host does not hold up what is queued next
        copies = _mapped(lambda tensor: tensor.detach().to(tensor.device if on_device else "cpu", copy=True), args)
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream())
        self._write = self._thread.submit(_call_with_host_copies, save, [copies], stream)

    def check(self) -> None:
        """Raises the error of a write that has failed; waits for nothing."""
        if self._write is not None and self._write.done():
            self.wait()

    def wait(self) -> None:
        """Returns when nothing is being written."""
        if self._write is not None:
            concurrent.futures.wait([self._write])  # an interrupt here leaves the write to the next call
            done, self._write = self._write, None
            done.result()

    def close(self) -> None:
        """Waits, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def load(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> Any:
    """Reads what `torch.save` wrote, if it holds only tensors and plain containers; nothing in it is executed.

    Each part's checksum is compared first, which `torch.load` leaves out. Raises LoadError for everything that can be
    wrong with a file.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for
            raise LoadError(f"{path} is no file: name one")
        _check_whole(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which end in an error of one line below
            return torch.load(path, map_location=map_location, weights_only=True)
    except LoadError:
        raise
    except FileNotFoundError:
        raise LoadError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise LoadError(f"{path} is a folder: name a file in it") from None
    except OSError as error:
        raise LoadError(f"{path} cannot be read ({error.strerror}): check the file and its permissions") from error
    except Exception as error:  # damaged bytes make the reader fail in every way there is
        raise LoadError(_diagnosis(path, str(error))) from error


def load_format(path: str | os.PathLike[str], name: str, version: int, remedy: str) -> dict[str, Any]:
    """Reads a dict that says `format: name` and `version: version` of itself. Raises LoadError if not."""
    content = load(path)
    check_format(content, path, name, version, remedy)
    return content


def check_format(content: Any, path: str | os.PathLike[str], name: str, version: int, remedy: str) -> None:
    """Raises LoadError if `content`, read from `path`, does not say `format: name` and `version: version` of itself."""
    if not isinstance(content, dict) or content.get("format") != name:
        raise LoadError(f"{path} is not a {name}: {remedy}")
    if content.get("version") != version:
        raise LoadError(
            f"{path} is a {name} of version {content.get('version')}, this program reads {version}: {remedy}"
        )


def _call_with_host_copies(save: Callable[..., None], box: list[tuple], stream: torch.cuda.Stream | None) -> None:
    with torch.cuda.stream(stream):  # None changes nothing
        # Out of the box, so that nothing keeps the copies on the device while the file is written. Storages, which is
        # what torch.save moves, would hold Python's lock on their way to the host; tensors do not.
        args = _mapped(torch.Tensor.cpu, box.pop())
    save(*args)


def _mapped(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """`value` with `function(tensor)` in place of each tensor in its dicts, lists and tuples."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(function, inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(function, inner) for inner in value)
    return value


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace otherwise."""
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
        with contextlib.suppress(OSError):  # gone when all went well; and never in the way of the error above
            temporary.unlink()


def _os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind `error`: torch.save reports a failed write as a RuntimeError that hides the reason."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _fsync_folder(folder: Path) -> None:
    """Makes a new name in `folder` last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_whole(path: Path) -> None:
    """Raises LoadError if `path` is empty, or a zip archive (torch's format) that is cut short or damaged."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if not magic:
        raise LoadError(f"{path} is empty: use another copy of it")
    if magic == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                # torch.save compresses nothing: parts that are larger than the file are a bomb.
                if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                    raise LoadError(f"{path} holds more bytes than it has, as torch.save never writes: do not use it")
                damaged = archive.testzip()
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
            raise LoadError(f"{path} is cut short or damaged: use another copy of it") from None
        if damaged is not None:
            raise LoadError(f"{path} is damaged (the checksum of {damaged!r} is wrong): use another copy of it")
        _check_effort(path)


def _check_effort(path: Path) -> None:
    """Raises LoadError for an archive that would keep torch's reader busy for ever, or fill the memory.

    That reader executes nothing either, but it makes all that a file asks for. What else is wrong it says itself.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                data = archive.read(name)
                file, budget = pickles.CheckedFile(io.BytesIO(data), len(data)), pickles.Budget(len(data))
                calls: pickles.Calls = dict.fromkeys(TENSOR_CALLS, lambda *_: None)
                calls["collections.OrderedDict"] = functools.partial(pickles.ordered_dict, budget)
                try:
                    pickles.read_pickle(file, budget, calls, persistent=lambda identity: None)
                except pickles.TooMuch as error:
                    raise LoadError(f"{path} is refused ({error}): use a file that torch.save wrote") from None
                except Exception:  # for torch to diagnose
                    return


def _diagnosis(path: Path, reason: str) -> str:
    """One line for what torch.load says in many."""
    blocked = re.search(r"GLOBAL ([\w.]+)|(TorchScript)", reason)
    if blocked:
        return (
            f"{path} holds more than tensors and plain containers ({blocked[1] or blocked[2]}), which could run code "
            "when it is read, so it is refused: save a state dict of tensors instead"
        )
    return f"{path} is not a file of tensors that torch.save wrote, or is damaged: check the path or use another copy"
