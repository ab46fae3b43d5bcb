"""What cars carry outside: racks, roof boxes, ladders, spare wheels, signs, bull bars, steps, lorries' bodies."""

import numpy as np

from genvs.data.synthetic import catalog
from genvs.data.synthetic.bodies import Shape
from genvs.data.synthetic.catalog import STEEL, TRIM, random_paint
from genvs.data.synthetic.extras import Extra, Look
from genvs.data.synthetic.liveries import lettering
from genvs.data.synthetic.parts import Decal, Part
from genvs.data.synthetic.solids import box, lathe, mirrored, pod, prism, tube, tubes

WOOD = (0.50, 0.34, 0.18, 0.0, 1.0)


def _roof(shape: Shape) -> tuple[float, float, float]:
    """The roof's usable half width, and its rear and front end."""
    x = 0.8 * float(shape.cabin_half_width(0.0, shape.height))
    return x, shape.y(shape.roof_end_at) + 0.08, shape.y(shape.screen_at) - 0.1


def _rails(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    x, rear, front = _roof(shape)
    z = shape.height + 0.03
    ends = (x, rear, z - 0.08), (x, rear + 0.12, z), (x, front - 0.12, z), (x, front, z - 0.08)
    return tubes(ends, 0.028, look.metal, mirrored=True)


def _crate(size: tuple[float, float, float], center: tuple[float, float, float], rng: np.random.Generator) -> Part:
    """A crate, a suitcase, a bundle, a spare wheel lying down, or a barrel."""
    style, finish = rng.integers(4), WOOD if rng.random() < 0.4 else random_paint(rng)
    if style == 0:
        return pod(size, center, finish, 3.0)
    if style == 1:
        radius, half = min(size[:2]) / 2, size[2] / 2
        profile = [(0.05, -half), (radius, -half), (radius, -half), (radius, half), (radius, half), (0.05, half)]
        return lathe(profile, center, TRIM if rng.random() < 0.5 else finish)
    return box(size, center, finish)


def _roof_rack(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A frame of bars, on most with luggage."""
    x, rear, front = _roof(shape)
    z = shape.height + 0.08
    corners = [(x, rear, z), (x, front, z), (-x, front, z), (-x, rear, z), (x, rear, z)]
    parts = tubes(corners, 0.022, TRIM) + [
        tube((-x, y, z - 0.06), (x, y, z - 0.06), 0.022, TRIM) for y in np.linspace(rear, front, 4)
    ]
    for place in range(rng.integers(0, 4)):
        size = rng.uniform(0.5, 1) * x, rng.uniform(0.2, 0.3) * (front - rear), rng.uniform(0.12, 0.35)
        center = rng.uniform(-0.4, 0.4) * x, rear + (0.2 + 0.3 * place) * (front - rear), z - 0.04 + size[2] / 2
        parts.append(_crate(size, center, rng))
    return parts


def _roof_box(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    x, rear, front = _roof(shape)
    size = x * rng.uniform(0.8, 1.3), (front - rear) * rng.uniform(0.7, 1.05), rng.uniform(0.26, 0.36)
    side = rng.choice([0.0, rng.uniform(-0.4, 0.4)]) * x
    case = pod(size, (side, (rear + front) / 2, shape.height + 0.06 + size[2] / 2), look.second, 3.5)
    bars = [box((2.1 * x, 0.06, 0.05), (0, y, shape.height + 0.05), TRIM) for y in (rear + 0.2, front - 0.2)]
    return [case, *bars]


def _ladder(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """On the roof, or on the rear."""
    if rng.random() < 0.5:
        x, rear, front = _roof(shape)
        ends = [(x * side, y, shape.height + 0.1) for side in (0.25, 0.8) for y in (rear - 0.1, front)]
        steps = np.linspace(rear, front, 8)
        return [
            *tubes(ends[:2], 0.03, STEEL),
            *tubes(ends[2:], 0.03, STEEL),
            *(tube((0.25 * x, y, shape.height + 0.1), (0.8 * x, y, shape.height + 0.1), 0.02, STEEL) for y in steps),
        ]
    x, y = rng.uniform(-0.3, 0.3) * shape.width, -shape.length / 2 - 0.05
    low, high = shape.clearance + 0.2, shape.height
    rails = [tube((x + side, y, low), (x + side, y, high), 0.025, STEEL) for side in (-0.17, 0.17)]
    return rails + [
        tube((x - 0.17, y, z), (x + 0.17, y, z), 0.02, STEEL) for z in np.linspace(low + 0.1, high - 0.1, 6)
    ]


def _spare(shape: Shape, center: tuple[float, float, float], axis: int, finish: tuple[float, ...]) -> Part:
    radius, half = 0.92 * shape.wheel_radius, 0.1
    profile = [(0.02, -half), (radius, -half), (radius, -half), (radius, half), (radius, half)]
    profile += [(0.62 * radius, half), (0.62 * radius, half), (0.02, half - 0.02)]
    return lathe(profile, center, finish, axis=axis, sections=18)


def _spare_rear(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    z, x = shape.clearance + 0.6 * (shape.tail - shape.clearance) + 0.1, rng.choice([0.0, 0.2])
    return [_spare(shape, (x, -shape.length / 2 - 0.1, z), 1, rng.choice([TRIM, catalog.TYRE, look.second]).tolist())]


def _spare_front(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    return [_spare(shape, (0, shape.length / 2 + 0.08, 0.62 * shape.cowl), 1, look.second)]


def _spare_side(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """In a well behind a front wing."""
    x, y = shape.width / 2 + 0.02, shape.axles[0] - 2.1 * shape.wheel_radius
    return mirrored([_spare(shape, (x, y, shape.clearance + shape.wheel_radius + 0.1), 0, catalog.TYRE)])


def _taxi(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    _, rear, front = _roof(shape)
    return [box((0.5, 0.2, 0.16), (0, 0.4 * rear + 0.6 * front, shape.height + 0.07), (0.95, 0.78, 0.1, 0.0, 16.0))]


def _lightbar(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    _, rear, front = _roof(shape)
    lights = {1: (0.1, 0.15, 0.8, 0.2, 16.0), -1: (0.85, 0.06, 0.06, 0.2, 16.0)}
    y, z = 0.3 * rear + 0.7 * front, shape.height + 0.05
    return [box((0.5, 0.22, 0.12), (side * 0.27, y, z), light) for side, light in lights.items()]


def _antenna(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    x, rear, _ = _roof(shape)
    return [tube((x, rear, shape.height - 0.05), (x, rear - 0.25, shape.height + 0.45), 0.012, TRIM)]


def _bullbar(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Bars before the grille, on some with round lamps."""
    y, low, high = shape.length / 2 + 0.1, shape.clearance + 0.05, shape.nose - 0.05
    x = 0.3 * shape.width
    parts = tubes([(x, y, low), (x, y, high), (0, y, high)], 0.035, look.metal, mirrored=True)
    parts += tubes([(-1.4 * x, y, 0.5 * (low + high)), (1.4 * x, y, 0.5 * (low + high))], 0.035, look.metal)
    lamps = [pod((0.2, 0.1, 0.2), (0.6 * x, y, high + 0.1), catalog.HEADLIGHT)]
    return parts + mirrored(lamps) if rng.random() < 0.5 else parts


def _boards(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Steps below the doors."""
    front, rear = shape.axles
    long = front - rear - 2.3 * shape.arch_radius
    return mirrored([box((0.22, long, 0.06), (shape.width / 2, (front + rear) / 2, shape.clearance), look.metal)])


def _flares(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Flat wings that stand out over the wheels."""
    parts, finish = [], TRIM if rng.random() < 0.6 else look.paint
    for axle in shape.axles:
        z, r = shape.wheel_radius, 1.16 * shape.arch_radius
        outline = [(-1.25, 0.25), (-0.85, 1), (0.85, 1), (1.25, 0.25)]
        outline += [(1.15, 0.25), (0.8, 0.92), (-0.8, 0.92), (-1.15, 0.25)]
        top = [(axle + r * y, z + r * height) for y, height in outline]
        x = float(shape.half_width(axle)) - 0.08, shape.width / 2 + max(shape.stand_out, 0.06) + 0.02
        parts += [prism([top[i], top[i + 1], top[6 - i], top[7 - i]], x, finish) for i in range(3)]
    return mirrored(parts)


def _load(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """On a bed: a cover, a hood, or crates and barrels."""
    rear, front, floor = shape.recess
    long, wide, style = front - rear, shape.width - 0.3, rng.random()
    if style < 0.25:
        return [box((wide + 0.16, long, 0.05), (0, (rear + front) / 2, shape.tail + 0.01), TRIM)]
    if style < 0.5:
        outline = [(rear - 0.05, shape.tail), (front + 0.05, shape.deck), (front + 0.02, shape.height - 0.03)]
        outline.append((rear + 0.1, shape.height - 0.06))
        return [prism(outline, (-wide / 2 - 0.06, wide / 2 + 0.06), look.paint if rng.random() < 0.6 else TRIM)]
    parts = []
    for place in range(rng.integers(2, 5)):
        size = rng.uniform(0.25, 0.6) * wide, rng.uniform(0.18, 0.32) * long, rng.uniform(0.25, 0.7)
        center = rng.uniform(-0.2, 0.2) * wide, rear + (0.15 + 0.22 * place) * long, floor + size[2] / 2
        parts.append(_crate(size, center, rng))
    return parts


def _cargo(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """A lorry's body: a box, a tank, a flat bed with crates, or a tipper."""
    back, ahead = -shape.length / 2 + 0.02, shape.y(shape.base_at) - 0.12
    low, high, middle, long = shape.deck - 0.1, rng.uniform(1.1, 1.7), (back + ahead) / 2, ahead - back
    wide = 1.04 * shape.width
    white = (0.9, 0.9, 0.89, 0.0, 16.0)
    color = look.paint if rng.random() < 0.3 else random_paint(rng) if rng.random() < 0.5 else white
    style = rng.random()
    if style < 0.55:
        band, height = rng.uniform(0.05, 0.25), low + high * rng.uniform(0.3, 0.7)
        text = lettering(rng.integers(10, 18, rng.integers(3, 7)).tolist(), (middle, height), 0.3 * high)
        stripe: Decal = (lambda p: np.abs(p[:, 2] - height) < band, random_paint(rng))
        doors: Decal = (lambda p: (p[:, 1] < back + 0.01) & (np.abs(p[:, 0]) < 0.015), TRIM)
        decals = [stripe] * (rng.random() < 0.4) + [(text, random_paint(rng))] * (rng.random() < 0.4) + [doors]
        return [box((wide, long, high), (0, middle, low + high / 2), color, decals)]
    floor = box((wide, long, 0.12), (0, middle, low + 0.04), STEEL)
    if style < 0.7:
        radius, half = 0.46 * wide, long / 2
        profile = [(0.05, -half), (0.8 * radius, -half + 0.02), (radius, 0.15 - half), (radius, half - 0.15)]
        profile += [(0.8 * radius, half - 0.02), (0.05, half)]
        return [floor, lathe(profile, (0, middle, low + 0.1 + radius), color, axis=1, sections=20)]
    wall = rng.uniform(0.3, 0.9)
    sides = mirrored([box((0.06, long, wall), (wide / 2 - 0.03, middle, low + 0.1 + wall / 2), color)])
    ends = [box((wide - 0.1, 0.06, wall), (0, y, low + 0.1 + wall / 2), color) for y in (back + 0.03, ahead - 0.03)]
    heap = pod((0.85 * wide, 0.9 * long, 1.7 * wall), (0, middle, low + 0.1), (0.42, 0.36, 0.28, 0.0, 1.0), 2.6)
    crates = [
        _crate((0.5 * wide, 0.25 * long, 0.7), (0, back + (0.2 + 0.3 * place) * long, low + 0.45), rng)
        for place in range(rng.integers(4))
    ]
    return [floor, *sides, *ends, *([heap] if rng.random() < 0.4 else crates)]


def _stacks(shape: Shape, look: Look, rng: np.random.Generator) -> list[Part]:
    """Upright exhausts behind a lorry's cab."""
    x, y = 0.86 * shape.width / 2, shape.y(shape.base_at) - 0.06
    return mirrored([tube((x, y, shape.deck - 0.2), (x, y, shape.height + 0.4), 0.06, catalog.CHROME)])


LOADS: dict[str, Extra] = {
    "rails": _rails, "roof_rack": _roof_rack, "roof_box": _roof_box, "ladder": _ladder, "spare_rear": _spare_rear,
    "spare_front": _spare_front, "spare_side": _spare_side, "taxi": _taxi, "lightbar": _lightbar, "antenna": _antenna,
    "bullbar": _bullbar, "boards": _boards, "flares": _flares, "load": _load, "cargo": _cargo, "stacks": _stacks,
}  # fmt: skip
