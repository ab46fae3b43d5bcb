"""Named points of a write at which a process can be made to fail. The program itself does not know them."""

import errno
import io
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Action = Callable[[], None]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def _half(action: Action) -> Callable[..., None]:
    save = torch.save

    def half(obj: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(obj, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        action()

    return half


def _around(
    call: Callable[..., Any], action: Action, *, before: bool, folder: bool | None = None
) -> Callable[..., Any]:
    """`call` with `action` before or after it. folder: only for a descriptor that is, or is not, that of a folder."""

    def changed(*args: Any, **options: Any) -> Any:
        here = folder is None or stat.S_ISDIR(os.fstat(args[0]).st_mode) == folder
        if here and before:
            action()
        result = call(*args, **options)
        if here and not before:
            action()
        return result

    return changed


def _later(count: int, action: Action) -> Action:
    """`action` at the call of this number, from 0."""
    calls = iter(range(1_000_000))
    return lambda: action() if next(calls) == count else None


POINTS: dict[str, Callable[[Action], tuple[Any, str, Any]]] = {
    "before writing": lambda do: (torch, "save", _around(torch.save, do, before=True)),
    "half written": lambda do: (torch, "save", _half(do)),
    "before fsync": lambda do: (os, "fsync", _around(os.fsync, do, before=True, folder=False)),
    "before replace": lambda do: (os, "replace", _around(os.replace, do, before=True)),
    "before the folder's fsync": lambda do: (os, "fsync", _around(os.fsync, do, before=True, folder=True)),
    "after the folder's fsync": lambda do: (os, "fsync", _around(os.fsync, do, before=False, folder=True)),
    "while removing orphans": lambda do: (Path, "unlink", _around(Path.unlink, do, before=True)),
}


def set_point(name: str, action: Action, count: int = 0) -> None:
    """Does `action` in this process when it reaches the point for this time, counted from 0."""
    owner, attribute, function = POINTS[name](_later(0 if name == "half written" else count, action))
    setattr(owner, attribute, function)
