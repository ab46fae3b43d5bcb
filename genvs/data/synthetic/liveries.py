"""Liveries: stripes, two tones, numbers, lettering, panels of wood, camouflage and dirt, painted on body and cabin."""

from collections.abc import Callable, Sequence

import numpy as np

from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.catalog import TRIM, random_paint
from genvs.data.synthetic.parts import Decal, Finish
from genvs.data.synthetic.shading import Array

# Glyphs of 3 x 5 squares, the bits of a number, from the top left: 0 to 9, then A E F H L P T U.
GLYPHS = [31599, 11415, 29671, 29647, 23497, 31183, 31215, 29257, 31727, 31695]
GLYPHS += [11245, 31207, 31204, 23533, 18727, 31716, 29842, 23407]
WHITE, BLACK = (0.92, 0.92, 0.91, 0.0, 1.0), (0.06, 0.06, 0.06, 0.0, 1.0)
Painted = tuple[list[Decal], list[Decal]]  # on the body, and on the cabin


def lettering(text: Sequence[int], center: tuple[float, float], height: float) -> Callable[[Array], np.ndarray]:
    """A row of glyphs (indices) on both sides of a car, `center`: y and z."""
    square = height / 5
    bits = np.array([[GLYPHS[glyph] >> (14 - place) & 1 for place in range(15)] for glyph in text], dtype=bool)
    spaced = np.pad(bits.reshape(-1, 5, 3), ((0, 0), (0, 0), (0, 1)))
    drawn = np.pad(spaced.transpose(1, 0, 2).reshape(5, -1), 1)

    def covers(p: Array) -> np.ndarray:
        along = np.sign(p[:, 0]) * (p[:, 1] - center[0]) / square + 2 * len(text) + 0.5
        down = (center[1] - p[:, 2]) / square + 3.5
        row, column = np.clip(down, 0, 6).astype(int), np.clip(along, 0, drawn.shape[1] - 1).astype(int)
        return drawn[row, column]

    return covers


def blotches(rng: np.random.Generator, size: float) -> Callable[[Array], Array]:
    """A smooth random function of place, mostly in [-1, 1], with patches of about this size."""
    waves = rng.normal(0, 2 / size, (4, 3)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 4).astype(np.float32)

    def value(p: Array) -> Array:
        terms = [
            np.sin(p[:, 0] * x + p[:, 1] * y + p[:, 2] * z + phase)
            for (x, y, z), phase in zip(waves, phases, strict=True)
        ]
        return sum(terms[1:], terms[0]) / 2

    return value


def _stripes(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """Along the top, one or two."""
    inner = rng.choice([-1.0, rng.uniform(0.04, 0.12)])
    outer, low = abs(inner) % 1 + rng.uniform(0.14, 0.32), 0.75 * shape.nose

    def covers(p: Array) -> np.ndarray:
        across = np.abs(p[:, 0])
        return (across > inner) & (across < outer) & (p[:, 2] > low)

    return [(covers, color)], [(covers, color)]


def _band(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """Along the sides: a line, a band, or all below it."""
    height = shape.clearance + (0.25 + 0.6 * rng.random()) * (shape.nose - shape.clearance)
    half = rng.choice([0.03, 0.08, 0.15, 9.0])
    middle = height - half if half > 1 else height
    return [(lambda p: np.abs(p[:, 2] - middle) < half, color)], []


def _roof(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """The cabin, or only what is above its windows, in the second colour."""
    low = 0.0 if rng.random() < 0.5 else shape.height - 0.16
    return [], [(lambda p: p[:, 2] > np.maximum(shape.top(p[:, 1]), low), color)]


def _bonnet(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    start = shape.y(shape.cowl_at) - 0.1
    return [(lambda p: (p[:, 1] > start) & (p[:, 2] > 0.93 * shape.nose), color if rng.random() < 0.4 else TRIM)], []


def _swoosh(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """Slanting fields of colour: all ahead of a line across the car, or between two."""
    place, slope = rng.uniform(-0.3, 0.3) * shape.length, rng.uniform(-2, 2)
    ahead, wide = rng.choice([-1, 1]), rng.choice([0.3, 0.6, 9.0])

    def covers(p: Array) -> np.ndarray:
        beyond = ahead * (p[:, 1] - place - slope * (p[:, 2] - 0.7))
        return (beyond > 0) & (beyond < wide)

    return [(covers, color)], [(covers, color)]


def _checkers(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """A band of squares along the sides."""
    size, middle = rng.uniform(0.07, 0.2), shape.clearance + 0.6 * (shape.nose - shape.clearance)

    def covers(p: Array) -> np.ndarray:
        odd = (np.floor(p[:, 1] / size) + np.floor((p[:, 2] - middle) / size)) % 2 == 0
        return odd & (np.abs(p[:, 2] - middle) < size)

    return [(covers, BLACK if rng.random() < 0.5 else color)], []


def _wood(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """Panels of wood on the sides, with grain."""
    low, start = shape.clearance + 0.2, shape.y(shape.cowl_at) - 0.1
    grain, inner = blotches(rng, 0.05), shape.width / 2 * (1 - shape.bulge) - 0.06

    def covers(p: Array) -> Array:
        panel = (p[:, 1] < start) & (p[:, 2] > low) & (p[:, 2] < shape.cowl - 0.14) & (np.abs(p[:, 0]) > inner)
        return panel * np.clip(0.85 + 0.15 * grain(p * np.array((0, 0.05, 1), p.dtype)), 0, 1)

    return [(covers, (0.52, 0.32, 0.14, 0.0, 1.0))], []


def _camouflage(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    size = rng.uniform(0.3, 0.9)
    first, second = blotches(rng, size), blotches(rng, size)
    dark = tuple(0.5 * value for value in color[:3]) + (0.0, 1.0)
    decals: list[Decal] = [(lambda p: first(p) > 0.25, color), (lambda p: second(p) > 0.5, dark)]
    return decals, decals


def _lettered(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """A firm's name on the doors, or on the high sides of a van."""
    room = shape.height - shape.clearance if shape.height > 1.7 else shape.cowl - shape.clearance
    height, middle = rng.uniform(0.16, 0.3) * room, shape.clearance + 0.55 * room
    text = rng.integers(10, len(GLYPHS), rng.integers(3, 7)).tolist()
    decals: list[Decal] = [(lettering(text, (-0.1 * shape.length, middle), height), color)]
    return decals, decals


def number(shape: Shape, color: Finish, rng: np.random.Generator) -> Painted:
    """A racing number on the doors, most often on a roundel."""
    low, room = shape.clearance, shape.cowl - shape.clearance
    y, z, radius = rng.uniform(-0.15, 0.05) * shape.length, low + 0.58 * room, rng.uniform(0.38, 0.5) * room
    roundel: Decal = (lambda p: (p[:, 1] - y) ** 2 + (p[:, 2] - z) ** 2 < radius**2, WHITE)
    plain = rng.random() < 0.3
    digits = rng.integers(10, size=rng.integers(1, 3)).tolist()
    drawn: Decal = (lettering(digits, (y, z), 1.1 * radius), color if plain else BLACK)
    return ([drawn] if plain else [roundel, drawn]), []


def dirt(shape: Shape, rng: np.random.Generator) -> Decal:
    """Dust and mud, thicker below."""
    noise, amount = blotches(rng, rng.uniform(0.15, 0.5)), rng.uniform(0.2, 0.9)
    top = shape.clearance + rng.uniform(0.2, 0.8) * (shape.cowl - shape.clearance)

    def covers(p: Array) -> Array:
        return amount * np.clip(0.5 + (top - p[:, 2]) / 0.5 + 0.6 * noise(p), 0, 1)

    brown = np.array([0.42, 0.34, 0.24]) * rng.uniform(0.5, 1.2)
    return covers, (*brown.tolist(), 0.0, 1.0)


STYLES = {_stripes: 0.09, _band: 0.13, _roof: 0.09, _bonnet: 0.03, _swoosh: 0.05, _checkers: 0.02, _wood: 0.02}
STYLES |= {_camouflage: 0.015, _lettered: 0.05, number: 0.03}


def random_livery(shape: Shape, racing: bool, rng: np.random.Generator) -> Painted:
    """Up to two styles in a second colour, and on few cars dirt; racing cars always have numbers, stripes or fields."""
    painters = [painter for painter, chance in STYLES.items() if rng.random() < chance]
    if racing:
        painters = [(_stripes, _band, _swoosh, _checkers, _lettered)[rng.integers(5)], _swoosh, number]
    body: list[Decal] = []
    cabin: list[Decal] = []
    for painter in painters[-3:]:
        second = WHITE if rng.random() < 0.3 else random_paint(rng)
        on_body, on_cabin = painter(shape, second, rng)
        body, cabin = body + on_body, cabin + on_cabin
    return body + [dirt(shape, rng)] if rng.random() < 0.1 else body, cabin
