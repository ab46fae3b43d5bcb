"""Tools: hammers, screwdrivers, saws, axes, spanners, spades, brushes, pliers, ladders and drills; upright or lying."""

from collections.abc import Sequence

import numpy as np

from genvs.data.synthetic.parts import Part, Surface
from genvs.data.synthetic.solids import Paint, Points, box, mirrored, pod, tube, tubes
from genvs.data.synthetic.things.kit import (
    DARK,
    GOLD,
    Rng,
    Theme,
    bent,
    curve,
    darker,
    disc,
    mark,
    moved,
    paint,
    pipe,
    plate,
    spun,
    turned,
    within,
    wood,
)


def _posed(rng: Rng, parts: Sequence[Part], axis: int = 0) -> list[Part]:
    """In some scenes an upright tool lies on its side."""
    return turned(parts, 90, axis) if rng.random() < 0.35 else list(parts)


def _grip(rng: Rng) -> Paint:
    return wood(rng) if rng.random() < 0.6 else paint(rng, "toy")


def _shaft(outline: Points, finish: Paint, flat: float = 0.7) -> Part:
    """A handle along z: `(half width, z)` from its lower end to its upper one."""
    r, z = curve(outline).T
    return pipe(np.stack([0 * z, 0 * z, z], -1), r, finish, flat, sides=12)


def hammer(rng: Rng) -> list[Part]:
    """Claw hammers, sledgehammers and mallets."""
    u, steel, grip, style, long = rng.uniform, paint(rng, "steel"), _grip(rng), rng.random(), rng.uniform(0.85, 1.2)
    parts = [_shaft([(0.045, 0), (0.055, 0.12), (0.045, 0.3), (0.035, 0.6 * long), (0.035, long)], grip)]
    at, r, half = (0, 0, long), u(0.13, 0.18), u(0.2, 0.3)
    if style < 0.6:
        if u() < 0.5:
            rubber = DARK if u() < 0.4 else paint(rng, "toy")
            parts.append(_shaft([(0.055, -0.01), (0.065, 0.12), (0.055, 0.32), (0.05, 0.36)], rubber))
        r *= 0.5
        face = [(0.05, 0.02), (0.045, 0.15), (r, 0.17), (r, 0.17), (r, 0.27)]
        claw = curve([(0.02, -0.05, 0), (0.03, -0.2, -0.01), (0.06, -0.36, -u(0.1, 0.16))]) + at
        parts += mirrored([pipe(claw, np.linspace(0.06, 0.03, len(claw)), steel, 0.6)])
        parts += [box((0.11, 0.16, 0.13), at, steel), spun(face, steel, at, axis=1)]
    elif style < 0.8:
        head = [(0.5 * r, -half), (0.65 * r, 0.06 - half), (0.65 * r, half - 0.06), (0.5 * r, half)]
        parts.append(spun(head, steel, at, axis=1, sections=8, sharp=True))
    else:
        block = wood(rng, 1) if u() < 0.6 else DARK
        round_head = spun([(r, -half), (r, half)], block, at, axis=1)
        parts.append(round_head if u() < 0.5 else box((1.6 * r, 2 * half, 2 * r), at, block))
    return _posed(rng, parts)


def screwdriver(rng: Rng) -> list[Part]:
    """On the end of its handle; flat or cross tips."""
    u, color, second, steel = rng.uniform, paint(rng, "toy"), paint(rng, "toy"), paint(rng, "steel")
    long, r, flutes = u(0.4, 0.55), u(0.08, 0.12), int(rng.integers(5, 9))
    band, end = u(0.6, 0.8) * long, long + u(0.35, 0.9)
    stripes = mark(lambda px, py, pz: (np.arctan2(py, px) * flutes / (2 * np.pi) % 1 < 0.4) & (pz < band), second)
    side = [(0.6, 0), (1, 0.12), (1, 0.6), (0.65, 0.75), (0.8, 0.92), (0.35, 1)]
    handle = spun(curve(side) * (r, long), Surface(color, [stripes]))
    tip = tube((0, 0, end), (0, 0, end + 0.06), 0.026, steel, 0.006)
    if u() < 0.6:
        blade = plate([-0.05, 0.05], end - 0.06, end + 0.08, 0.02, steel)
        tip = bent(blade, lambda x, y, z: (x * np.where(z < end, 1.5, 0.5), y * np.where(z < end, 0.5, 1), z))
    return _posed(rng, [handle, tube((0, 0, long - 0.05), (0, 0, end), 0.026, steel), tip])


def saw(rng: Rng) -> list[Part]:
    """Handsaws on their teeth, with a closed grip, and bow saws."""
    u, steel, grip = rng.uniform, paint(rng, "steel"), _grip(rng)
    long, teeth = u(1.0, 1.5), int(rng.integers(16, 28))
    y, bite = np.linspace(0, long, 2 * teeth + 1), np.arange(2 * teeth + 1) % 2 * 0.045
    if u() < 0.3:
        bow = curve([(0.02, 0.05), (0, 0.2), (0.2, 0.42), (0.7, 0.42), (1, 0.2), (0.98, 0.05)]) * (long, 1)
        frame = pipe(np.pad(bow, ((0, 0), (1, 0))), 0.035, paint(rng, "toy"))
        hand = pipe(curve([(0, -0.02, 0.03), (0, -0.06, 0.18), (0, 0.06, 0.33)]), 0.055, grip)
        return [plate(y, bite, 0.1, 0.015, steel), frame, hand]
    blade = plate(y, bite, np.linspace(u(0.26, 0.36), u(0.08, 0.16), len(y)), 0.015, steel)
    loop = curve([(0.02, 0.04), (-0.14, 0.02), (-0.24, 0.14), (-0.2, 0.32), (-0.06, 0.36), (0.04, 0.27)])
    grips = [pipe(np.pad(loop, ((0, 0), (1, 0))), 0.05, grip, 0.9), pod((0.07, 0.2, 0.3), (0, 0.03, 0.16), grip, 4.0)]
    return [blade, *grips, *(tube((-0.045, 0.06, z), (0.045, 0.06, z), 0.022, GOLD) for z in (0.1, 0.22))]


def axe(rng: Rng) -> list[Part]:
    """Axes with one blade or two, and pickaxes."""
    u, grip, steel, long = rng.uniform, _grip(rng), paint(rng, "steel"), rng.uniform(0.9, 1.3)
    bend = curve([(0, -0.05, 0), (0, 0.03, 0.3 * long), (0, -0.02, 0.7 * long), (0, 0, long + 0.08)])
    parts, at = [pipe(bend, np.linspace(0.05, 0.036, len(bend)), grip, 1.3)], (0, 0, long)
    painted = darker(paint(rng, "toy"), 0.9) if u() < 0.5 else darker(steel, 0.55)
    if u() < 0.3:
        arch = curve([(0, -0.5, -0.16), (0, -0.25, -0.03), (0, 0, 0), (0, 0.25, -0.03), (0, 0.5, -0.16)])
        pick = [pipe(arch + at, 0.055 - 0.2 * arch[:, 1] ** 2, painted), box((0.12, 0.16, 0.14), at, painted)]
        return _posed(rng, parts + pick)
    reach, t = u(0.3, 0.42), np.linspace(0, 1, 9)
    spread, above = 0.09 + u(0.07, 0.17) * t**2.5, 0.5 if u() < 0.4 else 1
    ground = Surface(painted, [within((-1, 0.76 * reach, -9), (1, 9, 9), steel)])
    blade = [plate(t * (reach + 0.08) - 0.08, long - spread, long + above * spread, 0.116 - 0.11 * t, ground)]
    return _posed(rng, parts + blade + (turned(blade, 180) if u() < 0.2 else [box((0.12, 0.14, 0.17), at, painted)]))


def spanner(rng: Rng) -> list[Part]:
    """With an open jaw at one end, and a ring or another jaw at the other."""
    u, steel = rng.uniform, paint(rng, "steel", "metal")
    long, r, bar, tilt = u(0.7, 1.1), u(0.1, 0.15), u(0.035, 0.06), u(-20, 20)

    def end(size: float, jaw: bool) -> list[Part]:
        angles = np.radians(np.linspace(130, 410, 17) if jaw else np.linspace(0, 360, 25))
        bend = np.stack([0 * angles, size * np.cos(angles), size * np.sin(angles)], -1)
        return moved(turned([pipe(bend, 0.42 * size, steel)], tilt * jaw, 0), (0, 0, 0), (0.7, 1, 1))

    shaft = _shaft([(bar, 0.9 * r), (0.8 * bar, 0.5 * long), (bar, long - 0.9 * r)], steel, 0.55)
    lower = turned(end(r * u(0.7, 1), u() < 0.4), 180, 0)
    return _posed(rng, [shaft, *moved(end(r, True), (0, 0, long)), *lower], 1)


def spade(rng: Rng) -> list[Part]:
    """Spades, shovels, forks and rakes, with or without a D grip."""
    u, grip, steel, style = rng.uniform, _grip(rng), paint(rng, "metal"), rng.random()
    long, wide, blade = u(1.0, 1.5), u(0.13, 0.19), u(0.3, 0.42)
    parts = [tube((0, 0, blade - 0.1), (0, 0, long), 0.026, grip)]
    if style < 0.55:
        z = np.linspace(0, blade, 9)
        point = np.sqrt(1 - 0.98 * (1 - np.minimum(z / (0.6 * blade), 1)) ** 2)
        half = wide * (point if u() < 0.5 else np.ones(9))
        sheet = plate(z, -half, half, 0.02, steel)
        parts.append(bent(sheet, lambda x, y, z: (z, x + 0.35 * z**2 / wide + 0.04 - 0.1 * (y / blade - 1) ** 2, y)))
        parts.append(tube((0, 0.03, 0.75 * blade), (0, 0, blade + 0.2), 0.035, steel))
    else:
        rake = style > 0.8
        low, out, x = (blade - 0.12, 0.1, 1.6 * wide) if rake else (0.0, 0.03, wide)
        tine = [(0, 0, blade - 0.02), (0, 0.5 * out + 0.01, (blade + low) / 2), (0, out, low)]
        for place in np.linspace(-x, x, int(rng.integers(8, 13) if rake else rng.integers(3, 5))):
            parts.append(pipe(curve(tine) + (place, 0, 0), 0.014, steel, sides=6))
        parts.append(tube((-x, 0, blade - 0.02), (x, 0, blade - 0.02), 0.025, steel))
    if style < 0.8 and u() < 0.6:
        d = [(0, 0, long - 0.02), (0.09, 0, long + 0.07), (0.09, 0, long + 0.15), (0, 0, long + 0.15)]
        parts += tubes(d, 0.02, grip, mirrored=True)
    return parts


def brush(rng: Rng) -> list[Part]:
    """Paintbrushes with their bristles up, and brooms with them down."""
    u, grip, hair = rng.uniform, _grip(rng), paint(rng, "wood")
    streaks = mark(lambda px, py, pz: ((px + py) * 60 + 0.5) % 1 < 0.3, darker(hair, 0.75))
    bristles = Surface(hair, [streaks])
    if u() < 0.4:
        long, wide = u(1.1, 1.5), u(0.25, 0.4)
        stick = tube((0, 0, 0.3), (0, 0, long), 0.024, grip)
        if u() < 0.5:
            tuft = spun([(0.8 * wide, 0), (0.7 * wide, 0.1), (0.1, 0.45), (0.06, 0.55)], bristles)
            return [tuft, disc(0.11, 0.42, 0.5, paint(rng, "toy")), stick]
        skirt = plate(wide * np.array([-1.1, -0.95, 0.95, 1.1]), 0, [0.02, 0.27, 0.27, 0.02], 0.14, bristles)
        return [*turned([skirt, plate([-wide, wide], 0.26, 0.36, 0.16, grip)], 90), stick]
    wide, long = u(0.08, 0.22), u(0.4, 0.6)
    wet = [mark(lambda px, py, pz: pz > long + 0.28, paint(rng, "toy"))] if u() < 0.6 else []
    handle = [(0.03, 0), (0.05, 0.06), (0.035, 0.25), (0.06, 0.6 * long), (0.7 * wide, 0.92 * long), (0.8 * wide, long)]
    tip = np.array([(1, 0.1), (1.05, 0.25), (0.95, 0.4), (0.7, 0.45)]) * (wide, 1) + (0, long)
    ferrule = _shaft([(0.85 * wide, long - 0.04), (wide, long + 0.14)], paint(rng, "steel"), 0.38)
    return _posed(rng, [_shaft(handle, grip, 0.35), ferrule, _shaft(tip, Surface(hair, [streaks, *wet]), 0.3)])


def pliers(rng: Rng) -> list[Part]:
    """Pliers and scissors, opened a little."""
    u, steel, grip, long = rng.uniform, paint(rng, "steel"), paint(rng, "toy"), rng.uniform(0.45, 0.6)
    if u() < 0.5:
        z = np.linspace(0, u(0.5, 0.75), 6)
        blade = turned(turned([plate(z, -0.045, 0.045 - 0.04 * z / z[-1], 0.014, steel)], 90, 0), 90)
        bow = [(0.13 + 0.1 * np.cos(a), 0, 0.1 - long + 0.15 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 21)]
        arm = curve([(0, 0, 0.02), (0.02, 0, -0.1), (0.06, 0, 0.24 - long)])
        half = [*blade, pipe(arm, 0.032, steel, 0.5), pipe(bow, 0.03, grip)]
    else:
        jaw = curve([(-0.02, 0, -0.02), (-0.075, 0, 0.1), (-0.035, 0, u(0.28, 0.42))])
        arm = curve([(-0.03, 0, 0.04), (0.07, 0, -0.1), (0.13, 0, -0.3), (0.1, 0, -long)])
        half = [pipe(arm[:6], 0.045, steel), pipe(arm[4:], 0.055, grip)]
        half.append(pipe(jaw, np.linspace(0.06, 0.025, len(jaw)), steel))
    pin = spun([(0.06, -0.06), (0.06, 0.06)], darker(steel), axis=1)
    return _posed(rng, [*mirrored(turned(half, -u(4, 14), 1)), pin])


def ladder(rng: Rng) -> list[Part]:
    """Stepladders."""
    u, frame = rng.uniform, wood(rng) if rng.random() < 0.5 else paint(rng, "steel", "toy")
    h, w, steps = u(1.2, 2.2), u(0.2, 0.28), int(rng.integers(4, 8))
    y = u(0.18, 0.26) * h
    rails = [tube((w, end * y, 0), (0.75 * w, end * 0.05, h), 0.027, frame) for end in (1, -1)]
    parts = [*mirrored(rails), box((1.7 * w, 0.22, 0.05), (0, 0, h), frame if u() < 0.6 else paint(rng, "toy"))]
    for t in np.arange(1, steps) / steps:
        parts.append(box((2 * w * (1 - 0.25 * t), 0.11, 0.03), (0, y + t * (0.05 - y), t * h), frame))
    for t in (0.25, 0.65):
        x, back, z = w * (1 - 0.25 * t), t * (y - 0.05) - y, t * h
        parts.append(tube((-x, back, z), (x, back, z), 0.015, frame))
    return parts


def drill(rng: Rng) -> list[Part]:
    """Cordless drills on their battery."""
    u, color, steel = rng.uniform, paint(rng, "toy"), paint(rng, "steel")
    h, long, r = u((0.55, 0.55, 0.12), (0.7, 0.75, 0.15))
    vents = mark(lambda px, py, pz: (py < -0.3 * long) & (pz * 30 % 1 < 0.45), DARK)
    case = curve([(0.8, -0.5), (1, -0.4), (1, 0.2), (0.75, 0.4)]) * (r, long)
    chuck = np.array([(0.7, 0.38), (0.7, 0.38), (0.65, 0.6), (0.25, 0.7)]) * (r, long)
    bit = tube((0, 0.68 * long, h), (0, 0.68 * long + u(0.25, 0.5), h), 0.02, steel, 0.012)
    grip = curve([(0, -0.1 * long, h), (0, -0.16 * long, 0.55 * h), (0, -0.24 * long, 0.12)])
    trigger = pod((0.06, 0.08, 0.14), (0, 0.02 * long, 0.72 * h), DARK if u() < 0.5 else paint(rng, "toy"), 3.0)
    body = [spun(case, Surface(color, [vents]), (0, 0, h), axis=1), spun(chuck, DARK, (0, 0, h), axis=1)]
    battery = pod((0.26, 0.42, 0.18), (0, -0.18 * long, 0.09), DARK, 6.0)
    return [*body, bit, pipe(grip, 0.09, color, 1.2), trigger, battery]


TOOLS: Theme = {
    each.__name__: each for each in (hammer, screwdriver, saw, axe, spanner, spade, brush, pliers, ladder, drill)
}
