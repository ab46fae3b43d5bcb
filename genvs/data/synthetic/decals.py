"""What is painted on a car's shells: windows, lamps, grilles, doors, stripes. Each in the shell's rest frame."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from genvs.data.synthetic import catalog
from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.catalog import PLATE, TRIM
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


def window_decals(shape: Shape, kind: str, glass: Finish | None, rng: np.random.Generator) -> list[Decal]:
    """Windscreen, rear window and side windows, on the cabin, on some in frames of chrome or rubber. glass: None if
    they are open.
    """
    pillar, gap = rng.uniform(0.05, 0.11), rng.uniform(0.06, 0.11)
    rounding = rng.uniform(0.02, 0.1)
    rear, front = shape.y(shape.base_at), shape.y(shape.cowl_at)
    long = front - rear
    posts = [front - long * rng.uniform(0.44, 0.54)] if long > 1.75 else []  # one row of seats has one window a side
    if kind in ("suv", "estate", "van", "offroad") or rng.random() < 0.4:
        posts.append(rear + long * rng.uniform(0.14, 0.26))
    if kind in ("minibus", "limousine"):
        posts = np.linspace(front - 0.9, rear, round(long / rng.uniform(0.75, 1.1)))[:-1].tolist()
    panel_end = front - min(0.4 * long, 1.75) if kind == "van" and rng.random() < 0.5 else -9.0
    belt = rng.uniform(0.02, 0.06)

    def sides(p: Array, wider: float = 0.0) -> np.ndarray:
        x, along, z = p.T
        outside = np.abs(x) > shape.cabin_half_width(along, z) - 0.025
        vertical = np.minimum(z - shape.top(along) - belt, np.minimum(shape.roof(along), shape.height - 0.03) - gap - z)
        horizontal = along - panel_end
        for post in posts:
            horizontal = np.minimum(horizontal, np.abs(along - post) - pillar / 2)
        return outside & _rounded(horizontal + wider, vertical + wider, rounding)

    def ends(p: Array, wider: float = 0.0) -> np.ndarray:
        across, along, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        frame = shape.cabin_half_width(along, z) - across - pillar
        sloping = (along > shape.y(shape.screen_at)) | (along < shape.y(shape.roof_end_at))
        vertical = np.minimum(z - shape.top(along) - belt, shape.height - 0.6 * gap - 0.03 - z)
        return sloping & _rounded(frame + wider, vertical + wider, rounding) & (z > shape.roof(along) - 0.3)

    decals: list[Decal] = [(sides, glass), (ends, glass)]
    if rng.random() < 0.25:
        finish, wider = catalog.CHROME if rng.random() < 0.6 else TRIM, rng.uniform(0.015, 0.035)
        return [(partial(covers, wider=wider), finish) for covers in (sides, ends)] + decals
    return decals


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
    sill, long = shape.clearance + 0.1, front - rear
    start = front - 0.12
    cuts: Sequence[float] = [start, start - 1.15]
    if long > 1.9 and rng.random() < 0.75:
        cuts = [start, start - 0.95, max(start - 1.9, shape.axles[1] + 0.75 * shape.arch_radius, rear)]
    cladding = rng.uniform(0.08, 0.16) if kind in ("suv", "pickup", "offroad") and rng.random() < 0.6 else 0.0
    sill_trim = shape.clearance + rng.uniform(0.05, 0.14)
    dark_sill = cladding > 0 or rng.random() < 0.5
    inner = shape.width / 2 * (1 - shape.bulge) - 0.05

    def gaps(p: Array) -> np.ndarray:
        nearest = np.abs(p[:, 1:2] - np.array(cuts, dtype=p.dtype)).min(1)
        return (nearest < 0.012) & (np.abs(p[:, 0]) > inner) & (p[:, 2] > sill)

    def handles(p: Array) -> np.ndarray:
        behind = p[:, 1:2] - np.array(cuts[1:], dtype=p.dtype) - 0.14
        drop = shape.top(p[:, 1]) - 0.2 - p[:, 2]
        return (np.abs(behind).min(1) < 0.09) & (np.abs(drop) < 0.022) & (np.abs(p[:, 0]) > inner)

    def dark(p: Array) -> np.ndarray:
        between = (p[:, 1] < shape.axles[0]) & (p[:, 1] > shape.axles[1])
        sill = (p[:, 2] < sill_trim) & between
        if not cladding:
            return sill
        squared = np.min([(p[:, 1] - axle) ** 2 for axle in shape.axles], axis=0) + (p[:, 2] - shape.wheel_radius) ** 2
        return sill | (squared < (shape.arch_radius + cladding) ** 2)

    def rub_strip(p: Array) -> np.ndarray:
        height = p[:, 2] - shape.clearance - 0.45 * (shape.cowl - shape.clearance)
        return (np.abs(height) < 0.03) & (np.abs(p[:, 0]) > inner)

    if kind == "racer":
        return []
    decals: list[Decal] = [(gaps, catalog.LINE), (handles, TRIM if rng.random() < 0.5 else catalog.CHROME)]
    if dark_sill:
        decals.append((dark, TRIM))
    if rng.random() < 0.3:
        decals.append((rub_strip, TRIM if rng.random() < 0.6 else catalog.CHROME))
    return decals


def body_decals(shape: Shape, kind: str, covered: bool, lining: Finish, rng: np.random.Generator) -> list[Decal]:
    """All decals on the body except its livery. covered: it has a roof. lining: of its opening."""
    decals = _sides(shape, kind, rng)
    if kind not in ("racer", "vintage", "hotrod"):
        decals += _front(shape, rng) + _rear(shape, rng)
    if shape.opening:
        rear, front, _ = shape.recess
        shelf = shape.opening == "cockpit" and covered  # all that the cabin stands on
        ends = (shape.y(shape.base_at), shape.y(shape.cowl_at)) if shelf else (rear - 0.01, front + 0.01)

        def inside(p: Array) -> np.ndarray:
            within = (p[:, 1] > ends[0]) & (p[:, 1] < ends[1]) & (p[:, 2] > shape.clearance + 0.1)
            return within & (np.abs(p[:, 0]) < shape.half_width(p[:, 1]) * (1 - shape.bulge) - 0.085)

        decals.append((inside, lining))
    if kind == "truck":
        chassis = shape.y(shape.base_at) - 0.03
        decals.append((lambda p: (p[:, 1] < chassis) & (p[:, 2] < 0.8 * shape.deck), catalog.UNDER))
    return decals
