"""A scene: its images and cameras, in files of any format."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from genvs.data.files import FOCAL_RANGE, Intrinsics, checked_pose, read_image, square_view
from genvs.data.storage import Storage, counted, printable
from genvs.errors import InputError


class Targets(NamedTuple):
    """K cameras to draw from.

    names: usable as file names. c2w: `[K, 4, 4]`, as in the files. intrinsics: `[K, 3, 3]`, normalised.
    """

    names: list[str]
    c2w: np.ndarray
    intrinsics: np.ndarray


class Scene(abc.ABC):
    """One scene's images and cameras.

    name: within its dataset. shown: its name in messages, usually its path. view_names: one for each view, in order,
    usable as file names. convention: the axes that poses in such files usually have, 'opencv' or 'opengl'.
    """

    name: str
    shown: str
    view_names: list[str]
    convention = "opencv"

    @abc.abstractmethod
    def read_c2w(self, view: int) -> np.ndarray:
        """Camera-to-world `[4, 4]` float64, as in the files."""

    @abc.abstractmethod
    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        """The image, uint8 RGB `[3, resolution, resolution]` on white, and its intrinsics `[3, 3]`, normalised."""

    def image_size(self, view: int) -> tuple[int, int] | None:
        """Width and height of the stored image, pixels; None if unknown."""
        return None

    def read_targets(self) -> Targets | None:
        """Cameras that the files give to draw from, besides those of the views; None if they give none."""
        return None

    def file_states(self) -> Iterable[tuple]:
        """Name, size and time of change of every file. Packs and evaluations recognise unchanged data by them."""
        raise InputError(
            f"{self.shown}: {type(self).__name__} has no file_states, which packs and evaluation need; define it "
            "(docs/data.md)"
        )

    def checked_c2w(self, view: int) -> np.ndarray:
        """`read_c2w`, checked. Raises InputError, naming the view, if it is not a rotation and a translation."""
        found, shown = self.read_c2w(view), self.shown_view(view)
        try:
            c2w = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            c2w = np.empty(0)
        if c2w.shape != (4, 4) or not np.isfinite(c2w).all():
            raise InputError(f"{shown}: its pose is not 4x4 finite numbers; write camera-to-world, row by row")
        return checked_pose(c2w, shown)

    def all_c2w(self) -> np.ndarray:
        """The poses of all views, `[N, 4, 4]` float64, as in the files. Raises what `checked_c2w` raises."""
        return np.stack([self.checked_c2w(view) for view in range(len(self.view_names))])

    def shown_view(self, view: int) -> str:
        """A view's name in messages."""
        return f"{self.shown}: view {printable(str(self.view_names[view]))}"

    def checked_view(self, view: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """`read_view`, checked. Raises InputError, naming the view, for other shapes or intrinsics in pixels."""
        image, intrinsics = map(np.asarray, self.read_view(view, side))
        shown = f"{self.shown_view(view)}: {type(self).__name__}"
        if (image.shape, image.dtype, intrinsics.shape) != ((3, side, side), np.uint8, (3, 3)):
            raise InputError(
                f"{shown} gives an image {image.dtype} {list(image.shape)} and intrinsics {list(intrinsics.shape)}; "
                f"give uint8 {[3, side, side]} and [3, 3]"
            )
        numbers = intrinsics.dtype.kind in "fiu" and np.isfinite(intrinsics).all()
        if not numbers or not all(FOCAL_RANGE[0] <= intrinsics[axis, axis] <= FOCAL_RANGE[1] for axis in (0, 1)):
            raise InputError(
                f"{shown} gives intrinsics without a usable focal length; divide row 0 by the image's width and row 1 "
                "by its height, in pixels"
            )
        return image, intrinsics

    def require_views(self, min_views: int) -> None:
        """Raises InputError if there are fewer views."""
        if len(self.view_names) < min_views:
            raise InputError(
                f"{self.shown}: has {counted(len(self.view_names), 'view')} where {min_views} are needed (inputs and "
                "targets); ask for fewer views, or remove this scene"
            )


class StoredScene(Scene):
    """A scene with an image file for each view. images, other_files: names within `storage` of all its files."""

    storage: Storage
    images: list[str]
    other_files: list[str]

    @abc.abstractmethod
    def read_intrinsics(self, view: int, width: int, height: int) -> Intrinsics:
        """The intrinsics of a view, in pixels. width, height: of its image, pixels."""

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        image = self._read_image(view)
        intrinsics = self.read_intrinsics(view, image.shape[1], image.shape[0])
        return square_view(image, intrinsics, resolution, self.storage.shown(self.images[view]))

    def image_size(self, view: int) -> tuple[int, int]:
        height, width = self._read_image(view).shape[:2]
        return width, height

    def file_states(self) -> Iterable[tuple]:
        for name in (*self.images, *self.other_files):
            yield name, *self.storage.state(name)

    def _read_image(self, view: int) -> np.ndarray:
        """uint8 `[H, W, 3]`."""
        return read_image(self.storage.read(self.images[view]), self.storage.shown(self.images[view]))
