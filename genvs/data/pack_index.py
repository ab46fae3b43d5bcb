"""The index at the end of a pack: all that is known about its scenes, so that it can be read without its dataset."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from genvs.data.scene import Scene


@dataclass(frozen=True, eq=False)
class PackIndex:
    """What a pack holds, in arrays: Python objects would take kilobytes a scene in each process.

    settings: `[]`, JSON, how the views were made. names: `[S]`, the scenes'. num_views: `[S]` int64. view_lists: `[L]`,
    the different lists of views' names, with zeros between; which: `[S]` int64, each scene's. depths: near and far of
    all views, world units, NaN for a scene without; `[0, 2]` if no scene has any. Texts are bytes, as file names are.
    """

    settings: np.ndarray
    names: np.ndarray
    num_views: np.ndarray
    view_lists: np.ndarray
    which: np.ndarray
    depths: np.ndarray

    @classmethod
    def of(cls, settings: dict[str, Any], scenes: Sequence[Scene], views: np.ndarray, depths: np.ndarray) -> PackIndex:
        """views: how many of each scene are in the pack."""
        lists: dict[bytes, int] = {}
        names = [os.fsencode(scene.name) for scene in scenes]
        joined = (os.fsencode("\0".join(map(str, scene.view_names))) for scene in scenes)
        which = np.array([lists.setdefault(text, len(lists)) for text in joined])
        text = np.array(json.dumps(settings).encode())
        return cls(text, np.array(names), views, np.array(list(lists)), which, depths)

    def to_bytes(self) -> bytes:
        file = io.BytesIO()
        for array in astuple(self):
            np.save(file, array, allow_pickle=False)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> PackIndex:
        file = io.BytesIO(data)
        return cls(*(np.load(file, allow_pickle=False) for _ in cls.__dataclass_fields__))

    def name(self, scene: int) -> str:
        return os.fsdecode(bytes(self.names[scene]))

    def view_names(self, scene: int) -> list[str]:
        return os.fsdecode(bytes(self.view_lists[self.which[scene]])).split("\0")


def mark(data: bytes) -> tuple[int, int]:
    """The number of bytes and their CRC-32, by which a pack's header knows its index."""
    return len(data), zlib.crc32(data)
