"""Scenes in files: a list of frames, each an image file with its pose and its lens, whichever files state them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from genvs.data.camera_checks import checked_intrinsics
from genvs.data.images import MAX_SIDE, MIN_SIDE, read_image, to_square
from genvs.data.scene import Scene
from genvs.data.storage import Storage, printable
from genvs.errors import InputError

ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class Lens:
    """Intrinsics as files state them. Raises InputError for numbers that none can have.

    settings: `fl_x`, `fl_y` (one is enough for square pixels), `cx`, `cy` and `skew` in pixels of a `w` x `h` image, or
    `camera_angle_x`, `camera_angle_y`, the field of view, in radians. shown: where they are written, for messages.
    """

    settings: Mapping[str, float]
    shown: str

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if not isinstance(value, (int, float)) or not abs(value) < 1e30:  # nor is nan
                raise InputError(
                    f"{self.shown}: {name} is no finite number but {printable(repr(value)[:20])}; correct it"
                )
            if name.startswith("camera_angle") and not 0 < value < math.pi:
                raise InputError(f"{self.shown}: {name} is {value:g}; give radians, between 0 and pi")
            if name in ("w", "h") and not (value == int(value) and MIN_SIDE <= value <= MAX_SIDE):
                raise InputError(f"{self.shown}: {name} is {value:g}; give the image's side in pixels")
        if not self.settings.keys() & {"fl_x", "fl_y", "camera_angle_x", "camera_angle_y"}:
            raise InputError(f"{self.shown}: has no focal length; add camera_angle_x (radians) or fl_x (pixels)")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that the settings are for: those of the image unless they are stated."""
        return int(self.settings.get("w", width)), int(self.settings.get("h", height))

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        """Normalised `[3, 3]` float64. width, height: of the image, pixels. Raises InputError for unusable values."""
        width, height = self.size(width, height)
        focal = [self._focal("x", width), self._focal("y", height)]
        focal_x, focal_y = (one if one is not None else other for one, other in zip(focal, focal[::-1], strict=True))
        center_x, center_y = self.settings.get("cx", width / 2), self.settings.get("cy", height / 2)
        matrix = np.array([[focal_x, self.settings.get("skew", 0), center_x], [0, focal_y, center_y], [0, 0, 1]])
        return checked_intrinsics(matrix / [[width], [height], [1]], self.shown, "write both in pixels")

    def _focal(self, axis: str, side: int) -> float | None:
        """In pixels, for an image of `side` pixels along that axis."""
        if f"fl_{axis}" in self.settings:
            return self.settings[f"fl_{axis}"]
        angle = self.settings.get(f"camera_angle_{axis}")
        return None if angle is None else 0.5 * side / math.tan(angle / 2)


@dataclass(frozen=True)
class Frame:
    """The camera of a view. c2w: `[4, 4]` float64, axes as in the file."""

    c2w: np.ndarray
    lens: Lens


class StoredScene(Scene):
    """A scene in `folder` ('' or 'a/') of `storage`. file: the one that states its cameras, if there is one.

    frames: of all views, in order. images, other_files: names within `storage` of all files; an image for each view.
    """

    frames: list[Frame]
    images: list[str]
    other_files: list[str]

    def __init__(self, storage: Storage, folder: str, file: str = "") -> None:
        self.storage, self.folder, self.file = storage, folder, file
        self.name, self.shown = folder.rstrip("/") or storage.root.name, storage.shown(folder + file)

    def target_frames(self) -> dict[str, Frame] | None:
        """Cameras to draw from, by names; None if the files give none. They need no images."""
        return None

    def read_c2w(self, view: int) -> np.ndarray:
        return self.frames[view].c2w

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        """An image that is not square is squeezed, which normalised intrinsics describe exactly.

        It may have another size than the one that its intrinsics are for, but not another shape.
        """
        rgb, lens = self._read_image(view), self.frames[view].lens
        height, width = rgb.shape[:2]
        of_width, of_height = lens.size(width, height)
        if abs(width * of_height / (height * of_width) - 1) > ASPECT_TOLERANCE:
            raise InputError(
                f"{self.storage.shown(self.images[view])}: is {width}x{height} but its intrinsics are for {of_width}x"
                f"{of_height}; correct the size in {lens.shown}, or the image"
            )
        return to_square(rgb, resolution), lens.intrinsics(width, height)

    def image_size(self, view: int) -> tuple[int, int]:
        height, width = self._read_image(view).shape[:2]
        return width, height

    def read_targets(self) -> tuple[list[str], np.ndarray, np.ndarray] | None:
        targets = self.target_frames()
        if targets is None:
            return None
        size, frames = self.image_size(0), targets.values()
        intrinsics = np.stack([frame.lens.intrinsics(*size) for frame in frames])
        return list(targets), np.stack([frame.c2w for frame in frames]), intrinsics

    def file_states(self) -> Iterable[tuple]:
        for name in (*self.images, *self.other_files):
            yield name, *self.storage.state(name)

    def _read_image(self, view: int) -> np.ndarray:
        """uint8 `[H, W, 3]`."""
        return read_image(self.storage.read(self.images[view]), self.storage.shown(self.images[view]))
