"""Reads the files that the reimplementation of GeNVS at the University of Arizona writes; nothing in them is executed.

Its snapshot is a plain pickle of a whole module tree, with the source text of its classes inside, which a usual reader
would run. Here only the tree's tensors are taken out of it (`genvs.compat.pickles`).
"""

from __future__ import annotations

import os
import stat
from typing import Any

from torch import Tensor

from genvs.compat.pickles import Budget, CheckedFile, Record, Refused, read_pickle
from genvs.compat.tensors import tensor_calls
from genvs.compat.unofficial import UnofficialGeNVS
from genvs.compat.weights import network_of
from genvs.errors import InputError

PICKLE = b"\x80"  # the first byte of a pickle; what torch.save writes is a zip archive
MAX_PARTS, MAX_NAME = 100_000, 200  # of a tree of modules: its modules and tensors; letters of a name


def is_pickle(path: str | os.PathLike[str]) -> bool:
    """Whether the file is a plain pickle, as those snapshots are; False where it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would wait for somebody to write to it
            return False
        with open(path, "rb") as file:
            return file.read(1) == PICKLE
    except OSError:
        return False


def is_training_state(content: Any) -> bool:
    """Whether what `torch.load` made of a file is a `training-state-*.pt` of that implementation."""
    return isinstance(content, dict) and "format" not in content and content.keys() >= {"net", "optimizer_state"}


def load_snapshot(path: str | os.PathLike[str]) -> UnofficialGeNVS:
    """The network of a `network-snapshot-*.pkl`: its `ema`.

    Raises InputError, in one line with the file's name and the reason, for everything that can be wrong with the file.
    """
    try:
        return network_of(read_weights(path))
    except InputError as error:
        raise _refusal(path, error) from None


def load_training_state(path: str | os.PathLike[str], content: dict[str, Any]) -> UnofficialGeNVS:
    """The network of a `training-state-*.pt`, which `content` was read from. Raises InputError as `load_snapshot`."""
    weights = content["net"]
    try:
        if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
            raise InputError("its entry 'net' is no state dict")
        return network_of(weights)
    except InputError as error:
        raise _refusal(path, error) from None


def _refusal(path: str | os.PathLike[str], reason: Exception) -> InputError:
    return InputError(f"{path} is refused ({reason}): give a network-snapshot-*.pkl, and from a source that you trust")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a snapshot's network, by the names that they have in a state dict.

    Raises InputError, with the reason alone, for everything that can be wrong with the file.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            budget = Budget(size)
            calls = {**tensor_calls(budget), "torch_utils.persistence._reconstruct_persistent_obj": reconstructed}
            content = read_pickle(CheckedFile(file, size), budget, calls)
        return tensors_of(entry(content, "ema"))
    except Refused as error:
        reason = str(error)
    except MemoryError:
        reason = "it asks for more memory than there is"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    except Exception as error:  # damaged bytes lead to errors of every kind
        reason = f"it is damaged: {type(error).__name__}"
    raise InputError(reason)


def entry(content: Any, name: str) -> Any:
    values = content.items if type(content) is Record else content
    if type(values) is not dict or name not in values:
        raise Refused(f"it has no entry {name!r}, so it is no snapshot")
    return values[name]


def reconstructed(meta: Any) -> Record:
    """An object of a class whose source text the file carries: its state, and nothing of the source."""
    return Record(entry(meta, "class_name"), entry(meta, "state"))


def tensors_of(root: Any) -> dict[str, Tensor]:
    """All parameters and buffers below a module, by name."""
    found: dict[str, Tensor] = {}
    waiting, parts = [("", root)], 1
    while waiting:
        prefix, module = waiting.pop()
        state = module.state if type(module) is Record else None
        own = {**entry(state, "_parameters"), **entry(state, "_buffers")}
        children = entry(state, "_modules")
        parts += len(own) + len(children)
        longest = max(map(len, [*own, *children]), default=0)
        if parts > MAX_PARTS or len(prefix) + longest > MAX_NAME:
            raise Refused("its modules are nested without end")
        for name, tensor in own.items():
            if isinstance(tensor, Tensor):
                found[f"{prefix}{name}"] = tensor
            elif tensor is not None:
                raise Refused(f"{f'{prefix}{name}'!a:.80} in it is no tensor")
        waiting += [(f"{prefix}{name}.", child) for name, child in children.items() if child is not None]
    return found
