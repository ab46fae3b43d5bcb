"""Pictures of tensors, and labelled contact sheets."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
import torch.nn.functional as F
from PIL import GifImagePlugin, Image, ImageDraw, ImageFont
from torch import Tensor, linalg

from genvs.modalities import from_levels

SHEET_TILE = 192  # contact sheet: smallest side of a picture, pixels
GIF_SIDE = 256  # GIFs are big for what they show
FEATURES_CAPTION = (
    "Colours of a feature image: the three directions in which the rendered features vary most (principal components)."
)
# Of a contact sheet: the labels of its columns, and by name its rows of pictures `[H, W, 3]` uint8, one per column.
Band = tuple[Sequence[str], Mapping[str, Sequence[np.ndarray] | np.ndarray]]


def to_uint8(images: Tensor) -> np.ndarray:
    """Images `[..., 3, H, W]`, float in [-1, 1] (clamped) to `[..., H, W, 3]` uint8."""
    return from_levels(images.movedim(-3, -1).clamp(-1, 1)).round().byte().cpu().numpy()


def feature_colors(feature_images: Tensor, fitted_to: Tensor | None = None) -> np.ndarray:
    """Feature images `[K, C, H, W]` as colours `[K, H, W, 3]` uint8.

    Red, green and blue are the three directions in which the features of all the images `fitted_to`, by default the
    same, vary most (principal components), each squashed by a logistic with the direction's own spread. Colours can be
    compared between images that are fitted to the same ones. A direction's sign is chosen so that a zero feature, an
    empty ray, is mid-gray or lighter.
    """
    pixels = (feature_images if fitted_to is None else fitted_to).float().movedim(1, -1)
    mean = pixels.mean(dim=(0, 1, 2))
    centered = (pixels - mean).flatten(0, 2)
    variances, directions = linalg.eigh(centered.T @ centered / len(centered))
    variances, directions = variances[-3:].flip(0), directions[:, -3:].flip(1)
    directions = directions * (1 - 2 * (-mean @ directions < 0).float())
    # A direction without spread carries rounding errors only: the floor turns it into an even gray.
    spread = variances.clamp(min=1e-6 * float(pixels.square().mean()) + 1e-12).sqrt()
    components = (feature_images.float().movedim(1, -1) - mean) @ directions
    squashed = (0.7 * components / spread).sigmoid()
    squashed = F.pad(squashed, (0, 3 - squashed.shape[-1]), value=0.5)
    return (squashed * 255).round().byte().cpu().numpy()


def draw_cameras(
    c2w: np.ndarray, intrinsics: np.ndarray, target: np.ndarray, side: int, *, num_black: int = 0
) -> np.ndarray:
    """Cameras as wire pyramids, from the first one (blue) to the last one (red), and a cross at `target`.

    c2w: `[N, 4, 4]`, OpenCV axes. intrinsics: `[N, 3, 3]`, normalised. target: `[3]`, world. num_black: number of
    cameras, the first ones, that are black. Returns an orthographic picture from 30 degrees above, uint8
    `[side, side, 3]`. "Above" is where the tops of the images point, on average.
    """
    corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]) @ np.linalg.inv(intrinsics).mT
    apexes = c2w[:, :3, 3]
    extent = np.linalg.norm(apexes - target, axis=1).max()
    bases = apexes[:, None] + 0.15 * extent * corners @ c2w[:, :3, :3].mT
    up = -c2w[:, :3, 1].mean(axis=0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-3 else np.array([0.0, 0.0, 1.0])
    right = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    right = right / np.linalg.norm(right)
    look = math.cos(math.pi / 6) * np.cross(up, right) - math.sin(math.pi / 6) * up
    axes = np.stack([right, np.cross(look, right), look], axis=1)
    points = (np.concatenate([apexes[:, None], bases], axis=1) - target) @ axes  # [N, 5, 3]: x, y, distance
    scale = 0.95 * side / max(np.abs(points[..., :2]).max(), 1e-9)  # on a canvas of twice the side, for smooth lines
    canvas = Image.new("RGB", (2 * side, 2 * side), "white")
    draw = ImageDraw.Draw(canvas)
    for axis in np.concatenate([axes, -axes])[:, :2] * (0.1 * extent * scale):
        draw.line([side, side, *(side + axis)], fill="#999999", width=3)
    for number in points[:, 0, 2].argsort()[::-1]:
        blue_to_red = (number - num_black) / max(1, len(points) - num_black - 1)
        color = (int(30 + 190 * blue_to_red), 70, int(220 - 190 * blue_to_red)) if blue_to_red >= 0 else (0, 0, 0)
        apex, *base = map(tuple, side + scale * points[number, :, :2])
        draw.line([*base, base[0]], fill=color, width=3)
        for corner in base:
            draw.line([apex, corner], fill=color, width=2)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX))


def enlarge(picture: np.ndarray, side: int) -> Image.Image:
    """Enlarge `[H, W, 3]` uint8 by the smallest integer factor that makes its shorter side at least `side` pixels."""
    image = Image.fromarray(picture)
    factor = max(1, math.ceil(side / min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)


def also_as_gif(file: BinaryIO, frames: Iterable[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    """Yields frames `[H, W, 3]` uint8, each once it is in the file: an endless GIF of `GIF_SIDE` pixels or more.

    Pillow's own `save` keeps all frames in memory.
    """
    # ms. GIFs count in hundredths of a second, and viewers show frames of less than two of them more slowly.
    duration = 10 * max(2, round(100 / fps))
    for number, frame in enumerate(frames):
        picture = enlarge(frame, GIF_SIDE).quantize(256, dither=Image.Dither.NONE)
        head = [] if number else GifImagePlugin.getheader(picture, info={"loop": 0})[0]
        file.writelines([*head, *GifImagePlugin.getdata(picture, duration=duration, include_color_table=True)])
        yield frame
    file.write(b";")


def contact_sheet(title: str, bands: Sequence[Band], caption: str = "") -> Image.Image:
    """Lay out bands of pictures on one page, from top to bottom. A wide band is wrapped. caption: a line below them."""
    tile = enlarge(next(iter(bands[0][1].values()))[0], SHEET_TILE)
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    margin, header, gap, label_height = 24, 64, 8, 26
    gutter = margin + max(math.ceil(small.getlength(name)) for _, rows in bands for name in rows) + 16
    most = max(len(labels) for labels, _ in bands)
    per_line = min(most, max(8, math.ceil(math.sqrt(2 * most))))
    lines = [
        (labels[start : start + per_line], {name: row[start : start + per_line] for name, row in rows.items()})
        for labels, rows in bands
        for start in range(0, len(labels), per_line)
    ]
    longest = math.ceil(max(font.getlength(title), small.getlength(caption)))
    width = gutter + max(per_line * (tile.width + gap), longest) + margin
    bottom = header + sum(label_height + len(rows) * (tile.height + gap) + margin for _, rows in lines)
    sheet = Image.new("RGB", (width, bottom + (margin if caption else 0)), "#f3f3f3")
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 20), title, fill="#111111", font=font)
    draw.text((margin, bottom), caption, fill="#555555", font=small, anchor="lm")
    y = header
    for labels, rows in lines:
        places = [gutter + column * (tile.width + gap) for column in range(len(labels))]
        for label, x in zip(labels, places, strict=True):
            draw.text((x, y + 4), _shorten(label, small, tile.width), fill="#111111", font=small)
        y += label_height
        for name, pictures in rows.items():
            draw.text((margin, y + tile.height / 2), name, fill="#555555", font=small, anchor="lm")
            for picture, x in zip(pictures, places, strict=True):
                sheet.paste(enlarge(picture, SHEET_TILE), (x, y))
            y += tile.height + gap
        y += margin
    return sheet


def _shorten(text: str, font, width: float) -> str:
    """Cut the start off a text that is wider than `width` pixels: names differ at their ends."""
    while font.getlength(text) > width:
        text = f"…{text[2:]}"
    return text
