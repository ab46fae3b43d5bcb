"""What some cars have besides shells and wheels: fins, wings, bumpers, seats, spoilers, and much else.

An extra is a function of the car's shape, its look and a generator to parts; EXTRAS has them by the catalogue's names.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from genvs.data.synthetic import catalog
from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.catalog import CHROME, STEEL, TRIM, random_paint
from genvs.data.synthetic.parts import Decal, Finish, Part, Surface
from genvs.data.synthetic.solids import arc, box, lathe, mirrored, pod, prism, sweep, tube, tubes


class Look(NamedTuple):
    """A car's finishes."""

    paint: Finish
    second: Finish  # of wings, spoilers, roof boxes and the like
    metal: Finish  # of bumpers and bars
    lining: Finish


Extra = Callable[[Shape, Look, np.random.Generator], list[Part]]


def _fins(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Tail fins with their lamps."""
    rear, top = -shape.length / 2, shape.tail
    long, high = rng.uniform(0.9, 1.7), rng.uniform(0.12, 0.32)
    x = float(shape.half_width(rear + 0.4)) - 0.16
    tip = rear - rng.uniform(-0.05, 0.08)
    blade = [(rear + long, top - 0.06), (tip + 0.1, top + high), (tip, top + high), (tip + 0.12, top - 0.3)]
    fin = prism([*blade, (rear + long, top - 0.3)], (x, x + 0.07), look.paint)
    lamp = pod((0.09, 0.12, 0.1), (x + 0.035, tip + 0.02, top + 0.45 * high), catalog.TAILLIGHT)
    return mirrored([fin, lamp])


def _bumpers(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Bars across both ends, on some with overriders."""
    z, high = shape.clearance + rng.uniform(0.1, 0.22), rng.uniform(0.08, 0.15)
    size = float(shape.width) * rng.uniform(0.94, 1.02), 0.16, high
    ends, parts = shape.length / 2 + 0.01, []
    for end in (1, -1):
        parts.append(pod(size, (0, end * ends, z), look.metal, 5.0))
        if rng.random() < 0.4:
            parts += [box((0.06, 0.1, high + 0.1), (x, end * (ends + 0.05), z), look.metal) for x in (0.35, -0.35)]

    def bent(part: Part) -> Part:  # as the body's ends are
        x, y, z = part.vertices.T
        back = np.sign(y) * 0.9 * shape.bow * (2 * x / shape.width) ** 2
        return part._replace(vertices=np.stack([x, y - back, z], axis=-1))

    return [bent(part) for part in parts]


def _wings(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Separate wings over the four wheels, joined by running boards."""
    wheel, (front, rear) = shape.wheel_radius, shape.axles
    radius, board = wheel * rng.uniform(1.12, 1.22), shape.clearance - rng.uniform(0, 0.08)
    x = 0.42 * shape.width, shape.width / 2 + shape.stand_out + 0.03
    finish = look.second if rng.random() < 0.5 else look.paint
    drop = rng.uniform(1.5, 2.4) * radius
    over_front = [(front - drop, board), (front - 0.72 * drop, board + 0.12), *arc((front, wheel), radius, 128, 5)]
    over_rear = arc((rear, wheel), radius, 190, 35)
    over_rear += [(rear + 1.25 * radius, board + 0.03), (rear + 1.5 * radius, board)]
    crown = rng.uniform(0.03, 0.14)
    ends = rear + 1.4 * radius, front - 0.95 * drop
    boards = box((x[1] - x[0], ends[1] - ends[0], 0.05), (sum(x) / 2, sum(ends) / 2, board - 0.03), TRIM)
    lamps = pod((0.12, 0.1, 0.12), (x[1] - 0.16, rear - radius - 0.02, wheel + 0.05), catalog.TAILLIGHT)
    return mirrored([sweep(over_front, x, finish, crown), sweep(over_rear, x, finish, crown), boards, lamps])


def _radiator(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """An upright radiator, and headlamps on stalks beside it."""
    front, high = shape.length / 2, shape.nose - shape.clearance
    wide = 2 * float(shape.half_width(front)) + 0.03
    z, metal = shape.clearance + 0.52 * high, CHROME if rng.random() < 0.7 else look.paint
    shell = pod((wide, 0.16, 1.06 * high), (0, front - 0.02, z), metal, 7.0)
    bars = rng.integers(5, 14)
    slats: Decal = (lambda p: (p[:, 0] / wide * bars) % 1 < 0.35, CHROME)
    grille = box((0.78 * wide, 0.05, 0.82 * high), (0, front + 0.05, z - 0.02), TRIM, [slats])
    x, y, lamp = wide / 2 + rng.uniform(0.1, 0.2), front - rng.uniform(0.05, 0.25), rng.uniform(0.2, 0.28)
    height = shape.clearance + rng.uniform(0.6, 0.8) * high
    profile = [(0.02, -0.2), (0.7 * lamp / 2, -0.12), (lamp / 2, 0), (lamp / 2, 0), (0.01, 0.03)]
    glass: Decal = (lambda p: p[:, 1] > y + 0.001, catalog.HEADLIGHT)
    bowl = lathe(profile, (x, y, height), Surface(metal, [glass]), axis=1)
    stalk = tube((x, y - 0.06, height), (0.4 * wide, y - 0.1, shape.clearance), 0.02, metal)
    return [shell, grille, *mirrored([bowl, stalk])]


def _ornament(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    y = shape.length / 2 - 0.15
    return [pod((0.05, 0.2, 0.1), (0, y, float(shape.top(y)) + 0.03), CHROME)]


def _spoiler(shape: Shape, look: Look, rng: np.random.Generator, high: float = 0.0) -> list[Part]:
    """A lip on the tail; `high` above it, a wing on two posts, with end plates."""
    roof = shape.base_at > 0.93  # a hatchback's is over its rear window
    y = shape.y(shape.roof_end_at) - 0.1 if roof and not high else -shape.length / 2 + 0.22
    base = shape.height - 0.05 if roof and not high else float(shape.top(y))
    wide, deep, z = shape.width * rng.uniform(0.7, 0.86), rng.uniform(0.16, 0.24 + high / 3), base + 0.04 + high
    blade = [(y - deep, z + 0.07), (y + deep, z - 0.02), (y + deep, z - 0.05), (y - deep, z + 0.03)]
    parts = [prism(blade, (-wide / 2, wide / 2), look.second)]
    if high:
        plate = [(y - deep - 0.05, z + 0.16), (y + deep, z + 0.1), (y + deep, z - 0.16), (y - deep - 0.05, z - 0.12)]
        post = [(y - 0.08, z), (y + 0.08, z), (y + 0.16, base - 0.15), (y, base - 0.15)]
        parts += mirrored([prism(plate, (wide / 2, wide / 2 + 0.03), look.second)])
        parts += mirrored([prism(post, (0.28 * wide, 0.28 * wide + 0.04), TRIM)])
    return parts


def _wing(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    if shape.width > 1.2:
        return _spoiler(shape, look, rng, rng.uniform(0.14, 0.34))
    return _spoiler(replace(shape, width=1.25), look, rng, rng.uniform(0.14, 0.3))  # wider than a racing car's body


def _splitter(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    z, long = shape.clearance + 0.03, shape.length
    lip = box((0.94 * shape.width, 0.4, 0.04), (0, long / 2 - 0.15, z), TRIM)
    front, rear = shape.axles
    size = 0.08, front - rear - 2.4 * shape.arch_radius, 0.1
    return [lip, *mirrored([box(size, (shape.width / 2 - 0.03, (front + rear) / 2, z), TRIM)])]


def _front_wing(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A racing car's, with end plates."""
    y, z, half = shape.length / 2 - 0.05, shape.clearance + 0.08, shape.width / 2 + shape.stand_out - 0.02
    blade = [(y - 0.2, z + 0.08), (y + 0.2, z), (y + 0.2, z - 0.03), (y - 0.2, z + 0.03)]
    plate = [(y - 0.25, z + 0.22), (y + 0.22, z + 0.1), (y + 0.22, z - 0.06), (y - 0.25, z - 0.06)]
    return [prism(blade, (-half, half), look.second), *mirrored([prism(plate, (half, half + 0.03), look.paint)])]


def _side_pods(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A racing car's radiators, and the intake behind the driver's head."""
    x, long = shape.width / 2 + 0.12, rng.uniform(1.3, 1.9)
    inlet: Decal = (lambda p: p[:, 1] > long / 2 - 0.45, TRIM)
    side = pod((0.42, long, 0.42), (x, -0.35, shape.clearance + 0.26), look.paint, 4.5, [inlet])
    back = shape.y(shape.base_at)
    scoop = pod((0.32, 1.3, 0.6), (0, back - 0.5, shape.deck), look.paint, 3.0)
    return [*mirrored([side]), scoop]


def _open_wheels(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Wishbones from the body to the wheels, and axles."""
    z, parts = shape.wheel_radius, []
    reach = shape.width / 2 + shape.stand_out - shape.tyre / 2
    for axle in shape.axles:
        for ahead in (-0.3, 0.3):
            parts.append(tube((0.1, axle + ahead, z + 0.05), (reach, axle, z + 0.08), 0.025, TRIM))
        parts.append(tube((0.1, axle, z), (reach, axle, z), 0.045, STEEL))
    return mirrored(parts)


def _helmet(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A driver's head, and a roll bar behind it."""
    y, z = sum(shape.recess[:2]) / 2, shape.cowl + 0.08
    visor: Decal = (lambda p: (p[:, 1] > y + 0.04) & (np.abs(p[:, 2] - z - 0.02) < 0.05), TRIM)
    head = pod((0.27, 0.3, 0.3), (0, y, z), random_paint(rng), 2.0, [visor])
    body = pod((0.4, 0.3, 0.5), (0, y, z - 0.35), random_paint(rng), 3.0)
    return [head, body]


def seats(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Seats in the opening, and a steering wheel."""
    rear, front, floor = shape.recess
    finish = look.lining if rng.random() < 0.5 else random_paint(rng)
    width, parts = shape.width * 0.32, []
    rows = [0.62] if front - rear < 1.5 else [0.56, 0.1]
    back_height = max(shape.cowl + rng.uniform(0, 0.22) - floor, 0.5)
    for place in rows:
        y = rear + place * (front - rear)
        cushion = pod((width, 0.5, 0.22), (width * 0.62, y + 0.1, floor + 0.28), finish, 5.0)
        back = pod((width, 0.2, back_height), (width * 0.62, y - 0.17, floor + 0.1 + back_height / 2), finish, 5.0)
        parts += mirrored([cushion, back])
    rim = pod((0.36, 0.06, 0.36), (width * 0.62, front - 0.3, shape.cowl - 0.03), TRIM)
    return [*parts, rim]


def _roll_bar(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A hoop behind the seats, or over the front of a bed."""
    y = shape.y(shape.base_at) - 0.12 if shape.opening == "bed" else shape.recess[0] + 0.1
    x, top = 0.72 * shape.width / 2, shape.height - (0.02 if shape.opening == "bed" else 0.1)
    low = shape.deck - 0.1
    return tubes([(-x, y, low), (-x, y, top - 0.1), (-x + 0.1, y, top), (0, y, top)], 0.04, look.metal, mirrored=True)


def _exhaust_pipes(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Along the sills."""
    front, rear = shape.axles
    x, z = shape.width / 2 + 0.02, shape.clearance + 0.06
    return mirrored([tube((x, front - 0.6, z), (x, rear + 0.55, z), 0.05, CHROME)])


def _scoop(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    y = shape.y(0.7 * shape.cowl_at)
    mouth: Decal = (lambda p: p[:, 1] > y + 0.28, TRIM)
    return [pod((0.5, 0.7, 0.16), (0, y, float(shape.top(y)) + 0.01), look.paint, 4.0, [mouth])]


def _engine(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A hot rod's engine, through the bonnet."""
    y = shape.y(0.55 * shape.cowl_at)
    z = float(shape.top(y))
    block = box((0.34, 0.6, 0.2), (0, y, z + 0.06), STEEL)
    blower = pod((0.3, 0.34, 0.26), (0, y + 0.05, z + 0.26), CHROME, 4.0)
    places = (y - 0.2, y, y + 0.2)
    pipes = [tube((0.2, at, z - 0.05), (0.42, at - 0.12, z - 0.2), 0.035, CHROME) for at in places]
    return [block, blower, *mirrored(pipes)]


EXTRAS: dict[str, Extra] = {
    "fins": _fins,
    "bumpers": _bumpers,
    "wings": _wings,
    "radiator": _radiator,
    "ornament": _ornament,
    "spoiler": _spoiler,
    "wing": _wing,
    "splitter": _splitter,
    "front_wing": _front_wing,
    "side_pods": _side_pods,
    "open_wheels": _open_wheels,
    "helmet": _helmet,
    "roll_bar": _roll_bar,
    "side_pipes": _exhaust_pipes,
    "scoop": _scoop,
    "engine": _engine,
}
