"""What is painted on a car's shells: windows, lamps, grilles, doors, stripes. Each in the shell's rest frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genvs.data.synthetic import catalog
from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.catalog import PLATE, TRIM, random_paint
from genvs.data.synthetic.parts import Decal, Finish
from genvs.data.synthetic.shading import Array

REACH = 0.42  # how far behind an end its decals go round the corner, metres


def _rounded(horizontal: Array, vertical: Array, radius: float) -> np.ndarray:
    """Inside a shape with rounded corners, given the distances to its nearest vertical and horizontal edge."""
    corner = np.maximum(radius - horizontal, 0) ** 2 + np.maximum(radius - vertical, 0) ** 2
    return (horizontal > 0) & (vertical > 0) & (corner < radius**2)


def patch(
    shape: Shape, end: int, finish: Finish, x: tuple[float, float], z: tuple[float, float], radius=0.0, slant=0.0
) -> Decal:
    """A rounded rectangle on the front (`end` 1) or rear (-1), on both sides: |x| and z within limits, metres.

    slant: how much higher it is per metre further out.
    """
    limit = shape.length / 2 - REACH

    def covers(p: Array) -> np.ndarray:
        across = np.abs(p[:, 0])
        height = p[:, 2] - slant * (across - x[0])
        inside = _rounded(np.minimum(across - x[0], x[1] - across), np.minimum(height - z[0], z[1] - height), radius)
        return inside & (end * p[:, 1] > limit)

    return covers, finish


def window_decals(shape: Shape, kind: str, glass: Finish, rng: np.random.Generator) -> list[Decal]:
    """Windscreen, rear window and side windows, on the cabin."""
    pillar, gap = rng.uniform(0.06, 0.11), rng.uniform(0.07, 0.11)
    rounding = rng.uniform(0.02, 0.1)
    rear, front = shape.y(shape.base_at), shape.y(shape.cowl_at)
    long = front - rear
    doors = front - long * rng.uniform(0.44, 0.54)  # the B pillar, between front and rear windows
    if long < 1.75:
        doors = -9.0  # a cabin with one row of seats has one window a side
    quarter = rear + long * rng.uniform(0.14, 0.26) if kind in ("suv", "wagon", "van") or rng.random() < 0.4 else -9.0
    panel_van = kind == "van" and rng.random() < 0.5
    if panel_van:
        doors = front - min(0.4 * long, 1.75)
    belt = rng.uniform(0.02, 0.06)

    def sides(p: Array) -> np.ndarray:
        x, along, z = p.T
        outside = np.abs(x) > shape.cabin_half_width(along, z) - 0.025
        vertical = np.minimum(z - shape.top(along) - belt, np.minimum(shape.roof(along), shape.height - 0.03) - gap - z)
        horizontal = np.minimum(np.abs(along - doors), np.abs(along - quarter)) - pillar / 2
        if panel_van:
            horizontal = along - doors
        return outside & _rounded(horizontal, vertical, rounding)

    def ends(p: Array) -> np.ndarray:
        across, along, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        frame = shape.cabin_half_width(along, z) - across - pillar
        sloping = (along > shape.y(shape.screen_at)) | (along < shape.y(shape.roof_end_at))
        vertical = np.minimum(z - shape.top(along) - belt, shape.height - 0.6 * gap - 0.03 - z)
        return sloping & _rounded(frame, vertical, rounding) & (z > shape.roof(along) - 0.3)

    return [(sides, glass), (ends, glass)]


def _front(shape: Shape, rng: np.random.Generator) -> list[Decal]:
    """Headlights, grille, lower intake, bumper and number plate."""
    low, room = shape.clearance, shape.nose - shape.clearance
    width = float(shape.half_width(shape.length / 2)) - 0.06
    middle, lamp = low + room * rng.uniform(0.6, 0.72), rng.uniform(0.13, 0.21)
    inner, round_lamps = width * rng.uniform(0.48, 0.66), rng.random() < 0.22
    slant = rng.uniform(-0.05, 0.3)
    patches: list[tuple] = []
    if rng.random() < 0.35:
        patches.append((TRIM, (-1, 9), (0, low + 0.38 * room)))
    lamps = (inner, inner + lamp if round_lamps else 9.0)
    z = (middle - lamp / 2, middle + lamp / 2)
    lamp_radius = lamp / 2 if round_lamps else rng.uniform(0.01, 0.07)
    patches.append((catalog.HEADLIGHT, lamps, z, lamp_radius, 0.0 if round_lamps else slant))
    if not round_lamps and rng.random() < 0.25:
        patches.append((catalog.INDICATOR, (width * 0.97, 9), z, 0.01, slant))
    style = rng.integers(4)
    if style < 3:
        wide = inner - 0.04 if style == 0 else width * rng.uniform(0.2, 0.42)
        deep = (z[0] + 0.03, z[1] - 0.02) if style != 1 else (low + 0.3 * room, z[1] + 0.02)
        if rng.random() < 0.5:
            patches.append((catalog.CHROME, (-1, wide + 0.03), (deep[0] - 0.025, deep[1] + 0.025), 0.03))
        patches.append((TRIM, (-1, wide), deep, 0.02))
    mouth = width * rng.uniform(0.4, 0.85)
    patches.append((TRIM, (-1, mouth), (low + 0.04, low + room * rng.uniform(0.2, 0.34)), 0.04))
    patches.append((PLATE, (-1, 0.26), (low + 0.3 * room, low + 0.3 * room + 0.11)))
    return [patch(shape, 1, *each) for each in patches]


def _rear(shape: Shape, rng: np.random.Generator) -> list[Decal]:
    """Tail lights, bumper and number plate."""
    low, room = shape.clearance, shape.tail - shape.clearance
    width = float(shape.half_width(shape.length / 2)) - 0.06
    middle, lamp = low + room * rng.uniform(0.62, 0.72), rng.uniform(0.12, 0.3)
    inner = width * rng.uniform(0.5, 0.82)
    z = (middle - lamp / 2, middle + lamp / 2)
    patches: list[tuple] = []
    if rng.random() < 0.45:
        patches.append((TRIM, (-1, 9), (0, low + room * rng.uniform(0.25, 0.4))))
    patches.append((catalog.TAILLIGHT, (inner, 9), z, rng.uniform(0.01, 0.06), rng.uniform(-0.1, 0.2)))
    if rng.random() < 0.2:
        patches.append((catalog.TAILLIGHT, (-1, inner), (middle - 0.03, middle + 0.03)))
    elif rng.random() < 0.4:
        patches.append((catalog.INDICATOR, (inner, 9), (z[0], z[0] + lamp / 4)))
    place = middle - rng.choice([0.06, 0.3]) * room
    patches.append((PLATE, (-1, 0.26), (place - 0.06, place + 0.06)))
    return [patch(shape, -1, *each) for each in patches]


def _sides(shape: Shape, kind: str, rng: np.random.Generator) -> list[Decal]:
    """Door gaps, handles, sills, and cladding round the arches."""
    rear, front = shape.y(shape.base_at), shape.y(shape.cowl_at)
    sill = shape.clearance + 0.1
    start = front - 0.12
    cuts: Sequence[float] = [start, start - 1.15]
    if kind in ("sedan", "wagon", "hatchback", "suv") and rng.random() < 0.75:
        cuts = [start, start - 0.95, max(start - 1.9, shape.axles[1] + 0.75 * shape.arch_radius, rear)]
    cladding = rng.uniform(0.08, 0.16) if kind in ("suv", "pickup") and rng.random() < 0.6 else 0.0
    sill_trim = shape.clearance + rng.uniform(0.05, 0.14)
    dark_sill = cladding > 0 or rng.random() < 0.5
    strip = rng.random() < 0.25
    inner = shape.width / 2 * (1 - shape.bulge) - 0.05

    def gaps(p: Array) -> np.ndarray:
        nearest = np.abs(p[:, 1:2] - np.array(cuts, dtype=p.dtype)).min(1)
        return (nearest < 0.012) & (np.abs(p[:, 0]) > inner) & (p[:, 2] > sill)

    def handles(p: Array) -> np.ndarray:
        behind = p[:, 1:2] - np.array(cuts[1:], dtype=p.dtype) - 0.14
        drop = shape.top(p[:, 1]) - 0.2 - p[:, 2]
        return (np.abs(behind).min(1) < 0.09) & (np.abs(drop) < 0.022) & (np.abs(p[:, 0]) > inner)

    def dark(p: Array) -> np.ndarray:
        squared = np.min([(p[:, 1] - axle) ** 2 for axle in shape.axles], axis=0) + (p[:, 2] - shape.wheel_radius) ** 2
        between = (p[:, 1] < shape.axles[0]) & (p[:, 1] > shape.axles[1])
        arches = squared < (shape.arch_radius + cladding) ** 2 if cladding else False
        return ((p[:, 2] < sill_trim) & between & dark_sill) | arches

    def rub_strip(p: Array) -> np.ndarray:
        height = p[:, 2] - shape.clearance - 0.45 * (shape.cowl - shape.clearance)
        return (np.abs(height) < 0.03) & (np.abs(p[:, 0]) > inner)

    decals: list[Decal] = [
        (gaps, catalog.LINE),
        (handles, TRIM if rng.random() < 0.5 else catalog.CHROME),
        (dark, TRIM),
    ]
    return decals + [(rub_strip, TRIM)] if strip else decals


def stripe_decals(shape: Shape, rng: np.random.Generator) -> tuple[list[Decal], list[Decal]]:
    """Decals in a second colour for the body and for the cabin: stripes, two tones, or most often none."""
    style, second = rng.random(), random_paint(rng)
    height = shape.clearance + (0.2 + 0.6 * rng.random()) * (shape.nose - shape.clearance)
    bonnet = shape.y(shape.cowl_at) - 0.1
    if style < 0.12:
        inner = rng.choice([-1.0, rng.uniform(0.04, 0.12)])
        outer = abs(inner) % 1 + rng.uniform(0.14, 0.32)

        def along_top(p: Array) -> np.ndarray:
            across = np.abs(p[:, 0])
            return (across > inner) & (across < outer) & (p[:, 2] > 0.75 * shape.nose)

        return [(along_top, second)], [(along_top, second)]
    if style < 0.2:
        return [(lambda p: np.abs(p[:, 2] - height) < 0.06, second)], []
    if style < 0.28:
        return [(lambda p: p[:, 2] < height, second)], []
    if style < 0.38:
        return [], [(lambda p: p[:, 2] > shape.top(p[:, 1]), second)]
    if style < 0.42:
        return [(lambda p: (p[:, 1] > bonnet) & (p[:, 2] > 0.93 * shape.nose), TRIM)], []
    return [], []


def body_decals(shape: Shape, kind: str, rng: np.random.Generator) -> list[Decal]:
    """All decals on the body except stripes."""
    decals = _sides(shape, kind, rng) + _front(shape, rng) + _rear(shape, rng)
    if shape.open_bed:
        rear, front = shape.bed
        lining = catalog.UNDER if rng.random() < 0.6 else catalog.STEEL

        def inside(p: Array) -> np.ndarray:
            within = (p[:, 1] > rear - 0.01) & (p[:, 1] < front + 0.01)
            return within & (np.abs(p[:, 0]) < shape.half_width(p[:, 1]) * (1 - shape.bulge) - 0.085)

        decals.append((inside, lining))
    if kind == "truck":
        chassis = shape.y(shape.base_at) - 0.03
        decals.append((lambda p: (p[:, 1] < chassis) & (p[:, 2] < 0.8 * shape.deck), catalog.UNDER))
    return decals
