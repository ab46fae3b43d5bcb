"""Packs: all views of a split at one resolution, decoded, in one file that is mapped into memory.

A pack is made once, beside the split. It is a copy: deleting it costs only the time to make it again. Its header states
what it was made from; a pack with another header or of another size is made again. Records of one view each follow,
with a checksum, which is compared only when asked for: that reads the whole file.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL

from genvs.data.types import Views
from genvs.data.workers import run_in_workers
from genvs.files import lock

FORMAT = "genvs packed views 3"  # raise the number when the same files give other contents
HEADER_BYTES = 4096


@dataclass(frozen=True)
class PackPlan:
    """What a pack holds, and where it is.

    num_views: of each scene, in order. sources: a digest of the names, sizes and times of change of all its files.
    """

    path: Path
    resolution: int
    num_views: tuple[int, ...]
    sources: str

    def header(self) -> bytes:
        """The beginning of the file."""
        record = {
            "format": FORMAT,
            "resolution": self.resolution,
            "scenes": len(self.num_views),
            "views": sum(self.num_views),
            "sources": self.sources,
            "decoder": f"Pillow {PIL.__version__}",  # other versions may resize to other values
        }
        return json.dumps(record).ljust(HEADER_BYTES - 1).encode() + b"\n"

    @property
    def record(self) -> np.dtype:
        """A view in the file. Its checksum is the CRC-32 of all before it."""
        image = ("image", np.uint8, (3, self.resolution, self.resolution))
        return np.dtype([image, ("c2w", "<f4", (4, 4)), ("intrinsics", "<f4", (3, 3)), ("checksum", "<u4")])

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return HEADER_BYTES + sum(self.num_views) * self.record.itemsize

    @property
    def first_views(self) -> np.ndarray:
        """The index of each scene's first view among all views: `[scenes]` int64."""
        return np.cumsum([0, *self.num_views[:-1]])


class Pack:
    """The pack of a plan, mapped read-only: processes share its pages. It is pickled as its plan.

    Raises OSError if it cannot be opened, ValueError if the file is another one or cut short.
    """

    def __init__(self, plan: PackPlan) -> None:
        self.plan, self._first_views = plan, plan.first_views
        with open(plan.path, "rb") as file:
            if file.read(HEADER_BYTES) != plan.header() or os.fstat(file.fileno()).st_size != plan.size:
                raise ValueError(f"{plan.path}: made from other files, or cut short")
            self._views = np.asarray(np.memmap(file, plan.record, mode="r", offset=HEADER_BYTES))

    def __reduce__(self):
        return Pack, (self.plan,)

    def is_undamaged(self) -> bool:
        """Whether every view has its checksum. Reads the whole file."""
        with ThreadPoolExecutor() as pool:
            return all(pool.map(lambda view: _checksum(view) == view["checksum"], self._views))

    def read(self, scenes: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copies of images, c2w and intrinsics, by the indices of scenes and of views in them, integers `[...]`."""
        places = self._first_views[scenes] + views
        return self._views["image"][places], self._views["c2w"][places], self._views["intrinsics"][places]


def ensure_pack(plan: PackPlan, decode_scene: Callable[[int], Views], workers: int, *, verify: bool = False) -> Pack:
    """The pack of `plan`, made unless it is there and up to date.

    decode_scene: gives the views `[K]` of a scene. workers: processes that decode; with 0, this one does. verify:
    compare checksums too. The file appears whole or not at all, in place of any older one. Several processes may call
    this at once: one works, the others wait. Call it in the main thread, which receives Ctrl-C. Raises what
    `decode_scene` raises, and OSError if the file cannot be written.
    """
    pack = _open_pack(plan, verify)
    if pack is None:
        with lock(plan.path.with_name(f".{plan.path.name}.lock"), wait=True):
            pack = _open_pack(plan, verify)  # another process may have made it meanwhile
            if pack is None:
                pack = _make_pack(plan, decode_scene, workers)
    return pack


def _open_pack(plan: PackPlan, verify: bool) -> Pack | None:
    """The pack, unless it is missing, made from other files or found to be damaged."""
    try:
        pack = Pack(plan)
    except (OSError, ValueError):
        return None
    return None if verify and not pack.is_undamaged() else pack


def _checksum(view: np.void) -> int:
    return zlib.crc32(view.tobytes()[:-4])


def _make_pack(plan: PackPlan, decode_scene: Callable[[int], Views], workers: int) -> Pack:
    """Decodes all scenes, with a progress bar. The header comes last."""
    path = plan.path.with_name(plan.path.name + ".partial")

    def write(scene: int) -> None:
        views = decode_scene(scene)
        records, cameras = np.zeros(len(views.images), plan.record), views.cameras
        records["image"], records["c2w"], records["intrinsics"] = views.images, cameras.c2w, cameras.intrinsics
        records["checksum"] = [_checksum(record) for record in records]
        with open(path, "r+b") as partial:
            partial.seek(HEADER_BYTES + int(plan.first_views[scene]) * plan.record.itemsize)
            partial.write(records.tobytes())

    try:
        with open(path, "wb") as file:
            file.truncate(plan.size)
        run_in_workers(write, len(plan.num_views), workers, f"packing {plan.path.name}")
        with open(path, "r+b") as whole:
            whole.write(plan.header())
            whole.flush()
            os.fsync(whole.fileno())
        os.replace(path, plan.path)
    finally:
        with contextlib.suppress(OSError):  # after success it has been renamed
            path.unlink()
    return Pack(plan)
