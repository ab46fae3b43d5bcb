"""Reads the files of the unofficial implementation without running anything that they hold.

Its snapshot is a plain pickle of a module tree and of the source text of its classes, which `pickle.load` would run.
Here every class and function that a pickle names, except OrderedDict, becomes a `Stub`: it is never imported, and calls
of it are only recorded. Tensors are rebuilt from the records; `torch.load(weights_only=True)` reads their numbers.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genvs.compat.unofficial import UnofficialGeNVS
from genvs.compat.weights import WEIGHTING, network_of
from genvs.errors import InputError

PICKLE = b"\x80"  # the first byte of a pickle; torch.save writes a zip archive
WEIGHTINGS = (f"{WEIGHTING}.", f"genvs_rgb.{WEIGHTING}.")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


class Stub:
    """What a pickle says about one object or call: the arguments, the items and the state."""

    __slots__ = ("args", "items", "state")
    name = ""  # of the class or function, as `package.module.name`
    args: tuple
    items: dict
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        stub = object.__new__(cls)
        stub.args, stub.items, stub.state = args, {}, None
        return stub

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Members of lists and sets are not needed."""

    extend = add = append


class StubUnpickler(pickle.Unpickler):
    """Makes a new stub class for every name except OrderedDict, so that nothing else can be called."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        return type("Stub", (Stub,), {"__slots__": (), "name": f"{module}.{name}"})


def is_pickle(path: str | os.PathLike[str]) -> bool:
    """Whether the file is a plain pickle, as those snapshots are. False if it cannot be read."""
    with contextlib.suppress(OSError):
        if Path(path).is_file():  # opening a pipe would wait for its writer
            with open(path, "rb") as file:
                return file.read(1) == PICKLE
    return False


def is_training_state(content: Any) -> bool:
    """Whether `content`, read by `torch.load`, is a `training-state-*.pt` of the unofficial implementation."""
    return isinstance(content, dict) and "format" not in content and content.keys() >= {"net", "optimizer_state"}


def load_network(path: str | os.PathLike[str], training_state: dict[str, Any] | None = None) -> UnofficialGeNVS:
    """The EMA network of the snapshot `path`, or the network of `training_state`, which was read from `path`.

    Raises InputError, with the file's name and the reason, for a file that is neither.
    """
    try:
        weights, view_weighting = (training_state["net"], None) if training_state else read_snapshot(path)
        named = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
        if not named or not all(isinstance(weight, Tensor) for weight in weights.values()):
            raise InputError("its entry 'net' is no state dict")
        return network_of(weights, view_weighting)
    except InputError as error:
        raise InputError(f"{path} is refused ({error}): give another network-snapshot-*.pkl") from None


def read_snapshot(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], str | None]:
    """The state dict of the EMA network, and the name of its view weighting if the file has one.

    Raises InputError, without the file's name, if the file is damaged or is not a snapshot.
    """
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its old file format
            modules = dict(modules_of(entry(StubUnpickler(file).load(), "ema")))
            weights = {
                f"{prefix}{name}": tensor_of(value)
                for prefix, attributes in modules.items()
                for kind in ("_parameters", "_buffers")
                for name, value in entry(attributes, kind).items()
                if value is not None
            }
            method = next((modules[name].get("method_name") for name in WEIGHTINGS if name in modules), None)
            return weights, method if isinstance(method, str) else None
    except InputError:
        raise
    except Exception as error:  # damaged bytes lead to errors of every kind
        raise InputError(f"it is damaged, or cannot be read: {type(error).__name__}") from None


def entry(content: Any, name: str) -> Any:
    values = content.items if isinstance(content, Stub) else content
    if not isinstance(values, dict) or name not in values:
        raise InputError(f"it has no entry {name!r}, so it is no snapshot")
    return values[name]


def modules_of(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The attributes of a module and of its submodules, each with the prefix of its tensors' names."""
    attributes = module.state if isinstance(module, Stub) else None
    if isinstance(module, Stub) and module.name == "torch_utils.persistence._reconstruct_persistent_obj":
        attributes = entry(module.args[0], "state")  # beside its class's source text
    yield prefix, attributes
    for name, child in entry(attributes, "_modules").items():
        if child is not None:
            yield from modules_of(child, f"{prefix}{name}.")


def tensor_of(value: Any) -> Tensor:
    """The tensor that torch's own functions would rebuild. torch checks that its storage is large enough."""
    name = value.name if isinstance(value, Stub) else type(value).__name__
    if name in PARAMETERS:
        return tensor_of(value.args[0])
    if name != "torch._utils._rebuild_tensor_v2" or value.args[0].name != "torch.storage._load_from_bytes":
        raise InputError(f"it has {name!a:.80} for a tensor")
    storage = torch.load(io.BytesIO(value.args[0].args[0]), map_location="cpu", weights_only=True)
    offset, shape, strides = value.args[1:4]
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped()).as_strided(shape, strides, offset)
