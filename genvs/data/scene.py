"""A scene: its images and cameras, in files of any format."""

import abc
from collections.abc import Iterable, Sequence

import numpy as np

from genvs.data.camera_checks import checked_intrinsics, checked_pose
from genvs.data.framing import WHOLE_ON_WHITE, Framing
from genvs.data.storage import counted, printable
from genvs.errors import InputError


class Scene(abc.ABC):
    """One scene's images and cameras.

    name: within its dataset. shown: its name in messages, usually its path. view_names: one for each view, in order,
    usable as file names. convention: the axes that poses in such files usually have, 'opencv' or 'opengl'. certain:
    whether they always have them. framing: how images become square, which the dataset sets.
    """

    name: str
    shown: str
    view_names: list[str]
    convention = "opencv"
    certain = False
    framing: Framing = WHOLE_ON_WHITE
    modalities: Sequence[str] = ("rgb",)

    @abc.abstractmethod
    def read_c2w(self, view: int) -> np.ndarray:
        """Camera-to-world `[4, 4]` float64, as in the files."""

    @abc.abstractmethod
    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        """The image, uint8 RGB `[3, resolution, resolution]`, and its intrinsics `[3, 3]`, normalised."""

    def read_picture(
        self, view: int, resolution: int, modality: str, planes: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """`read_view` for a modality other than rgb. planes: near and far of the view, in units of the files."""
        raise InputError(f"{self.shown}: {type(self).__name__} has no read_picture for {modality}; define it")

    def picture_size(self, view: int, modality: str) -> tuple[int, int] | None:
        """`image_size` for a modality other than rgb."""
        return None

    def picture_states(self, modality: str) -> Iterable[tuple]:
        """`file_states` for a modality other than rgb."""
        raise InputError(f"{self.shown}: {type(self).__name__} has no picture_states for {modality}; define it")

    def image_size(self, view: int) -> tuple[int, int] | None:
        """Width and height of the stored image, pixels; None if unknown."""
        return None

    def read_depths(self) -> np.ndarray | None:
        """near and far of each view, world units as in the files, `[N, 2]`; None if the files do not tell them."""
        return None

    def read_targets(self) -> tuple[list[str], np.ndarray, np.ndarray] | None:
        """K cameras that the files give to draw from, besides those of the views; None if they give none.

        Their names, usable as file names; c2w `[K, 4, 4]`, as in the files; intrinsics `[K, 3, 3]`, normalised.
        """
        return None

    def file_states(self) -> Iterable[tuple]:
        """Name, size and time of change of every file. Packs and evaluations recognise unchanged data by them."""
        raise InputError(
            f"{self.shown}: {type(self).__name__} has no file_states, which packs and evaluation need; define it "
            "(docs/data.md)"
        )

    def checked_c2w(self, view: int) -> np.ndarray:
        """`read_c2w`, checked. Raises InputError, naming the view, if it is not a rotation and a translation."""
        return checked_pose(self.read_c2w(view), self.shown_view(view))

    def all_c2w(self) -> np.ndarray:
        """The poses of all views, `[N, 4, 4]` float64, as in the files. Raises what `checked_c2w` raises."""
        return np.stack([self.checked_c2w(view) for view in range(len(self.view_names))])

    def shown_view(self, view: int) -> str:
        """A view's name in messages."""
        return f"{self.shown}: view {printable(str(self.view_names[view]))}"

    def checked_view(
        self, view: int, side: int, modality: str = "rgb", planes: tuple[float, float] = (1.0, 2.0)
    ) -> tuple[np.ndarray, np.ndarray]:
        """`read_view` or `read_picture`, checked. planes: depth pictures alone depend on them.

        Raises InputError, naming the view, for other shapes or intrinsics in pixels.
        """
        is_photo = modality == "rgb"
        read = self.read_view(view, side) if is_photo else self.read_picture(view, side, modality, planes)
        image, intrinsics = map(np.asarray, read)
        shown = f"{self.shown_view(view)}: {type(self).__name__}"
        if (image.shape, image.dtype, intrinsics.shape) != ((3, side, side), np.uint8, (3, 3)):
            raise InputError(
                f"{shown} gives an image {image.dtype} {list(image.shape)} and intrinsics {list(intrinsics.shape)}; "
                f"give uint8 {[3, side, side]} and [3, 3]"
            )
        remedy = "divide row 0 by the image's width and row 1 by its height, in pixels"
        return image, checked_intrinsics(intrinsics, shown, remedy)

    def require_views(self, min_views: int) -> None:
        """Raises InputError if there are fewer views."""
        if len(self.view_names) < min_views:
            raise InputError(
                f"{self.shown}: has {counted(len(self.view_names), 'view')} where {min_views} are needed (inputs and "
                "targets); ask for fewer views, or remove this scene"
            )
