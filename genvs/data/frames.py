"""Scenes stored in files, in any layout: each view is an image file with a pose and a lens."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genvs.data.framing import Lens, framed, square_photo
from genvs.data.image_files import find_masks, find_stated, listed
from genvs.data.images import read_image, read_mask, same_shape
from genvs.data.scene import Scene
from genvs.data.storage import Storage
from genvs.errors import InputError


@dataclass(frozen=True)
class Frame:
    """The camera of a view. c2w: `[4, 4]` float64, axes as in the file. mask: its path, if the file states one."""

    c2w: np.ndarray
    lens: Lens
    mask: str | None = None


class StoredScene(Scene):
    """A scene in `folder` ('' or 'a/') of `storage`. file: the one that states its cameras, if there is one.

    frames: of all views, in order. images, masks, other_files: names within `storage` of all files; each view has an
    image and a mask, which may be None. as_stored: of its photos, see `read_image`.
    """

    as_stored = False
    frames: list[Frame]
    images: list[str]
    masks: list[str | None]
    other_files: list[str]

    def __init__(self, storage: Storage, folder: str, file: str = "") -> None:
        self.storage, self.folder, self.file = storage, folder, file
        self.name, self.shown = folder.rstrip("/") or storage.root.name, storage.shown(folder + file)

    def find_masks(self, stated: Sequence[str | None] | None = None) -> None:
        """Set `masks`: the paths `stated`, from `folder`, or else those in `masks/`. Warns of images without a mask."""
        beside = find_masks(self.storage, self.folder, self.images)
        self.masks = beside or [None] * len(self.images)
        if stated:
            found = find_stated(self.storage, self.folder, (path or "" for path in stated))
            self.masks = [mask or other for mask, other in zip(found, self.masks, strict=True)]
        without = [image for image, mask in zip(self.images, self.masks, strict=True) if mask is None]
        if without and (beside or any(stated or [])):
            fault = f"{len(without)} of {len(self.masks)} images have no mask, and are used whole"
            warnings.warn(f"{self.shown}: {fault}: {listed(without)}; add their masks", stacklevel=2)

    def target_frames(self) -> dict[str, Frame] | None:
        """Cameras to draw from, by names; None if the files give none. They need no images."""
        return None

    def read_c2w(self, view: int) -> np.ndarray:
        return self.frames[view].c2w

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        """The image's size may differ from the one that its intrinsics are for, but its aspect ratio may not."""
        rgb, lens, shown = self._read_image(view), self.frames[view].lens, self.storage.shown(self.images[view])
        size = rgb.shape[1], rgb.shape[0]
        if lens.size and not same_shape(lens.size, size):
            raise InputError(
                f"{shown}: is {size[0]}x{size[1]} but its intrinsics are for {lens.size[0]}x{lens.size[1]}; correct "
                f"the size in {lens.shown}, or the image"
            )
        return square_photo(rgb, lens, resolution, self.framing)

    def image_size(self, view: int) -> tuple[int, int]:
        height, width = self._read_image(view).shape[:2]
        return width, height

    def read_targets(self) -> tuple[list[str], np.ndarray, np.ndarray] | None:
        targets = self.target_frames()
        if targets is None:
            return None
        size, frames = self.image_size(0), targets.values()
        intrinsics = np.stack([framed(frame.lens.size or size, frame.lens, self.framing.fit)[2] for frame in frames])
        return list(targets), np.stack([frame.c2w for frame in frames]), intrinsics

    def file_states(self) -> Iterable[tuple]:
        for name in (*self.images, *filter(None, self.masks), *self.other_files):
            yield name, *self.storage.state(name)

    def _read_image(self, view: int) -> np.ndarray:
        """uint8 `[H, W, 3]`."""
        image, mask = self.images[view], self.masks[view]
        opacity = None if mask is None else read_mask(self.storage.read(mask), self.storage.shown(mask))
        size, shown = self.frames[view].lens.size, self.storage.shown(image)
        return read_image(self.storage.read(image), shown, self.framing.background, opacity, size, self.as_stored)
