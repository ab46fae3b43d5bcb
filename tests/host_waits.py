"""Finds, without a GPU, what would make the host wait for one: values read back, and constants sent over."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import ROOT

# Operators whose result, or its size, the host must know: item(), bool() and their kin are the first.
READ_BACK = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
BROUGHT_BACK = {"tolist", "cpu", "numpy", "__array__"}
SENT_OVER = {"tensor", "as_tensor", "new_tensor", "from_numpy", "asarray"}


def _place() -> str:
    """Where in the project the call came from."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(f"{ROOT}/")]
    ours = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    return f"{ours[-1].filename.removeprefix(f'{ROOT}/')}:{ours[-1].lineno}"


class _Operators(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and len(args) > 1 and isinstance(args[1], (list, tuple))
        if name in READ_BACK or by_mask and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.found.append(f"{_place()} {name}")
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, device = getattr(func, "__name__", ""), (kwargs or {}).get("device")
        value = args[-1] if name == "new_tensor" else args[0] if args else None
        # Without a device it stays with the host.
        sent = name in SENT_OVER and not isinstance(value, Tensor) and (name == "new_tensor" or device is not None)
        if sent or name in BROUGHT_BACK:
            self.found.append(f"{_place()} {name}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def host_waits() -> Iterator[list[str]]:
    """Inside, a list grows of places in the project that would wait for a device: "file:line operator"."""
    found: list[str] = []
    with _Functions(found), _Operators(found):
        yield found
