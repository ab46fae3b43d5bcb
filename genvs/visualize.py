"""Pictures of tensors, and labelled contact sheets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, linalg

SHEET_TILE = 192  # contact sheet: smallest side of a picture, pixels
FEATURES_CAPTION = (
    "Colours of a feature image: the three directions in which the rendered features vary most (principal components)."
)
# Of a contact sheet: the labels of its columns, and by name its rows of pictures `[H, W, 3]` uint8, one per column.
Band = tuple[Sequence[str], Mapping[str, Sequence[np.ndarray] | np.ndarray]]


def to_uint8(images: Tensor) -> np.ndarray:
    """Images `[..., 3, H, W]`, float in [-1, 1] (clamped) to `[..., H, W, 3]` uint8."""
    return (images.movedim(-3, -1).clamp(-1, 1) * 127.5 + 127.5).round().byte().cpu().numpy()


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


def enlarge(picture: np.ndarray, side: int) -> Image.Image:
    """Enlarge `[H, W, 3]` uint8 by the smallest integer factor that makes its shorter side at least `side` pixels."""
    image = Image.fromarray(picture)
    factor = max(1, math.ceil(side / min(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS)


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
