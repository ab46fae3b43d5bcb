"""Packs: all views of a split at one resolution, of one modality, decoded, in a file that is mapped into memory.

A pack is made once, beside the split. It is a copy: deleting it costs only the time to make it again. Its header states
what it was made from; a pack with another header or of another size is made again. One record for each
view follows, with a checksum, which is compared only when asked for, because that reads the whole file. At the end is
an index of the scenes, with which a pack is a dataset of its own (genvs.data.pack_scenes).
"""

import json
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL

from genvs.data.types import Views
from genvs.data.workers import run_in_workers
from genvs.files import lock, replacing
from genvs.modalities import MODALITIES

FORMAT = "genvs packed views 5"  # raise the number when the same files give other contents
HEADER_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Pack:
    """What a pack holds, and where it is. It is pickled without its views, and opened again when they are used.

    num_views: of each scene, in order, `[scenes]` int64. sources: a digest of the names, sizes and times of change of
    all its files. index: the number of bytes of its index, and their CRC-32. modality: of all its pictures. decoder:
    what made them; other versions may resize to other values.
    """

    path: Path
    resolution: int
    num_views: np.ndarray
    sources: str
    index: tuple[int, int]
    modality: str = "rgb"
    decoder: str = f"Pillow {PIL.__version__}"

    @property
    def header(self) -> bytes:
        """The beginning of the file."""
        record = {
            "format": FORMAT,
            "resolution": self.resolution,
            "scenes": len(self.num_views),
            "views": int(self.num_views.sum()),
            "sources": self.sources,
            "index": self.index,
            "decoder": self.decoder,
            "modality": self.modality,
        }
        return json.dumps(record).ljust(HEADER_BYTES - 1).encode() + b"\n"

    @property
    def record(self) -> np.dtype:
        """A view in the file. Its checksum is the CRC-32 of all before it."""
        image = ("image", np.uint8, (MODALITIES[self.modality].channels, self.resolution, self.resolution))
        return np.dtype([image, ("c2w", "<f4", (4, 4)), ("intrinsics", "<f4", (3, 3)), ("checksum", "<u4")])

    @cached_property
    def first_views(self) -> np.ndarray:
        """The index of each scene's first view among all views: `[scenes]` int64."""
        return np.cumsum(self.num_views) - self.num_views

    @property
    def index_place(self) -> int:
        """Where the index begins in the file."""
        return HEADER_BYTES + int(self.num_views.sum()) * self.record.itemsize

    @cached_property
    def views(self) -> np.ndarray:
        """The records of all views, mapped read-only: processes share their pages.

        Raises OSError if the file cannot be opened, ValueError if it is another one or cut short.
        """
        size, shape = self.index_place + self.index[0], int(self.num_views.sum())
        with open(self.path, "rb") as file:
            if file.read(HEADER_BYTES) != self.header or os.fstat(file.fileno()).st_size != size:
                raise ValueError(f"{self.path}: made from other files, or cut short")
            return np.asarray(np.memmap(file, self.record, mode="r", offset=HEADER_BYTES, shape=shape))

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def is_current(self, *, verify: bool = False) -> bool:
        """Whether the file is whole and made from these files. verify: compare checksums too, which reads all of it."""
        try:
            views = self.views
        except (OSError, ValueError):
            return False
        with ThreadPoolExecutor() as pool:
            return not verify or all(pool.map(lambda view: _checksum(view) == view["checksum"], views))

    def read(self, scenes: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copies of images, c2w and intrinsics, by the indices of scenes and of views in them, integers `[...]`.

        Images have as many channels as the modality's files.
        """
        places = self.first_views[scenes] + views
        return self.views["image"][places], self.views["c2w"][places], self.views["intrinsics"][places]


@dataclass(frozen=True, eq=False)
class JoinedPacks:
    """Packs of one modality that are read as one, scene after scene.

    first_scenes: the number of each pack's first scene. packs: None where no scene has the modality.
    """

    first_scenes: np.ndarray
    packs: Sequence[Pack | None]

    def read(self, scenes: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Pack.read`, for integers `[N]`."""
        numbers = np.searchsorted(self.first_scenes, scenes, side="right") - 1
        order, parts = [], []
        for number in np.unique(numbers):
            order.append(np.flatnonzero(numbers == number))
            pack, own = self.packs[number], order[-1]
            assert pack is not None
            parts.append(pack.read(scenes[own] - self.first_scenes[number], views[own]))
        back = np.argsort(np.concatenate(order))
        images, c2w, intrinsics = (np.concatenate(part)[back] for part in zip(*parts, strict=True))
        return images, c2w, intrinsics


def ensure_pack(pack: Pack, index: bytes, decode_scene: Callable[[int], Views], workers: int, *, verify: bool) -> Pack:
    """`pack`, made unless it is there and up to date.

    index: its index. decode_scene: gives the views `[K]` of a scene. workers: processes that decode; with 0, this one
    does. verify: compare checksums too. The file appears whole or not at all, in place of any older one. Several
    processes may call this at once: one works, the others wait. Raises what `decode_scene` raises, and OSError if the
    file cannot be written.
    """
    if not pack.is_current(verify=verify):
        with lock(pack.path.with_name(f".{pack.path.name}.lock"), wait=True):
            if not pack.is_current(verify=verify):  # else another process has made it meanwhile
                _write(pack, index, decode_scene, workers)
                pack = replace(pack)  # without views of an older file
    return pack


def _checksum(view: np.void) -> int:
    return zlib.crc32(view.tobytes()[:-4])


def _write(pack: Pack, index: bytes, decode_scene: Callable[[int], Views], workers: int) -> None:
    """Decodes all scenes, with a progress bar."""
    for orphan in pack.path.parent.glob(f".{pack.path.name}.*.tmp"):  # of a killed process: this one holds the lock
        orphan.unlink()
    with replacing(pack.path) as file:
        file.write(pack.header)
        file.seek(pack.index_place)
        file.write(index)
        file.flush()  # before processes are forked, which would write the header too

        def write(scene: int) -> None:
            views = decode_scene(scene)
            records, cameras = np.zeros(len(views.images), pack.record), views.cameras
            records["image"] = views.images[:, : pack.record["image"].shape[0]]  # gray pictures have equal channels
            records["c2w"], records["intrinsics"] = cameras.c2w, cameras.intrinsics
            records["checksum"] = [_checksum(record) for record in records]
            with open(file.name, "r+b") as shared:
                shared.seek(HEADER_BYTES + int(pack.first_views[scene]) * pack.record.itemsize)
                shared.write(records.tobytes())

        scenes = np.flatnonzero(pack.num_views).tolist()
        run_in_workers(lambda number: write(scenes[number]), len(scenes), workers, f"packing {pack.path.name}")
