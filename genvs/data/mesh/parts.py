"""What a mesh file is read into: parts with their paints, and textures, found beside the mesh and decoded."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates

from genvs.data.images import eight_bits
from genvs.data.storage import folded, not_a_pointer, printable
from genvs.data.synthetic.shading import Array
from genvs.errors import InputError

Index = NDArray[np.integer]
GAZEBO_TEXTURES = "materials/textures"  # beside the folder of a mesh: of models for Gazebo, as Google's scanned objects
PLAIN = 0.6  # gray of meshes without colours, as displayed


class Texture:
    """An image, RGB or RGBA, and its mip levels, each the averages of 2 x 2 texels of the one before, as displayed.

    wrap: what lies beyond the image in u and in v, 'repeat', 'mirror' or 'clamp'. smooth: bilinear, else nearest.
    """

    def __init__(self, image: Image.Image, wrap: Sequence[str] = ("repeat", "repeat"), smooth: bool = True) -> None:
        self.wrap, self.smooth, self.channels = wrap, smooth, len(image.getbands())
        self.levels = [np.asarray(image)]
        while max(image.size) > 1:
            width, height = image.size
            image = image.resize((max(width // 2, 1), max(height // 2, 1)), Image.Resampling.BOX)
            self.levels.append(np.asarray(image))

    def sample(self, uv: Array, spacing: Array) -> Array:
        """Displayed values `[N, 3 or 4]` in [0, 1] at uv `[N, 2]`, which has its origin at the upper left corner.

        spacing: `[N]`, of the samples in uv. The values are interpolated between the two levels with such texels.
        """
        height, width = self.levels[0].shape[:2]
        level = np.log2(np.maximum(spacing * np.sqrt(width * height), 1)).clip(max=len(self.levels) - 1)
        values = np.zeros((len(uv), self.channels), dtype=np.float32)
        for number, texels in enumerate(self.levels):
            share = 1 - np.abs(level - number).astype(np.float32)
            hits = np.flatnonzero(share > 0)
            if len(hits):
                values[hits] += share[hits, None] * self._interpolated(texels, uv[hits])
        return values / 255

    def _interpolated(self, texels: NDArray[np.uint8], uv: Array) -> Array:
        """A texel has its value at its centre."""
        places = []
        for across, size, wrap in zip(uv.T, texels.shape[1::-1], self.wrap, strict=True):
            if wrap == "mirror":
                across = 1 - np.abs(across % 2 - 1)
            place = across * size - 0.5
            places.append(place if wrap == "repeat" else place.clip(0, size - 1))
        order = 1 if self.smooth else 0
        channels = [
            map_coordinates(texels[..., channel], places[::-1], np.float32, order, mode="grid-wrap")
            for channel in range(self.channels)
        ]
        return np.stack(channels, -1)


class Paint(NamedTuple):
    """Colours of corners `[F, 3, 4]`, linear light and opacity, times a texture at uv `[F, 3, 2]`.

    cutoff: if it is not 0, what is less opaque is invisible, and the rest is opaque.
    """

    colors: Array
    uv: Array
    texture: Texture | None = None
    cutoff: float = 0.0

    @classmethod
    def plain(cls, color: Array, faces: int) -> Paint:
        """Of one colour `[3]`."""
        return cls(np.broadcast_to([*color, 1], (faces, 3, 4)), np.zeros((faces, 3, 2)))


class Part(NamedTuple):
    """Triangles with one texture: corners and normals `[F, 3, 3]`, in the file's axes. normals: 0 where there is none.

    paint reflects light, glow emits it.
    """

    corners: Array
    normals: Array
    paint: Paint
    glow: Paint | None = None


def find_beside(mesh: Path, name: str, folder: Path | None = None) -> Path:
    """A file that a mesh names by its path from `folder`, or from its own folder, as any platform spells it; or else by
    that from GAZEBO_TEXTURES.

    Of a path on the computer that exported it, as much of the end is taken as there is here.
    """
    name = name.strip().strip('"').removeprefix("file://")
    slashes = name.replace("\\", "/")
    elsewhere = bool(PureWindowsPath(name).drive) or slashes.startswith("/")
    windows = slashes.encode(errors="surrogateescape").decode("cp1252", "replace")  # if it is not UTF-8
    for beside in (folder or mesh.parent, mesh.parent, mesh.parent.parent / GAZEBO_TEXTURES):
        for spelling in (name, slashes, unquote(slashes), windows):  # a URI has %20 for a space
            parts = PurePosixPath(spelling).parts
            for start in range(1, len(parts)) if elsewhere else [0]:
                path = _reached(beside, parts[start:])
                if path and path.is_file():
                    return path
    raise InputError(f"{printable(mesh)}: {printable(name[:200])} is not there; put it where the mesh looks for it")


def read_file(path: Path) -> bytes:
    """Its content. Raises InputError for a pointer to it."""
    return not_a_pointer(path.read_bytes(), printable(path))


def _reached(folder: Path, parts: Sequence[str]) -> Path | None:
    """Where a path leads to from a folder. Names may be written otherwise (`folded`) if that is no other file."""
    for part in parts:
        path = folder / part
        alike = [] if path.exists() else [file for file in folder.glob("*") if folded(file.name) == folded(part)]
        if len(alike) > 1:
            return None
        folder = alike[0] if alike else path
    return folder


def read_image(mesh: Path, name: str, data: bytes, mode: str = "RGB") -> Image.Image:
    """A texture as RGB or RGBA. Raises InputError where it cannot be decoded."""
    shown = f"{printable(mesh)}: its texture {printable(name[:200])}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = eight_bits(Image.open(io.BytesIO(data)))
        if image.mode == "F":
            raise ValueError("floating point")
        return image.convert(mode)
    except Image.DecompressionBombError:
        raise InputError(
            f"{shown} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; save it smaller"
        ) from None
    except Exception as error:  # a decoder may raise anything for a damaged file
        reason = printable(str(error).partition("<")[0][:100])
        raise InputError(f"{shown} is damaged or of a kind that is not read ({reason}); use PNG") from None


def to_linear(color: Array) -> Array:
    """sRGB values in [0, 1], as displayed, to linear light (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def to_display(color: Array) -> Array:
    """The inverse of `to_linear`."""
    return np.where(color <= 0.0031308, color * 12.92, 1.055 * np.maximum(color, 1e-9) ** (1 / 2.4) - 0.055)
