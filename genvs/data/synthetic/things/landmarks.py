"""Castles, lighthouses, windmills, temples and pagodas; the door is at +y."""

import numpy as np

from genvs.data.synthetic.parts import Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import Paint, Point, box, mirrored, pod, tube
from genvs.data.synthetic.things.buildings import door, gable, panes, pyramid, tiles, walls
from genvs.data.synthetic.things.kit import (
    DARK,
    GOLD,
    LIT,
    PANE,
    WHITE,
    Rng,
    Theme,
    bent,
    curve,
    darker,
    disc,
    hoop,
    mark,
    moved,
    paint,
    plate,
    ring,
    spun,
    turned,
)


def _battlements(half: Point, at: Point, wall: Paint) -> list[Part]:
    """Along the edges of a rectangle of these half widths."""
    x, y = (np.linspace(-side, side, max(2, int(side / 0.085))) for side in half)
    places = [(a, side * half[1], 0) for a in x for side in (-1, 1)]
    places += [(side * half[0], b, 0) for b in y[1:-1] for side in (-1, 1)]
    return moved([box((0.08, 0.08, 0.11), place, wall) for place in places], at)


def castle(rng: Rng) -> list[Part]:
    """Walls with four towers, pointed or flat, a gate, a keep and flags."""
    u, base, roof, size = rng.uniform, paint(rng, "stone"), tiles(rng), rng.uniform(0.07, 0.1)
    w, d, h, r, side = u((0.7, 0.6, 0.38, 0.17, 0.28), (1.0, 0.9, 0.55, 0.24, 0.4))
    high, tall, pointed = h + u(0.15, 0.45), u(0.35, 0.6), u() < 0.6
    top, peak = high + u(0.1, 0.5), high + tall
    courses = mark(lambda px, py, pz: pz / size % 1 < 0.14, darker(base, 0.8))
    wood = darker(paint(rng, "wood"), 0.5)
    gate = mark(lambda px, py, pz: (py > 0) & (np.abs(px) < 0.14) & (pz < 0.32 - 4 * px**2), wood)

    def slits(px: Array, py: Array, pz: Array) -> np.ndarray:
        return (np.abs(np.arctan2(py, px) * 4 / np.pi % 1 - 0.5) < 0.07) & (np.abs(pz - 0.65 * high) < 0.08)

    stone = Surface(base, [courses])
    parts = [box((2 * w, 0.1, h), (0, end * d, h / 2), Surface(base, [courses, gate])) for end in (-1, 1)]
    parts += mirrored([box((0.1, 2 * d, h), (w, 0, h / 2), stone)])
    parts.append(box((2 * w, 2 * d, 0.03), (0, 0, 0.015), (0.45, 0.5, 0.32, 0.0, 1.0)))
    shape = [(1.05 * r, 0), (r, 0.1), (r, high - 0.12), (1.15 * r, high - 0.06), (1.15 * r, high)]
    tower = [spun(shape, Surface(base, [courses, mark(slits, DARK)]))]
    if pointed:
        tower.append(spun([(1.3 * r, 0), (0.01, tall)], roof, (0, 0, high)))
        flag = plate([0, 0.17], peak + np.array([0.08, 0.13]), peak + np.array([0.19, 0.14]), 0.015, paint(rng, "toy"))
        tower += [tube((0, 0, peak - 0.05), (0, 0, peak + 0.2), 0.012, DARK), flag] if u() < 0.6 else []
    else:
        tower += ring([box((0.09, 0.09, 0.12), (1.08 * r, 0, high + 0.04), base)], 7)
    parts += [part for x in (-w, w) for y in (-d, d) for part in moved(tower, (x, y, 0))]
    parts += [] if pointed and u() < 0.5 else _battlements((w, d), (0, 0, h + 0.04), base)
    keep = Surface(base, [courses, *panes(rng, (side, side), (0.3, top), 0.26, 0.3, 0.35)])
    parts.append(box((2 * side, 2 * side, top), (0, 0, top / 2), keep))
    if u() < 0.5:
        return [*parts, pyramid(1.09 * side, 0.6, (0, 0, top), roof)]
    return parts + _battlements((side - 0.03, side - 0.03), (0, 0, top + 0.04), base)


def lighthouse(rng: Rng) -> list[Part]:
    """Striped, on a rock or a round base."""
    u, red = rng.uniform, (0.8, 0.14, 0.12, 0.1, 16.0)
    h, low, top, bands, spiral = *u((1.4, 0.3, 0.17), (2.0, 0.42, 0.23)), int(rng.integers(2, 5)), u() < 0.25
    color, stone = red if u() < 0.5 else paint(rng, "toy"), paint(rng, "stone")

    def striped(px: Array, py: Array, pz: Array) -> np.ndarray:
        return (pz / h * bands + (np.arctan2(py, px) / (2 * np.pi) if spiral else 0)) % 1 < 0.5

    holes = mark(lambda px, py, pz: (py > 0) & (np.abs(px) < 0.05) & (pz / 0.42 % 1 > 0.74) & (pz < h), PANE)
    side = curve([(low, 0), (0.75 * low + 0.25 * top, 0.35 * h), (top, h)])
    posts = [tube((x * top, 0, h), (x * top, 0, h + high), 0.012, DARK) for x, high in ((1.42, 0.14), (0.76, 0.27))]
    dome = curve([(top, h + 0.25), (0.75 * top, h + 0.38), (0.03, h + 0.47), (0.01, h + 0.56)])
    rock = pod((3.2 * low, 3.0 * low, 0.5), (0, 0, -0.1), stone, 2.4)
    rough = bent(rock, lambda x, y, z: (x + 0.08 * np.sin(9 * y + 4 * z), y + 0.08 * np.sin(7 * x), z.clip(-0.12)))
    return [
        spun(side, Surface(WHITE, [mark(striped, color), holes])),
        rough if u() < 0.5 else disc(1.35 * low, -0.12, 0.01, stone),
        disc(1.5 * top, h - 0.03, h + 0.03, DARK),
        disc(0.75 * top, h, h + 0.26, LIT),
        hoop(1.42 * top, h + 0.14, 0.012, DARK),
        *ring(posts, 6),
        spun(dome, color),
        box((0.18, 0.1, 0.3), (0, low - 0.02, 0.14), paint(rng, "wood")),
    ]


def windmill(rng: Rng) -> list[Part]:
    """A tapering tower, round or of eight sides, with a cap and four sails of lattice or cloth."""
    u, wall, roof, beam = rng.uniform, walls(rng), tiles(rng), paint(rng, "wood")
    h, low, top, tall, long = u((1.1, 0.4, 0.24, 0.25, 0.75), (1.5, 0.55, 0.32, 0.4, 0.95))
    holes = mark(lambda px, py, pz: (np.minimum(np.abs(px), np.abs(py)) < 0.07) & (pz / 0.45 % 1 > 0.7), PANE)
    bars = mark(lambda px, py, pz: (pz * 12 % 1 < 0.35) | (px * 16 % 1 < 0.3), darker(beam, 0.6))
    skin, eight, z, y = Surface(wall.finish, [*wall.decals, holes]), u() < 0.5, h + 0.3 * tall, top + 0.12
    parts = [spun([(low, 0), (top, h)], skin, sections=8 if eight else 24, sharp=eight)]
    if u() < 0.4:
        parts.append(disc(0.6 * low + 0.4 * top + 0.2, 0.4 * h - 0.03, 0.4 * h + 0.02, beam))
    parts.append(spun(curve([(1.12 * top, 0), (0.8 * top, 0.6 * tall), (0.02, tall)]), roof, (0, 0, h - 0.01)))
    cloth = Surface(WHITE if u() < 0.7 else paint(rng, "fabric"), [bars])
    sail = [tube((0, 0, 0), (0, 0, long), 0.02, beam), box((0.2, 0.015, 0.75 * long), (0.1, 0, 0.6 * long), cloth)]
    parts += [tube((0, 0, z), (0, y + 0.06, z), 0.045, beam), pod((0.14, 0.1, 0.14), (0, y + 0.04, z), DARK)]
    return parts + moved(ring(sail, 4, u(0, 90), 1), (0, y, z)) + door(rng, 0, low - 0.03, 0.2, 0.34)


def temple(rng: Rng) -> list[Part]:
    """Columns on steps: a Greek temple, or a rotunda with a dome."""
    u, base = rng.uniform, paint(rng, "stone") if rng.random() < 0.6 else WHITE
    h, thick = u((0.6, 0.05), (0.85, 0.075))
    roof = paint(rng, "roof") if u() < 0.4 else darker(base, 0.92)
    flutes = mark(lambda px, py, pz: np.arctan2(py, px) * 5 / np.pi % 1 < 0.35, darker(base, 0.8))
    shape = [(1.5, 0), (1.5, 0.05), (1, 0.07), (0.85, h - 0.08), (1.4, h - 0.04), (1.4, h)]
    column, z = spun(np.array(shape) * (thick, 1), Surface(base, [flutes]), (0, 0, 0.18), sections=10), h + 0.18
    if u() < 0.3:
        r = u(0.5, 0.7)
        dome = curve([(0.95 * r, 0.12), (0.75 * r, 0.3 + 0.2 * r), (0.02, 0.3 + 0.4 * r)]) + (0, z)
        parts = [disc(r + 0.25 - 0.08 * step, 0.06 * step, 0.06 * step + 0.06, base) for step in range(3)]
        parts += ring(moved([column], (r, 0, 0)), int(rng.integers(8, 12)))
        parts.append(disc(0.6 * r, 0.18, z, darker(base, 0.85)))
        parts += [disc(r + 0.1, z - 0.01, z + 0.12, base), spun(dome, roof)]
        return [*parts, pod((0.08, 0.08, 0.16), (0, 0, z + 0.36 + 0.4 * r), base)]
    columns, rows, pitch = int(rng.choice([4, 6])), int(rng.integers(5, 9)), u(0.24, 0.3)
    x, y = ((np.arange(count) - (count - 1) / 2) * pitch for count in (columns, rows))
    wide, long = 2 * x[-1], 2 * y[-1]
    parts = [box((wide + 0.5 - 0.12 * s, long + 0.5 - 0.12 * s, 0.06), (0, 0, 0.03 + 0.06 * s), base) for s in range(3)]
    places = [(a, b, 0) for a in x for b in y if a in (x[0], x[-1]) or b in (y[0], y[-1])]
    parts += [part for place in places for part in moved([column], place)]
    parts.append(box((wide - 0.44, long - 0.44, h), (0, 0, 0.18 + h / 2), darker(base, 0.9)))
    parts.append(box((wide + 0.24, long + 0.24, 0.12), (0, 0, z + 0.05), base))
    return parts + turned(gable(long / 2 + 0.1, wide / 2 + 0.12, z + 0.1, u(0.2, 0.3), base, roof, 0.05), 90)


def pagoda(rng: Rng) -> list[Part]:
    """Towers of many roofs with turned-up corners."""
    u, wall, roof, post = rng.uniform, paint(rng, "plaster"), tiles(rng), (0.66, 0.14, 0.1, 0.1, 16.0)
    levels, sides, z = int(rng.integers(2, 6)), int(rng.choice([4, 4, 8])), 0.12
    r, step, shrink = u((0.5, 0.36, 0.8), (0.65, 0.44, 0.9))
    lattice = mark(lambda px, py, pz: (np.arctan2(py, px) * 6 / np.pi % 1 < 0.55) & (pz / 0.12 % 1 > 0.1), post)

    def slab(outline: list[Point], finish: Paint, low: float) -> Part:
        return spun(outline, finish, (0, 0, low), sections=sides, sharp=True)

    parts = [slab([(1.5 * r, 0), (1.5 * r, 0.12)], paint(rng, "stone"), 0)]
    for level in range(levels):
        parts += [
            slab([(r, 0), (r, step)], Surface(wall, [lattice]), z),
            slab([(1.12 * r, 0), (1.12 * r, 0.04)], post, z + 0.02),
        ]
        peak = 0.5 if level == levels - 1 else 0.24
        eaves = slab([(1.7 * r, 0.02), (1.72 * r, 0.05), (1.3 * r, 0.09), (0.9 * r, 0.2), (0.01, peak)], roof, 0)
        reach = np.sqrt(eaves.vertices[:, 0] ** 2 + eaves.vertices[:, 1] ** 2) / r
        lift = 0.1 * np.clip((reach - 1.3) / 0.4, 0, 1) ** 2
        parts += moved([bent(eaves, lambda x, y, z, lift=lift: (x, y, z + lift))], (0, 0, z + step - 0.06))
        z, r = z + step, r * shrink
    beads = [pod((0.12, 0.12, 0.08), (0, 0, z + up), GOLD) for up in (0.45, 0.54)]
    return [*parts, tube((0, 0, z + 0.3), (0, 0, z + 0.7), 0.025, GOLD), *beads]


LANDMARKS: Theme = {each.__name__: each for each in (castle, lighthouse, windmill, temple, pagoda)}
