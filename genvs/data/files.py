"""Parsers for the three files of a view: pose, intrinsics and image. Each returns what is valid or raises InputError.

Every parser takes a path, or the bytes of a file together with the name to show in messages. All work and memory are
bounded, whatever the file holds.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable
from os import PathLike
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from genvs.data.storage import printable, read_bytes
from genvs.errors import InputError
from genvs.geometry import normalize_intrinsics

MAX_TEXT_BYTES = 64 * 1024
MAX_IMAGE_BYTES = 128 * 1024**2
MAX_PIXELS = 64_000_000
MAX_PNG_CHUNKS = 65_536
MIN_SIDE = 8
MAX_TRANSLATION = 1e6  # world units; beyond this a pose is damage, not a camera
ROTATION_TOLERANCE = 1e-3
FOCAL_RANGE = (0.05, 100.0)  # over the image's side: fields of view from 168 to 0.6 degrees
CENTER_RANGE = (-1.0, 2.0)  # a crop may lie beside its principal point
ASPECT_TOLERANCE = 0.02
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DEPTH = 24  # where a PNG says how many bits its values have
EXIF_ORIENTATION = 0x0112

Source = str | PathLike[str] | bytes


class Intrinsics(NamedTuple):
    """matrix: `[3, 3]` float64, in pixels of a width x height image; no size where the file states none."""

    matrix: np.ndarray
    width: int | None
    height: int | None


IntrinsicsOfSize = Callable[[int, int], Intrinsics]  # from an image's width and height, pixels


def read_pose(source: Source, name: str = "") -> np.ndarray:
    """Camera-to-world `[4, 4]` float64, axes as in the file, from 16 numbers, row-major, on one line or on four."""
    rows, shown = _read_rows(source, name)
    values = [value for row in rows for value in row]
    if len(values) != 16:
        raise InputError(f"{shown}: has {len(values)} numbers; a pose is 16, a 4x4 camera-to-world matrix row by row")
    return checked_pose(np.array(values).reshape(4, 4), shown)


def checked_pose(c2w: np.ndarray, shown: str) -> np.ndarray:
    """`c2w` `[4, 4]` itself. Raises InputError, naming `shown`, where it is no rotation and translation."""
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


def read_intrinsics(source: Source, name: str = "") -> Intrinsics:
    """Intrinsics in pixels, in either of two forms.

    SRN's: `f cx cy 0.` / three numbers / one number / `height width`. Or the 3x3 matrix, row by row, with or without a
    fourth line `height width`. Without one, `read_view` takes the image's own size.
    """
    rows, shown = _read_rows(source, name)
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
    if len(rows) == 3:
        return Intrinsics(matrix, None, None)
    height, width = rows[3]
    if not all(side == int(side) and MIN_SIDE <= side <= 65536 for side in (width, height)):
        raise InputError(f"{shown}: height {height:g}, width {width:g}; the last line is 'height width' in pixels")
    normalized_intrinsics(matrix, int(width), int(height), shown)
    return Intrinsics(matrix, int(width), int(height))


def image_size(source: Source, name: str = "") -> tuple[int, int]:
    """Width and height of an image, pixels."""
    height, width = _decode(source, name)[0].shape[:2]
    return width, height


def read_view(
    source: Source, intrinsics: Intrinsics | IntrinsicsOfSize, resolution: int, name: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """A PNG or JPEG as uint8 RGB `[3, resolution, resolution]`, and its normalised intrinsics `[3, 3]` float64.

    Transparency is composited on white before resizing; gray, palette and 16-bit images are converted. A non-square
    image is squeezed: with normalised intrinsics that is exact, for pixel centres keep their place.
    The image may have another size than the one that the intrinsics were written for, but not another shape.
    """
    rgb, shown = _decode(source, name)
    height, width = rgb.shape[:2]
    if callable(intrinsics):
        intrinsics = intrinsics(width, height)
    of_width, of_height = intrinsics.width or width, intrinsics.height or height
    if abs(width * of_height / (height * of_width) - 1) > ASPECT_TOLERANCE:
        raise InputError(
            f"{shown}: is {width}x{height} but its intrinsics are for {of_width}x{of_height}; "
            "correct the size stated with the intrinsics (height and width) or the image"
        )
    return to_square(rgb, resolution), normalized_intrinsics(intrinsics.matrix, of_width, of_height, shown)


def _join(values) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _content(source: Source, name: str, limit: int) -> tuple[bytes, str]:
    if not isinstance(source, bytes):
        return read_bytes(source, limit), printable(source)
    if len(source) > limit:
        raise InputError(f"{printable(name)}: {len(source):,} bytes, more than the {limit:,} allowed; check this file")
    return source, printable(name)


def _read_rows(source: Source, name: str) -> tuple[list[list[float]], str]:
    """The finite numbers of a text file, by line, without the empty lines; and its name to show."""
    data, shown = _content(source, name, MAX_TEXT_BYTES)
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{shown}: not plain text; save it as UTF-8 with numbers separated by spaces") from None
    rows = [[_number(word, shown) for word in line.split()] for line in lines]
    if not any(rows):
        raise InputError(f"{shown}: is empty; write its numbers, separated by spaces")
    return [row for row in rows if row], shown


def _number(word: str, shown: str) -> float:
    try:
        value = float(word)
    except ValueError:
        word = printable(word[:20])
        raise InputError(f"{shown}: '{word}' is not a number; use spaces between numbers, and decimal points") from None
    if not math.isfinite(value):
        raise InputError(f"{shown}: holds '{printable(word[:20])}'; every number must be finite")
    return value


def normalized_intrinsics(matrix: np.ndarray, width: int, height: int, shown: str) -> np.ndarray:
    """Intrinsics in pixels to normalised ones, refused where no real camera has them."""
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


def _decode(source: Source, name: str) -> tuple[np.ndarray, str]:
    """A whole, undamaged image as uint8 RGB `[H, W, 3]` on white; and its name to show."""
    data, shown = _content(source, name, MAX_IMAGE_BYTES)
    if data.startswith(PNG_SIGNATURE):
        _check_png(data, shown)
    elif not data.startswith(b"\xff\xd8\xff"):
        what = "is empty" if not data else "is neither PNG nor JPEG"
        raise InputError(f"{shown}: {what}; replace it by the image, saved as PNG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=["PNG", "JPEG"])
            _check_size(*image.size, shown)
            image.load()
            if image.info.get("exif") and image.getexif().get(EXIF_ORIENTATION, 1) != 1:
                raise InputError(f"{shown}: its EXIF data ask for a rotation; save it upright, as its camera is meant")
            if image.mode == "L" and "transparency" in image.info:  # which Pillow scales to 8 bits, but not this value
                image.info["transparency"] *= 255 // (2 ** data[PNG_DEPTH] - 1)
            return _rgb_on_white(image, shown), shown
    except InputError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{shown}: more than {MAX_PIXELS:,} pixels; save it smaller") from None
    except Exception as error:  # a decoder may raise anything on a hostile file
        reason = printable(str(error)[:100])
        raise InputError(f"{shown}: cannot be decoded ({reason}); replace it by a whole image") from None


def _check_png(data: bytes, shown: str) -> None:
    """Refuse a PNG that is cut, damaged anywhere, or animated: a decoder overlooks little damage."""
    offset = len(PNG_SIGNATURE)
    for _ in range(MAX_PNG_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, offset) if offset + 12 <= len(data) else (len(data), b"")
        end = offset + 12 + length
        if end > len(data):
            raise InputError(f"{shown}: is cut off after {len(data):,} bytes; copy or download it again")
        if zlib.crc32(memoryview(data)[offset + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise InputError(f"{shown}: is damaged near byte {offset:,} (checksum); copy or download it again")
        if (kind == b"IHDR") != (offset == len(PNG_SIGNATURE)):
            raise InputError(f"{shown}: is damaged (its header is not once, at the start); copy or download it again")
        if kind == b"acTL":
            raise InputError(f"{shown}: is animated; save one frame as PNG")
        if kind == b"IEND":
            return
        offset = end
    raise InputError(f"{shown}: has more than {MAX_PNG_CHUNKS:,} chunks; save it again as PNG")


def _check_size(width: int, height: int, shown: str) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{shown}: {width}x{height} is more than {MAX_PIXELS:,} pixels; save it smaller")
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{shown}: {width}x{height} pixels; give an image of at least {MIN_SIDE}x{MIN_SIDE}")


def _rgb_on_white(image: Image.Image, shown: str) -> np.ndarray:
    """uint8 `[H, W, 3]`."""
    if image.mode in ("CMYK", "LAB"):
        raise InputError(f"{shown}: has print colours ({image.mode}); save it as RGB")
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip rather than scale
        values = np.asarray(image).astype(np.int64)
        gray = np.where(values == transparent, 255, (values + 128) // 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if isinstance(transparent, tuple) and max(transparent) > 255:  # the colours have 8 bits by now
        raise InputError(f"{shown}: has a transparent colour of 16 bits; save it as RGBA")
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
