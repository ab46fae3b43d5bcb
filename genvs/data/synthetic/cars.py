"""A random car, assembled: shells, wheels, underside, and the extras of its class."""

from __future__ import annotations

from typing import Any

import numpy as np

from genvs.data.synthetic import catalog
from genvs.data.synthetic.bodies import Shape, body, cabin
from genvs.data.synthetic.catalog import TRIM, random_paint
from genvs.data.synthetic.decals import body_decals, stripe_decals, window_decals
from genvs.data.synthetic.parts import Decal, Finish, Model, Part, Surface, assemble, box, ellipsoid, loft, tube
from genvs.data.synthetic.shading import Array


def _wheels(shape: Shape, rng: np.random.Generator) -> list[Part]:
    """Four wheels with spoked rims or hub caps, lofted about the x axis."""
    radius, width = shape.wheel_radius, rng.uniform(0.2, 0.26)
    rim = radius * rng.uniform(0.62, 0.76)
    spokes, share, phase, gray = rng.integers(5, 12), rng.uniform(0.4, 0.7), rng.random(), rng.uniform(0.55, 0.9)
    hub, hub_x = rng.uniform(0.2, 0.35), width / 2 - rng.uniform(0.015, 0.04)
    half, shoulder = width / 2, min(0.4 * (radius - rim), 0.3 * width)
    profile = [  # (radius, x), sharp where repeated
        (0.0, hub_x), (0.35 * rim, hub_x), (0.92 * rim, hub_x), (0.92 * rim, hub_x),
        (rim, half), (rim, half), (radius - shoulder, half + 0.01), (radius, half - shoulder),
        (radius, shoulder - half), (radius - shoulder, -half), (radius - shoulder, -half), (0.0, -half),
    ]  # fmt: skip
    angles = np.arange(22) * (2 * np.pi / 22)
    r, x = np.array(profile).T[..., None]
    rows = np.stack(np.broadcast_arrays(x, r * np.cos(angles), r * np.sin(angles)), axis=-1)
    faces, face_row, _ = loft(rows)
    rest = rows.reshape(-1, 3)

    def gaps(p: Array) -> np.ndarray:
        distance = np.sqrt(p[:, 1] ** 2 + p[:, 2] ** 2) / rim
        turn = (np.arctan2(p[:, 2], p[:, 1]) / (2 * np.pi) * spokes + phase) % 1
        return (distance > hub) & (distance < 0.84) & (turn > share)

    color = (gray, gray, gray) if rng.random() < 0.85 else (0.16, 0.16, 0.17)
    surfaces = [Surface(catalog.TYRE), Surface((*color, 0.4, 20.0), [(gaps, TRIM)])]
    parts = []
    for axle in shape.axles:
        across = float(shape.half_width(axle)) - width / 2 - 0.025
        for side in (1, -1):
            vertices = rest * (side, side, 1) + (side * across, axle, radius)
            parts.append(Part(vertices, faces, surfaces, (face_row < 4).astype(np.int64), rest))
    return parts


def _underside(shape: Shape, rng: np.random.Generator) -> list[Part]:
    """What is visible from below and through the arches: a core between the wheels, axles, exhaust, tank."""
    front, rear = shape.axles
    low, radius = shape.clearance, shape.wheel_radius
    inner = shape.width - 0.62
    core_top = shape.bed_floor - 0.05 if shape.open_bed else 0.88 * shape.nose  # below the bed's floor
    size = inner, front - rear + 2.6 * radius, core_top - low
    end, height, outlet = inner / 2 + 0.1, low + 0.02, -shape.length / 2 + 0.05
    side = rng.choice([-1, 1]) * rng.uniform(0.15, 0.4)
    return [
        box(size, (0, (front + rear) / 2, (core_top + low) / 2 + 0.005), catalog.UNDER),  # the body's floor is in front
        *(tube((-end, axle, radius), (end, axle, radius), 0.06, TRIM) for axle in shape.axles),
        tube((side, front - 0.3, height), (side, outlet, height + 0.03), 0.045, catalog.STEEL),
        ellipsoid((0.16, 0.32, 0.09), (side, rear - 0.1, height), catalog.STEEL),  # the silencer
        box((0.5 * inner, 0.5, 0.1), (-np.sign(side) * 0.2 * inner, rear + 1.1 * radius + 0.25, low), TRIM),
        box((0.55 * inner, 0.7, 0.12), (0, front, low), TRIM),  # the engine
    ]


def _mirrors(shape: Shape, finish: Finish) -> list[Part]:
    """Door mirrors, at the foot of the windscreen."""
    y = shape.y(0.75 * shape.cowl_at + 0.25 * shape.screen_at) - 0.15
    z = float(shape.top(y)) + 0.1
    across = float(shape.cabin_half_width(y, z)) + 0.09
    radii = (0.12, 0.06, 0.075) if shape.height < 1.6 else (0.12, 0.06, 0.11)
    return [ellipsoid(radii, (side * across, y, z), finish) for side in (1, -1)]


def _spoiler(shape: Shape, finish: Finish) -> list[Part]:
    """A wing on two posts over the tail."""
    y = -shape.length / 2 + 0.28
    base = float(shape.top(y))
    wide = 0.82 * shape.width
    posts = [box((0.05, 0.14, 0.2), (side * 0.36 * wide, y, base + 0.06), finish) for side in (1, -1)]
    return [box((wide, 0.24, 0.035), (0, y, base + 0.17), finish), *posts]


def _roof_extra(shape: Shape, rng: np.random.Generator) -> list[Part]:
    """A taxi sign or a light bar on the roof, on some cars."""
    style = rng.random()
    front, rear = shape.y(shape.screen_at) - 0.15, shape.y(shape.roof_end_at) + 0.15
    place, top = 0.6 * front + 0.4 * rear, shape.height
    if style < 0.05:
        return [box((0.5, 0.2, 0.16), (0, place, top + 0.07), (0.95, 0.78, 0.1, 0.05, 16.0))]
    if style < 0.1:
        lights = {1: (0.1, 0.15, 0.8, 0.4, 16.0), -1: (0.85, 0.06, 0.06, 0.4, 16.0)}
        return [box((0.5, 0.22, 0.12), (side * 0.27, place, top + 0.05), light) for side, light in lights.items()]
    return []


def _rails(shape: Shape) -> list[Part]:
    """Roof rails along both sides of the roof."""
    front, rear = shape.y(shape.screen_at) - 0.1, shape.y(shape.roof_end_at) + 0.05
    x, z = 0.8 * float(shape.cabin_half_width(0.0, shape.height)), shape.height - 0.01
    return [tube((side * x, rear, z), (side * x, front, z), 0.03, catalog.CHROME) for side in (1, -1)]


def _cargo(shape: Shape, paint: Finish, rng: np.random.Generator) -> Part:
    """A truck's box."""
    back, ahead = -shape.length / 2 + 0.02, shape.y(shape.base_at) - 0.12
    low, high = shape.deck - 0.1, rng.uniform(1.2, 1.7)
    white = (0.86, 0.86, 0.85, 0.1, 16.0)
    color = paint if rng.random() < 0.3 else random_paint(rng) if rng.random() < 0.5 else white
    middle, band = low + high * rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.25)
    stripe: Decal = (lambda p: np.abs(p[:, 2] - middle) < band, random_paint(rng))
    doors: Decal = (lambda p: (p[:, 1] < back + 0.01) & (np.abs(p[:, 0]) < 0.015), TRIM)
    decals = [stripe, doors] if rng.random() < 0.5 else [doors]
    return box((1.04 * shape.width, ahead - back, high), (0, (back + ahead) / 2, low + high / 2), color, decals)


def build_car(rng: np.random.Generator, kind: str | None = None) -> tuple[Model, dict[str, Any]]:
    """A random car, of the given class or a random one, and facts to record: its class, paint and proportions."""
    kind = kind or str(rng.choice(catalog.CLASSES, p=np.array(catalog.SHARES, dtype=float)))
    shape, paint, glass = catalog.random_shape(kind, rng), random_paint(rng), catalog.random_glass(rng)
    on_body, on_cabin = stripe_decals(shape, rng)
    floor: Decal = (lambda p: p[:, 2] < shape.clearance + 0.02, catalog.FLOOR)  # the arches' insides are darker
    parts = [
        body(shape, Surface(paint, on_body + body_decals(shape, kind, rng)), Surface(catalog.UNDER, [floor])),
        cabin(shape, Surface(paint, on_cabin + window_decals(shape, kind, glass, rng))),
        *_wheels(shape, rng),
        *_underside(shape, rng),
        *_mirrors(shape, paint if rng.random() < 0.6 else TRIM),
    ]
    if kind == "sports" and rng.random() < 0.45:
        parts += _spoiler(shape, paint if rng.random() < 0.7 else TRIM)
    if kind in ("suv", "wagon") and rng.random() < 0.5:
        parts += _rails(shape)
    elif kind in ("sedan", "wagon", "suv", "hatchback"):
        parts += _roof_extra(shape, rng)
    if kind == "truck" and not shape.open_bed:
        parts.append(_cargo(shape, paint, rng))
    info = {"class": kind, "paint": [round(c, 4) for c in paint[:3]]}
    info.update({name: round(value, 4) for name, value in vars(shape).items()})
    return assemble(parts), info
