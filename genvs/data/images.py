"""Decoding and resizing of images."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from genvs.data.storage import printable
from genvs.errors import InputError

MIN_SIDE, MAX_SIDE = 8, 65536  # pixels
PNG_DEPTH = 24  # the byte of a PNG that states how many bits its values have
EXIF_ORIENTATION = 0x0112


def read_image(data: bytes, name: str) -> np.ndarray:
    """A PNG or JPEG as uint8 RGB `[H, W, 3]`, with transparency composited on white.

    name: for messages. Gray, palette and 16-bit images are converted. Raises InputError for damaged, animated and
    rotated images.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _open(data).verify()  # compares checksums, which decoding does not
            return _decode(_open(data), data)
    except UnidentifiedImageError:
        fault = "is empty" if not data else "is neither PNG nor JPEG, or damaged"
        reason = f"{fault}; replace it by the image, saved as PNG"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        reason = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; save it smaller"
    except InputError as error:
        reason = str(error)
    except Exception as error:  # a decoder may raise anything for a damaged file
        reason = f"cannot be decoded ({printable(str(error)[:100])}); copy or download it again, or save it as PNG"
    raise InputError(f"{printable(name)}: {reason}")


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
