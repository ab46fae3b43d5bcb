"""Buildings: houses, churches, barns and tower blocks, and what they share; the door is at +y."""

import numpy as np

from genvs.data.synthetic.parts import Decal, Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import Paint, Point, box, mirrored, pod, prism, tube
from genvs.data.synthetic.things.kit import (
    DARK,
    GOLD,
    PANE,
    WHITE,
    Rng,
    Theme,
    curve,
    darker,
    mark,
    moved,
    paint,
    spun,
    turned,
)


def panes(rng: Rng, half: Point, z: Point, pitch: float, floor: float, fill: float = 0.45) -> list[Decal]:
    """Rows of windows, on most in frames, on the four walls of a block of these half widths, between two heights."""
    tall, arched, framed = rng.uniform(0.45, 0.65) * floor / 2, rng.random() < 0.15, rng.random() < 0.75

    def rows(p: Array, wider: float = 0.0) -> np.ndarray:
        on_x = np.abs(p[:, 0]) > half[0] - 0.01
        along, limit = np.where(on_x, p[:, 1], p[:, 0]), np.where(on_x, half[1], half[0])
        count = np.maximum(np.floor(2 * limit / pitch), 1)
        across = np.abs((along / limit + 1) / 2 * count % 1 - 0.5) * (2 * limit / count)
        up = ((p[:, 2] - z[0]) / floor % 1 - 0.5) * floor
        top = tall + wider - (2 * across**2 / (fill * pitch) if arched else 0)
        inside = (p[:, 2] > z[0]) & (p[:, 2] < z[1]) & (np.abs(along) < limit - 0.02)
        return inside & (across < fill * pitch / 2 + wider) & (up > -tall - wider) & (up < top)

    frame = WHITE if rng.random() < 0.7 else paint(rng, "wood")
    return [(lambda p: rows(p, 0.07 * pitch), frame), (rows, PANE)] if framed else [(rows, PANE)]


def gable(x: float, y: float, z: float, rise: float, wall: Paint, roof: Paint, over: float = 0.08) -> list[Part]:
    """A roof whose ridge runs along x, over walls of half widths x and y up to z: the gables and two slopes."""
    edge, low, t = y + over, z - over * rise / y, 0.05
    slope = prism([(0, z + rise), (edge, low), (edge, low + t), (0, z + rise + 1.3 * t)], (-x - over, x + over), roof)
    return [prism([(-y, z - 0.01), (y, z - 0.01), (0, z + rise)], (-x, x), wall), slope, *turned([slope], 180)]


def pyramid(half: float, rise: float, at: Point, finish: Paint) -> Part:
    """A pointed roof over a square of this half width."""
    return spun([(1.42 * half, 0), (0.01, rise)], finish, at, sections=4, sharp=True)


def tiles(rng: Rng) -> Surface:
    roof, pitch = paint(rng, "roof"), rng.uniform(0.05, 0.09)
    courses = mark(lambda px, py, pz: pz / pitch % 1 < 0.25, darker(roof, 0.75))
    return Surface(roof, [courses] if rng.random() < 0.7 else [])


def walls(rng: Rng) -> Surface:
    """Plaster, boards, a stone base, or timber."""
    base, size, style = paint(rng, "plaster", "plaster", "stone"), rng.uniform(0.06, 0.1), rng.random()
    low, cell, stone = rng.uniform(0.1, 0.5), rng.uniform(0.35, 0.45), paint(rng, "stone")

    def timber(p: Array) -> np.ndarray:
        along, up = (p[:, 0] + p[:, 1]) / cell, p[:, 2] / cell
        return (along % 1 < 0.12) | (up % 1 < 0.12) | (np.abs((along - up) % 2 - 1) < 0.08)

    if style < 0.2:
        return Surface(base, [mark(lambda px, py, pz: pz / size % 1 < 0.15, darker(base, 0.75))])
    if style < 0.35:
        return Surface(base, [mark(lambda px, py, pz: pz < low, stone)])
    if style < 0.5:
        return Surface((0.9, 0.87, 0.79, 0.0, 1.0), [(timber, darker(paint(rng, "wood"), 0.6))])
    return Surface(base)


def door(rng: Rng, x: float, y: float, wide: float, high: float) -> list[Part]:
    frame = box((wide + 0.08, 0.03, high + 0.05), (x, y, high / 2 + 0.02), WHITE)
    knob = pod((0.04, 0.05, 0.04), (x + 0.35 * wide, y + 0.02, 0.45 * high), DARK)
    return [frame, box((wide, 0.04, high), (x, y, high / 2), paint(rng, "toy", "wood")), knob]


def house(rng: Rng) -> list[Part]:
    """Detached houses with gabled or hipped roofs, chimneys, dormers, wings and bushes."""
    u, roof, wall, floors = rng.uniform, tiles(rng), walls(rng), int(rng.integers(1, 3))
    x, y, step, rise, hipped = *u((0.55, 0.42, 0.48, 0.3), (0.95, 0.6, 0.58, 0.65)), u() < 0.25
    h, brick, green = floors * step + 0.08, paint(rng, "clay"), paint(rng, "leaf")
    glazed = Surface(wall.finish, [*wall.decals, *panes(rng, (x, y), (0.1, h), u(0.4, 0.55), step)])
    parts = [box((2 * x, 2 * y, h), (0, 0, h / 2), glazed), *door(rng, u(-0.3, 0.3) * x, y + 0.01, 0.24, 0.4)]
    if hipped:
        cap = spun([(1.6, 0), (1.6, 0.05), (0.35, rise + 0.05)], roof, sections=4, sharp=True)
        parts += moved([cap], (0, 0, h - 0.02), (x / 1.05, y / 1.05, 1))
    else:
        parts += gable(x, y, h, rise, wall, roof)
    if u() < 0.7:
        at = u(-0.7, 0.7) * x * (0.4 if hipped else 1), u(-0.4, 0.4) * y
        parts.append(box((0.14, 0.14, rise + 0.25), (*at, h + rise / 2 + 0.1), brick))
        parts.append(box((0.18, 0.18, 0.05), (*at, h + rise + 0.2), darker(brick)))
    if u() < 0.35 and not hipped:  # a dormer
        z = h + 0.4 * rise
        glass = mark(lambda px, py, pz: (np.abs(px) < 0.09) & (np.abs(pz - z - 0.01) < 0.09), PANE)
        lid = turned(gable(0.3 * y, 0.17, 0.16, 0.14, wall, roof, 0.04), 90)
        body = box((0.3, 0.5 * y, 0.32), (0, 0.45 * y, z), Surface(wall.finish, [glass]))
        parts += moved([body, *moved(lid, (0, 0.47 * y, z))], (u(-0.4, 0.4) * x, 0, 0))
    if u() < 0.35:  # a wing to the front
        long, wide, low = y + u(0.25, 0.4), 0.42 * x, h * u(0.7, 0.95)
        wing = [box((2 * wide, long, low), (0, long / 2, low / 2), wall)]
        wing.append(box((0.26, 0.03, 0.24), (0, long, 0.5 * low), PANE))
        wing += moved(turned(gable(long / 2, wide, low, 0.8 * rise, wall, roof), 90), (0, long / 2, 0))
        parts += moved(wing, (rng.choice([-1, 1]) * (x - wide), 0, 0))
    bushes = mirrored([pod((0.28, 0.2, 0.26), (x * u(0.6, 0.9), y + 0.08, 0.1), green)])
    return parts + bushes if u() < 0.4 else parts


def church(rng: Rng) -> list[Part]:
    """A nave with a tower, pointed, domed or with an onion, and a cross."""
    u, roof, wall, style = rng.uniform, tiles(rng), walls(rng), rng.random()
    x, y, h, rise, side, spire = u((0.3, 0.65, 0.5, 0.35, 0.2, 0.5), (0.4, 0.95, 0.7, 0.5, 0.27, 1.1))
    top, front, color = h + rise + u(0.15, 0.5), y + 0.7 * side, roof if u() < 0.7 else (0.45, 0.62, 0.55, 0.1, 16.0)

    def arched(px: Array, py: Array, pz: Array) -> np.ndarray:
        across = np.abs(((py + 0.11) / 0.34 % 1 - 0.5) * 0.34)
        low = (pz > 0.25 * h) & (np.abs(py) < y - 0.08) & (np.abs(px) > x - 0.01)
        return low & (across < 0.08) & (pz < 0.8 * h - 8 * across**2)

    def bell(px: Array, py: Array, pz: Array) -> np.ndarray:
        across = np.minimum(np.abs(px), np.abs(py - front))
        return (np.abs(pz - top + 0.2) < 0.12 - 9 * across**2) & (across < 0.09)

    nave, tower = (Surface(wall.finish, [*wall.decals, mark(holes, PANE)]) for holes in (arched, bell))
    parts = [box((2 * x, 2 * y, h), (0, 0, h / 2), nave), box((2 * side, 2 * side, top), (0, front, top / 2), tower)]
    if style < 0.6:
        eaves = [(1.55, 0), (1.55, 0.03), (0.96, 0.25 * spire), (0.01, spire)]
        cap = spun(np.array(eaves) * (side, 1), color, (0, front, top - 0.01), sections=4, sharp=True)
    else:
        onion = [(0.8, 0), (1.15 if style < 0.8 else 0.95, 0.28), (0.6, 0.6), (0.12, 0.85), (0.02, 1)]
        cap = spun(curve(onion) * (side, spire), color, (0, front, top - 0.01))
        parts.append(box((2.2 * side, 2.2 * side, 0.05), (0, front, top), wall.finish))
    z = top + spire + 0.1
    cross = [box((0.035, 0.035, 0.26), (0, front, z), GOLD), box((0.15, 0.035, 0.035), (0, front, z + 0.04), GOLD)]
    apse = spun(np.array([(0.75, 0), (0.75, 0.8), (0.75, 0.8), (0.01, 1.2)]) * (x, h), wall.finish, (0, -y, 0))
    parts += [cap, *cross, apse, *door(rng, 0, front + side + 0.01, 0.22, 0.36)]
    return parts + turned(gable(y, x, h, rise, wall, roof, 0.05), 90)


def barn(rng: Rng) -> list[Part]:
    """Barns with a bent roof and crossed doors, on some a silo or a lantern."""
    u, base = rng.uniform, (0.62, 0.16, 0.13, 0.0, 1.0) if rng.random() < 0.6 else paint(rng, "wood", "plaster")
    x, y, h, rise, wide, tall = u((0.45, 0.6, 0.45, 0.45, 0.22, 0.38), (0.55, 0.95, 0.6, 0.6, 0.3, 0.46))
    roof, steel = paint(rng, "roof", "steel"), paint(rng, "steel")
    boards = mark(lambda px, py, pz: (px + py) / 0.09 % 1 < 0.14, darker(base, 0.75))
    side = [(0, h + rise), (0.68 * x, h + 0.62 * rise), (x, h), (x, 0)]
    body = prism([*side, *((-a, z) for a, z in side[:0:-1])], (-y, y), Surface(base, [boards]))
    slopes = np.array([*side[:2], (1.12 * x, h - 0.07 * rise)])
    over, ends = slopes + (0.03, 0.05), (-y - 0.08, y + 0.08)
    halves = [prism([slopes[i], slopes[i + 1], over[i + 1], over[i]], ends, roof) for i in (0, 1)]
    parts = turned([body, *halves, *turned(halves, 180)], 90)

    def cross(px: Array, py: Array, pz: Array) -> np.ndarray:
        a, b = np.abs(px) % wide / wide, pz / tall
        edge = (np.minimum(a, 1 - a) < 0.09) | (np.minimum(b, 1 - b) < 0.07)
        return edge | (np.abs(a - b) < 0.07) | (np.abs(a + b - 1) < 0.07)

    doors = Surface(darker(base, 0.9), [mark(cross, WHITE)])
    parts.append(box((2 * wide, 0.04, tall), (0, y + 0.01, tall / 2), doors))
    parts.append(box((0.22, 0.04, 0.22), (0, y + 0.005, h + 0.4 * rise), WHITE))
    parts.append(box((0.16, 0.04, 0.16), (0, y + 0.01, h + 0.4 * rise), DARK))
    if u() < 0.55:
        r, high = u(0.2, 0.27), h + rise * u(1.0, 1.6)
        hoops = mark(lambda px, py, pz: pz / 0.16 % 1 < 0.12, darker(steel))
        dome = curve([(r, high), (0.75 * r, high + 0.6 * r), (0.02, high + 0.85 * r)])
        at = (rng.choice([-1, 1]) * (x + r), u(-0.4, 0.3) * y, 0)
        parts.append(spun([(r, 0), *dome], Surface(steel, [hoops]), at))
    if u() < 0.4:
        parts.append(box((0.2, 0.2, 0.22), (0, 0, h + rise + 0.05), WHITE))
        parts.append(pyramid(0.14, 0.16, (0, 0, h + rise + 0.15), roof))
    return parts


def skyscraper(rng: Rng) -> list[Part]:
    """Office towers and blocks of flats: stepped, with a lower wing, or round."""
    u, base, style = rng.uniform, paint(rng, "plaster", "steel"), rng.random()
    x, y, h, floor, fill, pitch = u((0.3, 0.3, 1.6, 0.12, 0.5, 0.14), (0.5, 0.45, 2.6, 0.17, 0.8, 0.22))
    glass = (*(np.array(PANE[:3]) * (0.9, 1.0, 1.25) * u(0.8, 2.0)).tolist(), 0.4, 20.0)
    bands = mark(lambda px, py, pz: ((pz - 0.14) / floor % 1 < fill) & (pz > 0.14) & (pz < h - 0.03), glass)
    parts, z, wide = [box((2.6 * x, 2.6 * y, 0.04), (0, 0, 0.02), paint(rng, "stone"))], 0.02, x
    entrance = box((0.3, 0.06, 0.12), (0, y + 0.01, 0.08), DARK)

    def skin(half: Point) -> Surface:
        rows = panes(rng, half, (0.14, 9), pitch, floor, fill)[-1][0]
        return Surface(base, [bands if style > 0.75 else (rows, glass)])

    if style > 0.88:
        parts.append(spun([(x, 0), (x, h), (x, h), (0.9 * x, h), (0.9 * x, h), (0.9 * x, h + 0.08)], skin((x, x))))
        z, entrance = h + 0.08, moved([entrance], (0, x - y, 0))[0]
    else:
        for part in (1 / 1.6, 1 / 1.2, 1)[rng.integers(2) :] if style < 0.45 else (1,):
            parts.append(box((2 * x, 2 * y, part * h - z), (0, 0, (part * h + z) / 2), skin((x, y))))
            parts.append(box((2.04 * x, 2.04 * y, 0.04), (0, 0, part * h), darker(base, 0.8)))
            z, x, y = part * h, x * u(0.65, 0.8), y * u(0.65, 0.8)
        parts.append(box((0.5 * x, 0.6 * y, 0.14), (0.2 * x, 0, z + 0.07), darker(base, 0.8)))
    if 0.45 < style < 0.65:
        low = h * u(0.4, 0.7)
        parts.append(box((1.5 * wide, 1.7 * y, low), (1.6 * wide, 0, low / 2), skin((0.1, 0.85 * y))))
    if u() < 0.4:
        parts.append(tube((0, 0, z - 0.02), (0, 0, z + u(0.3, 0.6)), 0.025, paint(rng, "steel"), 0.008))
    return [*parts, entrance]


BUILDINGS: Theme = {each.__name__: each for each in (house, church, barn, skyscraper)}
