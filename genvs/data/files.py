"""Parsers for the three files of a view: pose, intrinsics and image. They raise InputError for anything invalid.

Each takes a file's content, and its name for messages.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from genvs.data.storage import printable
from genvs.errors import InputError
from genvs.geometry import normalize_intrinsics

MIN_SIDE = 8
MAX_TRANSLATION = 1e6  # world units; beyond this a pose is damage, not a camera
ROTATION_TOLERANCE = 1e-3
FOCAL_RANGE = (0.05, 100.0)  # over the image's side: fields of view from 168 to 0.6 degrees
CENTER_RANGE = (-1.0, 2.0)  # a crop may lie beside its principal point
ASPECT_TOLERANCE = 0.02
PNG_DEPTH = 24  # the byte of a PNG that states how many bits its values have
EXIF_ORIENTATION = 0x0112


class Intrinsics(NamedTuple):
    """matrix: `[3, 3]` float64, in pixels of a width x height image."""

    matrix: np.ndarray
    width: int
    height: int


def read_pose(data: bytes, name: str) -> np.ndarray:
    """Camera-to-world `[4, 4]` float64, axes as in the file, from 16 numbers, row-major, on one line or on four."""
    rows, shown = _read_rows(data, name)
    values = [value for row in rows for value in row]
    if len(values) != 16:
        raise InputError(f"{shown}: has {len(values)} numbers; a pose is 16, a 4x4 camera-to-world matrix row by row")
    return checked_pose(np.array(values).reshape(4, 4), shown)


def checked_pose(c2w: np.ndarray, shown: str) -> np.ndarray:
    """Returns `c2w` `[4, 4]`. Raises InputError, naming `shown`, if it is not a rotation and a translation."""
    if np.abs(c2w[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"{shown}: the last row is not 0 0 0 1; write the camera-to-world matrix row by row")
    rotation = c2w[:3, :3]
    lengths = np.linalg.norm(rotation, axis=0)
    if np.abs(lengths - 1).max() > ROTATION_TOLERANCE:
        raise InputError(f"{shown}: the axes have lengths {_join(lengths)}, not 1; take the scale out of the rotation")
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > ROTATION_TOLERANCE:
        raise InputError(f"{shown}: the axes are not at right angles; write a rotation without shear")
    if np.linalg.det(rotation) < 0:
        raise InputError(f"{shown}: the axes are left-handed (a mirror image); write a rotation")
    if np.abs(c2w[:3, 3]).max() > MAX_TRANSLATION:
        raise InputError(f"{shown}: camera at {_join(c2w[:3, 3])}, beyond {MAX_TRANSLATION:g}; rescale the scene")
    return c2w


def read_intrinsics(data: bytes, name: str, width: int, height: int) -> Intrinsics:
    """Intrinsics in pixels, in either of two forms.

    SRN's: `f cx cy 0.` / three numbers / one number / `height width`. Or the 3x3 matrix, row by row, with or without a
    fourth line `height width`; without it, they are for an image of the given width and height.
    """
    rows, shown = _read_rows(data, name)
    lengths = [len(row) for row in rows]
    if lengths in ([4, 3, 1, 2], [3, 3, 1, 2]):
        focal, center_x, center_y = rows[0][:3]
        matrix = np.array([[focal, 0, center_x], [0, focal, center_y], [0, 0, 1]])
    elif lengths in ([3, 3, 3], [3, 3, 3, 2]):
        matrix = np.array(rows[:3])
        if np.abs(matrix[[1, 2, 2, 2], [0, 0, 1, 2]] - [0, 0, 0, 1]).max() > 1e-6:
            raise InputError(f"{shown}: not an intrinsics matrix; write fx s cx / 0 fy cy / 0 0 1, in pixels")
    else:
        raise InputError(
            f"{shown}: its lines hold {_join(lengths)} numbers; expected SRN's 'f cx cy 0.', '0. 0. 0.', '1.', "
            "'height width', or a 3x3 matrix"
        )
    if len(rows) == 4:
        if not all(map(is_side, rows[3])):
            raise InputError(f"{shown}: height and width {_join(rows[3])}; the last line is 'height width' in pixels")
        height, width = map(int, rows[3])
    normalized_intrinsics(matrix, width, height, shown)  # so that messages name this file, not the image
    return Intrinsics(matrix, width, height)


def is_side(number: float) -> bool:
    """Whether an image may have this width or height, pixels."""
    return number == int(number) and MIN_SIDE <= number <= 65536


def square_view(rgb: np.ndarray, intrinsics: Intrinsics, resolution: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 `[H, W, 3]` as `[3, resolution, resolution]`, and its normalised intrinsics `[3, 3]` float64.

    An image that is not square is squeezed, which normalised intrinsics describe exactly. It may have another size than
    the one that the intrinsics were written for, but not another shape.
    """
    shown = printable(name)
    height, width = rgb.shape[:2]
    matrix, of_width, of_height = intrinsics
    if abs(width * of_height / (height * of_width) - 1) > ASPECT_TOLERANCE:
        raise InputError(
            f"{shown}: is {width}x{height} but its intrinsics are for {of_width}x{of_height}; "
            "correct the size stated with the intrinsics (height and width) or the image"
        )
    return to_square(rgb, resolution), normalized_intrinsics(matrix, of_width, of_height, shown)


def _join(values) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _read_rows(data: bytes, name: str) -> tuple[list[list[float]], str]:
    """The finite numbers of a text file, by line, without empty lines; and its name for messages."""
    shown = printable(name)
    try:
        lines = data.decode("utf-8-sig").splitlines()
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except ValueError as error:
        reason = printable(str(error)[:80])
        raise InputError(f"{shown}: {reason}; use plain text, decimal points, and spaces between numbers") from None
    if not rows:
        raise InputError(f"{shown}: is empty; write its numbers, separated by spaces")
    if not all(math.isfinite(value) for row in rows for value in row):
        raise InputError(f"{shown}: a number is nan or infinite; every number must be finite")
    return rows, shown


def normalized_intrinsics(matrix: np.ndarray, width: int, height: int, shown: str) -> np.ndarray:
    """Intrinsics in pixels, normalised. Raises InputError for values that no real camera has."""
    normalized = normalize_intrinsics(torch.from_numpy(matrix), width, height).numpy()
    focal, center = normalized[[0, 1], [0, 1]], normalized[:2, 2]
    if focal.min() < FOCAL_RANGE[0] or focal.max() > FOCAL_RANGE[1]:
        raise InputError(
            f"{shown}: focal length {_join(matrix[[0, 1], [0, 1]])} makes no sense for {width}x{height} pixels; "
            "give it in pixels"
        )
    if center.min() < CENTER_RANGE[0] or center.max() > CENTER_RANGE[1] or abs(normalized[0, 1]) > 1:
        raise InputError(
            f"{shown}: principal point {_join(matrix[:2, 2])} or skew makes no sense for {width}x{height} pixels; "
            "give them in pixels"
        )
    return normalized


def read_image(data: bytes, name: str) -> np.ndarray:
    """A PNG or JPEG as uint8 RGB `[H, W, 3]`, with transparency composited on white.

    Gray, palette and 16-bit images are converted. Damaged, animated and rotated images are refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _open(data).verify()  # compares checksums, which decoding does not
            return _decode(_open(data), data)
    except UnidentifiedImageError:
        fault = "is empty" if not data else "is neither PNG nor JPEG, or damaged"
        remedy = "replace it by the image, saved as PNG"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        fault, remedy = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels", "save it smaller"
    except InputError as error:
        fault, _, remedy = str(error).partition("; ")
    except Exception as error:  # a decoder may raise anything for a damaged file
        fault = f"cannot be decoded ({printable(str(error)[:100])})"
        remedy = "copy or download it again, or save it as PNG"
    raise InputError(f"{printable(name)}: {fault}; {remedy}")


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])


def _decode(image: Image.Image, data: bytes) -> np.ndarray:
    """uint8 `[H, W, 3]`. Raises InputError without the file's name."""
    if min(image.size) < MIN_SIDE:
        raise InputError(f"{image.size} pixels; give an image of at least {MIN_SIDE}x{MIN_SIDE}")
    if getattr(image, "is_animated", False):
        raise InputError("is animated; save one frame as PNG")
    image.load()
    if image.info.get("exif") and image.getexif().get(EXIF_ORIENTATION, 1) != 1:
        raise InputError("its EXIF data ask for a rotation; save it upright, as its camera is meant")
    if image.mode in ("CMYK", "LAB"):
        raise InputError(f"has print colours ({image.mode}); save it as RGB")
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:  # Pillow has reduced the colours to 8 bits
        raise InputError("has a transparent colour of 16 bits; save it as RGBA")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip rather than scale
        values = np.asarray(image).astype(np.int64)
        gray = np.where(values == transparent, 255, (values + 128) // 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "L" and transparent is not None:  # Pillow scales gray to 8 bits, but not this value
        image.info["transparency"] *= 255 // (2 ** data[PNG_DEPTH] - 1)
    if image.mode not in ("RGBA", "LA", "PA", "La") and transparent is None:
        return np.asarray(image.convert("RGB"))
    rgba = image.convert("RGBA")
    on_white = Image.new("RGB", rgba.size, "white")
    on_white.paste(rgba, mask=rgba.getchannel("A"))
    return np.asarray(on_white)


def to_square(rgb: np.ndarray, resolution: int) -> np.ndarray:
    """Resize uint8 `[H, W, 3]` to `[3, resolution, resolution]`, antialiased: area means where whole pixels merge."""
    height, width = rgb.shape[:2]
    if (height, width) != (resolution, resolution):
        whole = height % resolution == 0 and width % resolution == 0
        resampling = Image.Resampling.BOX if whole else Image.Resampling.BICUBIC
        rgb = np.asarray(Image.fromarray(rgb).resize((resolution, resolution), resampling))
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))
