"""Tensors in a pickle: storages from torch's old file format, which lie in it as bytes, and the views of them.

Every size that a file claims is compared with what it holds before anything is made of it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genvs.compat.pickles import Budget, Calls, CheckedFile, Name, Refused, ordered_dict, read_pickle

MAGIC_NUMBER, FORMAT_VERSION = 0x1950A86A20F9469CFC6C, 1001  # what such a file begins with
MAX_DIMENSIONS = 8
DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Storage:
    """The numbers `[n]` that tensors are views of."""

    values: Tensor


@dataclass(frozen=True)
class StorageId:
    """How the pickle inside a storage's bytes refers to its numbers, which follow it."""

    key: str
    dtype: torch.dtype
    count: int


def read_storage(data: Any, budget: Budget) -> Storage:
    """What `torch.storage._load_from_bytes` makes of `data`, of one storage. Raises as `read_pickle` does."""
    if type(data) is not bytes:
        raise Refused("it makes a storage of what are no bytes")
    budget.spend_bytes(len(data))
    file = CheckedFile(io.BytesIO(data), len(data))
    calls: Calls = {"collections.OrderedDict": functools.partial(ordered_dict, budget)}
    magic, version, system = (read_pickle(file, budget, calls) for _ in range(3))
    if magic != MAGIC_NUMBER or version != FORMAT_VERSION or system["little_endian"] is not True:
        raise Refused("a storage in it is not in the format that torch writes")
    storage = read_pickle(file, budget, calls, persistent=storage_id)
    keys = read_pickle(file, budget, calls)
    if type(storage) is not StorageId or keys != [storage.key]:
        raise Refused("what it calls a storage is none")
    size = storage.count * storage.dtype.itemsize
    if int.from_bytes(file.read(8), "little", signed=True) != storage.count or file.tell() + size != len(data):
        raise Refused("a storage in it is larger or smaller than it claims")
    numbers = bytearray(file.read(size))  # a copy: torch writes to what it is given
    return Storage(torch.frombuffer(numbers, dtype=storage.dtype) if size else torch.empty(0, dtype=storage.dtype))


def storage_id(identity: Any) -> StorageId:
    kind, storage_type, key, _, count, view = identity
    if kind != "storage" or type(storage_type) is not Name or storage_type.name not in DTYPES:
        raise Refused("a storage in it is of an unknown type")
    if type(key) is not str or type(count) is not int or count < 0 or view is not None:
        raise Refused("a storage in it is not in the format that torch writes")
    return StorageId(key, DTYPES[storage_type.name], count)


def rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    """What `torch._utils._rebuild_tensor_v2` makes: a view of `storage`, which must hold all of it."""
    if type(storage) is not Storage or not _are_sizes([offset], 1) or not _are_sizes(shape, MAX_DIMENSIONS):
        raise Refused("a tensor in it has no storage, or no proper size")
    if not _are_sizes(strides, MAX_DIMENSIONS) or len(strides) != len(shape):
        raise Refused("a tensor in it has no proper strides")
    count = 1
    for size in shape:
        count *= size
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    held = storage.values.numel()
    if count > held or (count and last >= held):
        raise Refused("a tensor in it is larger than its storage")
    return storage.values.as_strided(shape, strides, offset if count else 0)


def _are_sizes(values: Any, limit: int) -> bool:
    return isinstance(values, Sequence) and len(values) <= limit and all(type(v) is int and v >= 0 for v in values)


def rebuild_parameter(data: Any, *_: Any) -> Tensor:
    """What `torch._utils._rebuild_parameter` makes, as a plain tensor."""
    if not isinstance(data, Tensor):
        raise Refused("a parameter in it is no tensor")
    return data


def tensor_calls(budget: Budget) -> Calls:
    """The calls that rebuild containers and tensors, by what a pickle names them."""
    return {
        "collections.OrderedDict": functools.partial(ordered_dict, budget),
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch._utils._rebuild_parameter_with_state": rebuild_parameter,
        "torch.storage._load_from_bytes": lambda data: read_storage(data, budget),
    }
