"""Pictures for people: tensors as colours, and labelled contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, linalg

SHEET_TILE = 192  # contact sheet: smallest side of a picture, pixels


@dataclass(frozen=True)
class Column:
    """One column of a contact sheet: a label above pictures `[H, W, 3]` uint8, from top to bottom."""

    label: str
    pictures: Sequence[np.ndarray]


def to_uint8(images: Tensor) -> np.ndarray:
    """Images `[..., 3, H, W]`, float in [-1, 1] (clamped) to `[..., H, W, 3]` uint8."""
    return (images.movedim(-3, -1).clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu().numpy()


def feature_colors(feature_images: Tensor) -> np.ndarray:
    """Feature images `[K, C, H, W]` as colours `[K, H, W, 3]` uint8, by one map for all K of them.

    Red, green and blue are the three directions in which the features of ALL given images vary most (principal
    components), each squashed by a logistic with its own spread; so colours are comparable between the images of one
    call. A direction's sign is chosen so that a zero feature, an empty ray, comes out mid-gray or lighter.
    """
    pixels = feature_images.float().movedim(1, -1)
    mean = pixels.mean(dim=(0, 1, 2))
    centered = (pixels - mean).flatten(0, 2)
    variances, directions = linalg.eigh(centered.T @ centered / len(centered))
    variances, directions = variances[-3:].flip(0), directions[:, -3:].flip(1)
    directions = directions * (1 - 2 * (-mean @ directions < 0).float())
    # A direction without spread carries rounding errors only: the floor turns it into an even gray.
    spread = variances.clamp(min=1e-6 * float(pixels.square().mean()) + 1e-12).sqrt()
    colors = (0.7 * centered @ directions / spread).sigmoid()
    colors = F.pad(colors, (0, 3 - colors.shape[1]), value=0.5)
    return (colors * 255).round().byte().cpu().numpy().reshape(*pixels.shape[:3], 3)


def enlarge(picture: np.ndarray, side: int) -> Image.Image:
    """Enlarge `[H, W, 3]` uint8 by the smallest whole factor that brings its shorter side to `side` pixels."""
    image = _as_pil(picture)
    factor = math.ceil(side / min(image.size))
    if factor <= 1:
        return image
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)


def contact_sheet(title: str, bands: Sequence[tuple[Sequence[str], Sequence[Column]]]) -> Image.Image:
    """Lay out labelled pictures for a look at a whole run.

    bands: from top to bottom; each is (names of its picture rows, its columns), and a column has one picture for each
    name. A band with many columns is wrapped.
    """
    tile = enlarge(bands[0][1][0].pictures[0], SHEET_TILE)
    font, small = ImageFont.load_default(20), ImageFont.load_default(15)
    margin, header = 24, 64
    gutter = margin + max(math.ceil(small.getlength(name)) for names, _ in bands for name in names) + 16
    most = max(len(columns) for _, columns in bands)
    per_line = min(most, max(8, math.ceil(math.sqrt(2 * most))))
    lines = [
        (names, columns[start : start + per_line])
        for names, columns in bands
        for start in range(0, len(columns), per_line)
    ]
    gap, label_height = 8, 26
    heights = [label_height + len(names) * (tile.height + gap) + margin for names, _ in lines]
    width = max(gutter + per_line * (tile.width + gap), gutter + math.ceil(font.getlength(title))) + margin
    sheet = Image.new("RGB", (width, header + sum(heights)), "#f3f3f3")
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, 20), title, fill="#111111", font=font)
    for index, (names, columns) in enumerate(lines):
        top = header + sum(heights[:index])
        rows = [top + label_height + row * (tile.height + gap) for row in range(len(names))]
        for name, y in zip(names, rows, strict=True):
            draw.text((margin, y + tile.height / 2), name, fill="#555555", font=small, anchor="lm")
        for place, column in enumerate(columns):
            x = gutter + place * (tile.width + gap)
            draw.text((x, top + 4), _shorten(column.label, small, tile.width), fill="#111111", font=small)
            for picture, y in zip(column.pictures, rows, strict=True):
                sheet.paste(enlarge(picture, SHEET_TILE), (x, y))
    return sheet


def _as_pil(picture: np.ndarray | Image.Image) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else Image.fromarray(picture)


def _shorten(text: str, font, width: float) -> str:
    """Cut the middle out of a text that is wider than `width` pixels: names differ at their ends."""
    keep = len(text)
    shown = text
    while font.getlength(shown) > width and keep > 2:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
    return shown
