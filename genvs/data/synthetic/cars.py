"""A random car, assembled: shells, wheels, underside, and the extras of its family."""

from typing import Any

import numpy as np

from genvs.data.synthetic import catalog
from genvs.data.synthetic.bodies import Shape, body, cabin, lining
from genvs.data.synthetic.catalog import FAMILIES, TRIM, random_paint
from genvs.data.synthetic.decals import body_decals, window_decals
from genvs.data.synthetic.extras import EXTRAS, Look, seats
from genvs.data.synthetic.liveries import random_livery
from genvs.data.synthetic.loads import LOADS
from genvs.data.synthetic.parts import Decal, Finish, Model, Part, Surface, assemble, loft
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import box, pod, tube

OLD = ("finned", "vintage", "beetle", "classic", "roadster")  # on some of these, tyres have white walls


def _rim(rng: np.random.Generator, paint: Finish, radius: float) -> Surface:
    """Spokes, a hub cap, a painted disc or wires."""
    style, spokes, phase = rng.random(), rng.integers(5, 12), rng.random()
    gray, share, hub = rng.uniform(0.6, 1), rng.uniform(0.35, 0.75), rng.uniform(0.2, 0.4)
    color = (gray, gray, gray) if rng.random() < 0.88 else (0.16, 0.16, 0.17)
    if style > 0.9:
        spokes, share = rng.integers(16, 24), 0.5

    def gaps(p: Array) -> np.ndarray:
        distance = np.sqrt(p[:, 1] ** 2 + p[:, 2] ** 2) / radius
        if style < 0.25:  # a cap with a dark ring round it
            return (distance > hub + 0.3) & (distance < hub + 0.42)
        turn = (np.arctan2(p[:, 2], p[:, 1]) / (2 * np.pi) * spokes + phase) % 1
        return (distance > hub) & (distance < 0.84) & (turn > share)

    disc = paint if style < 0.08 else (*color, rng.uniform(0, 0.4), 20.0)
    return Surface(disc, [(gaps, TRIM)])


def _wheels(shape: Shape, kind: str, paint: Finish, rng: np.random.Generator) -> list[Part]:
    """Four wheels, lofted about the x axis."""
    radius, width = shape.wheel_radius, shape.tyre
    rim = radius * (rng.uniform(0.6, 0.76) if width > 0.18 else rng.uniform(0.7, 0.82))
    hub_x = width / 2 - rng.uniform(0.01, 0.05)
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
    wall = [(lambda p: p[:, 1] ** 2 + p[:, 2] ** 2 < (0.5 * (rim + radius)) ** 2, (0.88, 0.87, 0.84, 0.0, 1.0))]
    white = kind in OLD and rng.random() < 0.5
    surfaces = [Surface(catalog.TYRE, wall if white else []), _rim(rng, paint, rim)]
    parts = []
    for axle in shape.axles:
        across = (float(shape.half_width(axle)) if shape.arch else shape.width / 2) + shape.stand_out - width / 2
        for side in (1, -1):
            vertices = rest * (side, side, 1) + (side * across, axle, radius)
            parts.append(Part(vertices, faces, surfaces, (face_row < 4).astype(np.int64), rest))
    return parts


def _underside(shape: Shape, rng: np.random.Generator) -> list[Part]:
    """What is visible from below and through the arches: cores between the wheels, axles, exhaust, tank."""
    front, rear = shape.axles
    low, radius = shape.clearance, shape.wheel_radius
    inner = shape.width - 2 * shape.tyre - 0.14 if shape.arch else 0.6 * shape.width
    end, height, outlet = shape.width / 2 + shape.stand_out - 0.1, low + 0.02, -shape.length / 2 + 0.05
    side = rng.choice([-1, 1]) * rng.uniform(0.15, 0.4) * shape.width / 1.8
    parts = [
        *(tube((-end, axle, radius), (end, axle, radius), 0.06, TRIM) for axle in shape.axles),
        tube((side, front - 0.3, height), (side, outlet, height + 0.03), 0.045, catalog.STEEL),
        pod((0.32, 0.64, 0.18), (side, rear - 0.1, height), catalog.STEEL),  # the silencer
        box((0.5 * inner, 0.5, 0.1), (-np.sign(side) * 0.2 * inner, rear + 1.1 * radius + 0.25, low), TRIM),
        box((0.55 * inner, 0.7, 0.12), (0, front, low), TRIM),  # the engine
    ]
    for axle in shape.axles if shape.arch else ():
        top = min(shape.axle_height, float(shape.top(axle))) - 0.05
        parts.append(box((inner, 2.3 * shape.arch_radius, top - low), (0, axle, (top + low) / 2), catalog.UNDER))
    return parts


def _mirrors(shape: Shape, finish: Finish) -> list[Part]:
    """Door mirrors, at the foot of the windscreen."""
    y = shape.y(0.75 * shape.cowl_at + 0.25 * shape.screen_at) - 0.15
    z = float(shape.top(y)) + 0.1
    across = float(shape.cabin_half_width(y, z)) + 0.09
    size = (0.24, 0.12, 0.15) if shape.height < 1.6 else (0.24, 0.12, 0.22)
    return [pod(size, (side * across, y, z), finish, 3.0) for side in (1, -1)]


def build_car(rng: np.random.Generator, kind: str | None = None) -> tuple[Model, dict[str, Any]]:
    """A random car, of the given family or a random one, and facts to record: its family, paint and proportions."""
    shares = np.array([family.share for family in FAMILIES.values()])
    kind = kind or str(rng.choice(list(FAMILIES), p=shares / shares.sum()))
    extras = {name for name, chance in FAMILIES[kind].extras.items() if rng.random() < chance}
    covered = not extras & {"roofless", "helmet"}
    seated = not covered or ("see_through" in extras)
    opening = "bed" if "bed" in extras else "cockpit" if seated else ""
    shape, paint, glass = catalog.random_shape(kind, opening, rng), random_paint(rng), catalog.random_glass(rng)
    second = random_paint(rng) if rng.random() < 0.3 else TRIM if rng.random() < 0.3 else paint
    inside = rng.choice([0.08, 0.16, 0.3]) * np.array((1.0, rng.uniform(0.8, 1), rng.uniform(0.6, 1)))
    look = Look(paint, second, catalog.CHROME if rng.random() < 0.6 else TRIM, (*inside.tolist(), 0.0, 1.0))
    on_body, on_cabin = random_livery(shape, "livery" in extras, rng)
    floor: Decal = (lambda p: p[:, 2] < shape.clearance + 0.02, catalog.FLOOR)  # the arches' insides are darker
    marks = body_decals(shape, kind, covered, look.lining, rng)
    parts = [
        body(shape, Surface(paint, on_body + marks), Surface(catalog.UNDER, [floor])),
        *_wheels(shape, kind, paint, rng),
        *_underside(shape, rng),
    ]
    if "helmet" not in extras:
        clear = seated and (covered or rng.random() < 0.5)
        windows = window_decals(shape, kind, None if clear else glass, rng)
        shell = cabin(shape, Surface(paint, on_cabin + windows), covered)
        parts += [shell, *_mirrors(shape, paint if rng.random() < 0.6 else TRIM)]
        if seated:
            parts += [lining(shell, Surface(look.lining, windows)), *seats(shape, look, rng)]
    every = {**EXTRAS, **LOADS}
    for name in FAMILIES[kind].extras:  # in the table's order
        if name in extras and name in every:
            parts += every[name](shape, look, rng)
    info = {"class": kind, "paint": [round(c, 4) for c in paint[:3]], "extras": sorted(extras)}
    info |= {name: round(getattr(shape, name), 4) for name in FAMILIES[kind].ranges}
    return assemble(parts, catalog.random_light(rng)), info
