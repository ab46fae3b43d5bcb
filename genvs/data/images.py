"""Decoding and resizing of images."""

import io
import warnings

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from genvs.data.storage import printable
from genvs.errors import InputError

MIN_SIDE, MAX_SIDE = 8, 65536  # pixels
ASPECT_TOLERANCE = 0.02
PNG_DEPTH = 24  # the byte of a PNG that states how many bits its values have
EXIF_ORIENTATION = 0x0112
QUARTER_TURNS = range(5, 9)  # orientations that exchange width and height; 2 to 4 are mirrored or upside down
MAX_LABEL = 31  # of a mask that numbers objects; brighter ones are shades
WHITE_RGB = (255, 255, 255)


def read_image(
    data: bytes,
    name: str,
    background: tuple[int, ...] = WHITE_RGB,
    mask: np.ndarray | None = None,
    size: tuple[int, int] | None = None,
    as_stored: bool = False,
) -> np.ndarray:
    """A PNG, JPEG or WebP as uint8 RGB `[H, W, 3]`, with `background` behind what is transparent or masked.

    name: for messages. mask: uint8 `[h, w]` of the same aspect ratio, 0 for background. size: width and height, or
    multiples of both, for which the camera's intrinsics are stated; a photo with an EXIF rotation of 90 degrees is
    rotated or left as it is stored, whichever fits them. as_stored: photos are left as they are stored if `size` does
    not settle it. Gray, palette and 16-bit images are converted. Raises InputError for damaged and animated images, and
    for EXIF orientations that are not settled.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _open(data).verify()  # compares checksums, which decoding does not
            return _composite(_decode(_open(data), data, size, as_stored), background, mask)
    except UnidentifiedImageError:
        fault = "is empty" if not data else "is neither PNG, JPEG nor WebP, or damaged"
        reason = f"{fault}; replace it by the image, saved as PNG"
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        reason = f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels; save it smaller"
    except InputError as error:
        reason = str(error)
    except Exception as error:  # a decoder may raise anything for a damaged file
        reason = f"cannot be decoded ({printable(str(error)[:100])}); copy or download it again, or save it as PNG"
    raise InputError(f"{printable(name)}: {reason}")


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"])


def _decode(image: Image.Image, data: bytes, size: tuple[int, int] | None, as_stored: bool) -> Image.Image:
    """8-bit RGB, or RGBA if parts may be transparent, upright. Raises InputError without the file's name."""
    if min(image.size) < MIN_SIDE:
        raise InputError(f"has {image.width}x{image.height} pixels; give an image of at least {MIN_SIDE}x{MIN_SIDE}")
    if image.format in ("PNG", "WEBP") and getattr(image, "is_animated", False):  # phones put small copies into a JPEG
        raise InputError("is animated; save one frame as PNG")
    image.load()
    orientation = image.getexif().get(EXIF_ORIENTATION, 1) if image.info.get("exif") else 1
    if orientation in range(2, 9):  # others mean nothing, such as 0, which many phones write
        fits, turned = (size is not None and same_shape(size, side) for side in (image.size, image.size[::-1]))
        if not as_stored and (orientation not in QUARTER_TURNS or fits == turned):
            raise InputError(
                "its EXIF data ask for a rotation, and nothing tells whether its camera is meant with it; save it "
                "upright if it is, otherwise without that mark (exiftool -Orientation=)"
            )
        if turned and not fits:
            image = ImageOps.exif_transpose(image)
    if image.mode in ("CMYK", "LAB"):
        raise InputError(f"has print colours ({image.mode}); save it as RGB")
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:  # Pillow has reduced the colours to 8 bits
        raise InputError("has a transparent colour of 16 bits; save it as RGBA")
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow would clip rather than scale
        values = np.asarray(image).astype(np.int64)
        alpha = np.where(values == transparent, 0, 255)
        return Image.fromarray(np.stack([(values + 128) // 257, alpha], axis=-1).astype(np.uint8)).convert("RGBA")
    if image.mode == "L" and transparent is not None:  # Pillow scales gray to 8 bits, but not this value
        image.info["transparency"] *= 255 // (2 ** data[PNG_DEPTH] - 1)
    opaque = image.mode not in ("RGBA", "LA", "PA", "La") and transparent is None
    return image.convert("RGB" if opaque else "RGBA")


def eight_bits(image: Image.Image) -> Image.Image:
    """A gray image of 16 bits, which Pillow would clip, as one of 8; any other as it is."""
    return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)) if image.mode.startswith("I") else image


def same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two images of this width and height can be the same one, resized."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) <= ASPECT_TOLERANCE


def _composite(image: Image.Image, background: tuple[int, ...], mask: np.ndarray | None) -> np.ndarray:
    """An image in RGB or RGBA on `background`, as uint8 `[H, W, 3]`. Raises InputError for a mask of another shape."""
    if mask is None and image.mode == "RGB":
        return np.asarray(image)
    alpha = image.getchannel("A") if image.mode == "RGBA" else Image.new("L", image.size, 255)
    if mask is not None:
        given = Image.fromarray(mask)
        if not same_shape(given.size, image.size):
            raise InputError(f"is {image.width}x{image.height}, its mask {given.width}x{given.height}; make it again")
        alpha = ImageChops.multiply(alpha, given.resize(image.size, Image.Resampling.BILINEAR))
    result = Image.new("RGB", image.size, background)
    result.paste(image.convert("RGB"), mask=alpha)
    return np.asarray(result)


def read_mask(data: bytes, name: str) -> np.ndarray:
    """A mask, uint8 `[H, W]`: 0 for background. Raises InputError as `read_image`.

    If any pixel is transparent, the alpha channel is the mask. The brightest pixels count as fully inside, since
    palettes of labels have colours such as (128, 0, 0). An image without bright pixels holds label numbers, and all but
    0 are inside.
    """
    read_image(data, name)
    with _open(data) as image:
        gray = np.asarray(image if image.mode.startswith("I") else image.convert("RGBA"))  # labels may have 16 bits
    if gray.ndim == 3:
        gray = gray[..., 3] if gray[..., 3].min() < 255 else gray[..., :3].max(axis=2)
    if gray.max() <= MAX_LABEL:
        return np.where(gray > 0, 255, 0).astype(np.uint8)
    return (gray * (255.0 / gray.max())).round().astype(np.uint8)


def read_gray(data: bytes, name: str) -> np.ndarray:
    """A gray image `[H, W]`: uint16 as stored if it has 16 bits, else uint8.

    Raises InputError as `read_image`, and for colours.
    """
    rgb = read_image(data, name, background=(0, 0, 0))
    if (rgb != rgb[..., :1]).any():
        raise InputError(f"{printable(name)}: is in colour; replace it by a gray picture, or move a photo to rgb/")
    with _open(data) as image:
        return np.asarray(image).astype(np.uint16) if image.mode.startswith("I") else rgb[..., 0]


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a stored image, pixels. Raises OSError for what is no image."""
    with _open(data) as image:
        return image.size


def square_depths(depths: np.ndarray, resolution: int) -> np.ndarray:
    """Resize depths `[H, W]`, 0 without a return, to `[resolution, resolution]` float64.

    Where whole pixels merge, a pixel is the mean of those with a return, if these are at least half of them; for other
    sizes, the nearest one.
    """
    height, width = depths.shape
    if height % resolution or width % resolution:
        rows, columns = (((np.arange(resolution) + 0.5) * side / resolution).astype(int) for side in (height, width))
        return depths[np.ix_(rows, columns)].astype(np.float64)
    cells = depths.reshape(resolution, height // resolution, resolution, width // resolution).astype(np.float64)
    returns = (cells > 0).sum(axis=(1, 3))
    enough = 2 * returns * resolution**2 >= depths.size
    return np.where(enough, cells.sum(axis=(1, 3)) / np.maximum(returns, 1), 0)


def to_square(rgb: np.ndarray, resolution: int) -> np.ndarray:
    """Resize uint8 `[H, W, 3]` to `[3, resolution, resolution]`, antialiased: area means where whole pixels merge."""
    height, width = rgb.shape[:2]
    if (height, width) != (resolution, resolution):
        whole = height % resolution == 0 and width % resolution == 0
        resampling = Image.Resampling.BOX if whole else Image.Resampling.BICUBIC
        rgb = np.asarray(Image.fromarray(rgb).resize((resolution, resolution), resampling))
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))
