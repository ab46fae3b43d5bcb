"""Curves as a picture, with nothing but Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 960, 540, 72
PENS = (("#1f5fd0", 2), ("#f0a050", 5), ("#b0b0b0", 2))  # a wide one shows where it lies under a narrow one
FAINT = ("#8fb0e8", 1)


def draw_curves(
    curves: dict[str, np.ndarray],
    title: str,
    crowd: Sequence[np.ndarray] = (),
    *,
    at: Sequence[float] = (),
    end: float = 0,
    linear: bool = False,
) -> Image.Image:
    """At most three curves of positive values on a logarithmic scale, or of any on a linear one; the first lies on top.

    crowd: more of them, without names, faint, under all others. at: where each curve has its values, from 0 at the left
    to `end` at the right; by default they are spread over the width.
    """
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)

    def level(values: np.ndarray | float) -> np.ndarray:
        return np.asarray(values) if linear else np.log10(np.maximum(values, 1e-12))

    levels = level(np.concatenate([*curves.values(), *crowd]))
    low, high = float(levels.min()), float(levels.max())
    scale = (HEIGHT - 2 * MARGIN) / max(high - low, 1e-6)
    draw.text((MARGIN, 20), title, fill="black", font=font)
    for mark in _marks(low, high) if linear else _log_marks(low, high):
        y = MARGIN + (high - float(level(mark))) * scale
        draw.line([(MARGIN, y), (WIDTH - MARGIN, y)], fill="#e4e4e4")
        draw.text((MARGIN - 8, y), f"{mark:g}", fill="#555555", font=font, anchor="rm")

    def draw_curve(values: np.ndarray, colour: str, width: int) -> None:
        places = np.divide(at, end) if at else np.linspace(0, 1, len(values))
        x = MARGIN + places * (WIDTH - 2 * MARGIN)
        points = zip(x.tolist(), (MARGIN + (high - level(values)) * scale).tolist(), strict=True)
        draw.line(list(points), fill=colour, width=width)

    for values in crowd:
        draw_curve(values, *FAINT)
    for place, (name, values) in reversed(list(enumerate(curves.items()))):
        colour, width = PENS[place]
        draw_curve(values, colour, width)
        draw.text((MARGIN + 300 * place, HEIGHT - MARGIN + 24), name, fill=colour, font=font)
    return sheet


def _marks(low: float, high: float) -> list[float]:
    """Round numbers between low and high, in even steps."""
    step = 10.0 ** math.floor(math.log10(high - low) - 0.3)
    return [step * count for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between 10^low and 10^high; where that is not even a decade, even steps."""
    if high - low < 1:
        return _marks(10**low, 10**high)
    decades = range(math.floor(low), math.ceil(high) + 1)
    marks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    return [mark for mark in marks if low <= math.log10(mark) <= high]
