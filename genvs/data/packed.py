"""Packs: all views of a split at one resolution, decoded, in one file that is mapped into memory.

A pack is made once, beside the split, and is a copy: deleting it costs the time to make it again. Its first bytes tell
from what it was made (`PackPlan.header`), and each scene has a checksum; what does not match is made anew. Then come
plain numbers, none of which can do more than be wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import math
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from genvs.errors import InputError

FORMAT = "genvs packed views 2"  # raise the number when the same files give other contents
HEADER_BYTES = 4096


class DecodedViews(NamedTuple):
    """images: `[..., 3, H, W]` uint8. c2w: `[..., 4, 4]`, intrinsics: `[..., 3, 3]` normalised, both float32."""

    images: np.ndarray
    c2w: np.ndarray
    intrinsics: np.ndarray


class Block(NamedTuple):
    """A part of a pack's file, from byte `offset` on."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        return self.offset + self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True)
class PackPlan:
    """What a pack is to hold, and where.

    num_views: of each scene, in order. sources: a digest of the names, sizes and times of change of all its files.
    """

    path: Path
    resolution: int
    num_views: tuple[int, ...]
    sources: str

    def header(self) -> bytes:
        """How the file must begin."""
        record = {
            "format": FORMAT,
            "resolution": self.resolution,
            "scenes": len(self.num_views),
            "views": sum(self.num_views),
            "sources": self.sources,
            "decoder": f"Pillow {PIL.__version__}",  # another one may resize to other values
        }
        return json.dumps(record).ljust(HEADER_BYTES - 1).encode() + b"\n"

    @functools.cached_property
    def first_views(self) -> np.ndarray:
        """The place of each scene's first view among all, and the number of all: `[scenes + 1]` int64."""
        return np.concatenate([[0], np.cumsum(self.num_views, dtype=np.int64)])

    @functools.cached_property
    def blocks(self) -> dict[str, Block]:
        """Where things are. Checksums are those of the scenes."""
        total, offset = sum(self.num_views), HEADER_BYTES
        shapes = {
            "images": (np.uint8, (total, 3, self.resolution, self.resolution)),
            "c2w": (np.float32, (total, 4, 4)),
            "intrinsics": (np.float32, (total, 3, 3)),
            "checksums": (np.uint32, (len(self.num_views),)),
        }
        blocks = {}
        for name, (dtype, shape) in shapes.items():
            blocks[name] = Block(np.dtype(dtype), shape, offset)
            offset = blocks[name].end
        return blocks


class Pack:
    """The pack of a plan, mapped read-only: processes share its pages. It is pickled as its plan.

    Raises OSError where it cannot be opened, ValueError where the file is another one or cut short.
    """

    def __init__(self, plan: PackPlan) -> None:
        self.plan, blocks = plan, plan.blocks
        with open(plan.path, "rb") as file:
            if file.read(HEADER_BYTES) != plan.header() or os.fstat(file.fileno()).st_size != blocks["checksums"].end:
                raise ValueError(f"{plan.path}: made from other files, or cut short")
            mapped = {
                name: np.asarray(np.memmap(file, block.dtype, mode="r", offset=block.offset, shape=block.shape))
                for name, block in blocks.items()
            }
        self.checksums = mapped.pop("checksums")
        self.views = DecodedViews(**mapped)

    def __reduce__(self):
        return Pack, (self.plan,)

    def is_undamaged(self) -> bool:
        """Whether every scene has its checksum. Reads the whole file, which then is in memory for training too."""
        bounds = self.plan.first_views.tolist()

        def is_right(scene: int) -> bool:
            views = DecodedViews(*(part[bounds[scene] : bounds[scene + 1]] for part in self.views))
            return checksum(views) == self.checksums[scene]

        with ThreadPoolExecutor() as pool:
            return all(pool.map(is_right, range(len(self.checksums))))

    def read(self, scenes: np.ndarray, views: np.ndarray) -> DecodedViews:
        """Copies of the views with these places within these scenes, two integer arrays `[...]`."""
        places = self.plan.first_views[scenes] + views
        return DecodedViews(*(part[places] for part in self.views))


def checksum(views: DecodedViews) -> int:
    """CRC-32 of the bytes of images, c2w and intrinsics in turn."""
    crc = 0
    for part in views:
        crc = zlib.crc32(part.data, crc)
    return crc


def ensure_pack(plan: PackPlan, decode_scene: Callable[[int], DecodedViews], workers: int) -> Pack:
    """The pack of `plan`, made unless it is there, up to date and undamaged.

    decode_scene: the views `[K]` of a scene. workers: processes that decode; with 0, this one does. The file appears
    whole or not at all, in the place of any older one. Several processes may call this at once: one works, the others
    wait. For the main thread, which hears Ctrl-C. Raises what `decode_scene` raises, and OSError where the file cannot
    be written.
    """
    pack = _open_undamaged(plan)
    if pack is not None:
        return pack
    partial = plan.path.with_name(plan.path.name + ".partial")
    with _file_of_our_own(partial):
        pack = _open_undamaged(plan)
        if pack is None:
            _write(plan, partial, decode_scene, workers)
            os.replace(partial, plan.path)
            pack = Pack(plan)
        return pack


def ignore_interrupts(worker: int) -> None:
    """What loader processes do first: Ctrl-C reaches the whole process group, but their parent decides what ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C in this block takes effect at its end. In the middle of a fork Python would print it and forget it."""
    caught: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if caught:
        signal.raise_signal(signal.SIGINT)


def _open_undamaged(plan: PackPlan) -> Pack | None:
    try:
        pack = Pack(plan)
    except (OSError, ValueError):
        return None
    return pack if pack.is_undamaged() else None


@contextlib.contextmanager
def _file_of_our_own(path: Path) -> Iterator[None]:
    """A file at `path`, locked until the block ends; it is removed then, unless it has been renamed.

    Waits while another process has it. What a process that died has left there is taken over.
    """
    while True:
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # whoever had it has renamed or removed it
                continue
            try:
                yield
            finally:
                if _is_at(file, path):
                    os.unlink(path)
            return


def _is_at(file: BinaryIO, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _write(plan: PackPlan, path: Path, decode_scene: Callable[[int], DecodedViews], workers: int) -> None:
    """Decode all scenes into `path`, with a progress bar. The header comes last."""
    with open(path, "r+b") as file:
        file.truncate(0)
        file.truncate(plan.blocks["checksums"].end)
    loader = DataLoader(
        _SceneWriter(plan, path, decode_scene),
        batch_size=None,
        num_workers=min(workers, len(plan.num_views)),
        worker_init_fn=ignore_interrupts,
        generator=torch.Generator(),  # else it would draw from the caller's random numbers
    )
    with _interrupts_later():
        scenes = iter(loader)
    try:
        for failure in tqdm(scenes, desc=f"packing {plan.path.name}", total=len(loader), unit="scenes", disable=None):
            if failure is not None:
                raise failure
    finally:
        del scenes  # and with it the workers, before the file is anyone else's
    with open(path, "r+b") as file:
        file.write(plan.header())


class _SceneWriter(Dataset):
    """Writes scene i into the file at `path` when item i is asked for; the item is why that failed, or None."""

    def __init__(self, plan: PackPlan, path: Path, decode_scene: Callable[[int], DecodedViews]) -> None:
        self.plan, self.path, self.decode_scene = plan, path, decode_scene

    def __len__(self) -> int:
        return len(self.plan.num_views)

    def __getitem__(self, scene: int) -> Exception | None:
        try:
            self._write(scene, self.decode_scene(scene))
        except (InputError, OSError) as error:
            return error  # raised here it would lose its arguments, and hold on to the loader
        return None

    def _write(self, scene: int, views: DecodedViews) -> None:
        first = int(self.plan.first_views[scene])
        parts = {name: (first, part) for name, part in views._asdict().items()}
        parts["checksums"] = (scene, np.uint32(checksum(views)))
        with open(self.path, "r+b") as file:
            for name, (place, part) in parts.items():
                block = self.plan.blocks[name]
                file.seek(block.offset + place * block.dtype.itemsize * math.prod(block.shape[1:]))
                file.write(part.tobytes())
