"""Toys: animals, blocks, robots, teddy bears, stacks of rings, bath ducks; their front is at +y."""

import numpy as np

from genvs.data.synthetic.liveries import GLYPHS, lettering
from genvs.data.synthetic.parts import Part, Surface
from genvs.data.synthetic.solids import box, mirrored, pod, prism, tube
from genvs.data.synthetic.things.animals import animal, eyes
from genvs.data.synthetic.things.kit import (
    DARK,
    LIT,
    WHITE,
    Rng,
    Theme,
    ball,
    curve,
    darker,
    disc,
    mark,
    moved,
    paint,
    pipe,
    spun,
    turned,
    within,
    wood,
)  # fmt: skip


def _cube(rng: Rng) -> Part:
    """A cube of side 1, on some a letter on each of its sides."""
    color, ink = paint(rng, "toy"), paint(rng, "toy")
    if rng.random() < 0.5:
        return box((1, 1, 1), (0, 0, 0), color if rng.random() < 0.8 else wood(rng, 0, 1))
    letter = lettering([int(rng.integers(len(GLYPHS)))], (0, 0), 0.6)
    edge = (lambda p: np.sort(np.abs(p), axis=1)[:, 1] > 0.43, color)
    other = mark(lambda px, py, pz: letter(np.stack([py, -px, pz], -1)), ink)
    return box((1, 1, 1), (0, 0, 0), WHITE if rng.random() < 0.5 else paint(rng, "wood"), [edge, (letter, ink), other])


def blocks(rng: Rng) -> list[Part]:
    """Cubes in a pile or a tower, on top a cone, a roof or a cylinder."""
    u, parts, color, style = rng.uniform, [], paint(rng, "toy"), rng.integers(4)
    rows = [1] * int(rng.integers(3, 5)) if u() < 0.25 else [2, 1] if u() < 0.4 else [3, 2, 1]
    for level, count in enumerate(rows):
        for x in np.arange(count) - (count - 1) / 2:
            parts += moved(turned([_cube(rng)], u(-14, 14)), (1.12 * x, u(-0.1, 0.1), level + 0.5))
    z = len(rows)
    tops = [spun([(0.5, 0), (0.01, 1)], color, (0, 0, z)), disc(0.45, z, z + 0.9, color)]
    tops.append(prism([(-0.5, z), (0.5, z), (0, z + 0.6)], (-0.5, 0.5), color))
    return parts + tops[style : style + 1]


def robot(rng: Rng) -> list[Part]:
    """Tin robots."""
    u, skin, second, trim = rng.uniform, paint(rng, "metal", "toy"), paint(rng, "toy"), paint(rng, "metal")
    w, h, d, leg, head = u(0.5, 0.75), u(0.6, 0.85), u(0.32, 0.45), u(0.35, 0.6), u(0.32, 0.45)
    z, top, shoulder, wide = leg + h / 2, leg + h + 0.06, leg + 0.82 * h, head * u(1, 1.5)
    panel = [within((-0.36 * w, 0, z - 0.3 * h), (0.36 * w, 9, z + 0.32 * h), trim)]
    panel.append(within((-0.2 * w, 0, z - 0.22 * h), (0.2 * w, 9, z - 0.02), DARK))
    parts = [ball(0.1, (x, d / 2, z + 0.14), paint(rng, "toy")) for x in (-0.14, 0, 0.14)]
    parts += [box((w, d, h), (0, 0, z), Surface(skin, panel)), tube((0, 0, top - 0.1), (0, 0, top + 0.05), 0.1, trim)]
    can, middle = disc(0.55 * head, top, top + head, skin, 0.06), top + head / 2
    parts.append(pod((wide, head, head), (0, 0, middle), skin, 8.0) if u() < 0.6 else can)
    parts.append(box((0.5 * wide, 0.03, 0.05), (0, 0.5 * head, middle - 0.22 * head), DARK))
    glow = LIT if u() < 0.5 else (0.5, 0.9, 0.95, 0.3, 20.0)
    parts += eyes(0.24 * wide, 0.5 * head, middle + 0.12 * head, 0.26 * head, glow)
    aerial = [tube((0, 0, -0.05), (0, 0, 0.2), 0.018, trim), ball(0.08, (0, 0, 0.2), second)]
    pair = mirrored(moved(turned(aerial, 14, 1), (0.3 * head, 0, 0)))
    parts += moved([] if u() < 0.3 else aerial if u() < 0.5 else pair, (0, 0, top + head))
    x = w / 2 + 0.09
    claw = [(0.09 * np.cos(a), 0, 0.09 * np.sin(a) - 0.62 * h - 0.1) for a in np.radians(np.linspace(-60, 240, 11))]
    arm = [tube((0, 0, 0), (0, 0, -0.62 * h), 0.06, trim), ball(0.18, (0, 0, 0), second), pipe(claw, 0.035, second)]
    arm = moved(turned([*arm, tube((-0.4 * x, 0, 0), (0, 0, 0), 0.05, trim)], u(-10, 50), 0), (x, 0, shoulder))
    foot = pod((0.26, 0.42, 0.16), (0.25 * w, 0.06, 0.08), second, 5.0)
    return parts + mirrored([*arm, foot, tube((0.25 * w, 0, 0.08), (0.25 * w, 0, leg + 0.05), 0.08, trim)])


def teddy(rng: Rng) -> list[Part]:
    """Teddy bears and rabbits, sitting, on some a bow tie."""
    u, fur = rng.uniform, paint(rng, "skin", "skin", "fabric")
    light = (*np.clip(np.array(fur[:3]) * 1.1 + 0.2, 0, 0.95).tolist(), 0.0, 1.0)
    belly, head = u(0.62, 0.8), u(0.52, 0.64)
    tummy = mark(lambda px, py, pz: (py > 0.12) & (px**2 + (pz - 0.4) ** 2 < 0.05), light)
    parts = [pod((belly, 0.9 * belly, 0.9), (0, 0, 0.43), fur, 2.2, [tummy] if u() < 0.7 else [])]
    face = [pod((1.08, 0.95, 1), (0, 0.07, 0), fur), pod((0.5, 0.4, 0.38), (0, 0.45, -0.12), light)]
    face += [pod((0.17, 0.12, 0.12), (0, 0.64, -0.04), DARK), *eyes(0.2, 0.46, 0.14, 0.1)]
    if u() < 0.3:  # a rabbit
        ear = [pod((0.28, 0.16, 1.05), (0.04, 0, 0.48), fur), pod((0.16, 0.1, 0.8), (0.04, 0.05, 0.48), light)]
        face += mirrored(moved(turned(ear, u(5, 18), 1), (0.22, 0, 0.35)))
    else:
        ear = [pod((0.38, 0.27, 0.38), (0.42, 0, 0.4), fur), pod((0.22, 0.18, 0.22), (0.42, 0.1, 0.4), light)]
        face += mirrored(ear)
    parts += moved(face, (0, 0, u(0.8, 0.86) + 0.4 * head), head)
    arm = curve([(0.3 * belly, 0, 0.72), (0.6 * belly, 0.12, 0.5), (0.5 * belly, u(0.3, 0.45), u(0.3, 0.5))])
    leg = curve([(0.26 * belly, 0.1, 0.14), (0.4 * belly, 0.4, 0.13), (0.45 * belly, 0.6, 0.14)])
    limbs = [pipe(arm, np.linspace(0.13, 0.11, len(arm)), fur), ball(0.24, arm[-1], fur), pipe(leg, 0.15, fur)]
    limbs += [pod((0.3, 0.2, 0.34), leg[-1], fur), pod((0.2, 0.06, 0.22), leg[-1] + (0, 0.09, 0), light)]
    tie, at = paint(rng, "toy"), (0, 0.34 * belly, 0.8)
    bow = [*mirrored([spun([(0.03, 0), (0.11, 0.2)], tie, at, axis=0)]), ball(0.1, at, darker(tie))]
    return [*parts, *mirrored(limbs), *(bow if u() < 0.5 else [])]


def rings(rng: Rng) -> list[Part]:
    """A stack of rings on a pole, larger ones below."""
    u, count, z = rng.uniform, int(rng.integers(4, 8)), 0.1
    thick, largest, smallest = u(0.09, 0.13), u(0.5, 0.65), u(0.22, 0.3)
    parts = [disc(largest + 0.05, 0, 0.1, wood(rng, 0, 1), 0.03)]
    for radius in np.linspace(largest, smallest, count):
        parts.append(disc(radius, z, z + 2 * thick, paint(rng, "toy"), thick))
        z += 2 * thick

    parts.append(tube((0, 0, 0.05), (0, 0, z + 0.1), 0.07, wood(rng)))
    return [*parts, ball(0.3, (0, 0, z + 0.15), paint(rng, "toy"))]


def duck(rng: Rng) -> list[Part]:
    """Bath ducks, on some a hat, and hens."""
    u, color = rng.uniform, (0.96, 0.8, 0.16, 0.25, 20.0) if rng.random() < 0.55 else paint(rng, "toy")
    bill, red, size, z = (0.93, 0.48, 0.12, 0.2, 20.0), (0.82, 0.12, 0.1, 0.1, 16.0), u(0.48, 0.6), u(0.72, 0.85)
    tail = curve([(0, -0.4, 0.35), (0, -0.6, 0.5), (0, -0.72, 0.7)])
    parts = [pod((0.8, 1.1, 0.66), (0, -0.05, 0.32), color, 2.2), ball(size, (0, 0.32, z), color)]

    parts.append(pipe(tail, np.linspace(0.26, 0.06, len(tail)), color, 0.6))
    parts.append(tube((0, 0.22, 0.4), (0, 0.3, z), 0.24, color))
    parts += mirrored(turned([pod((0.12, 0.56, 0.34), (0.4, -0.12, 0.4), darker(color, 0.9))], 8, 0))
    parts += eyes(0.3 * size, 0.32 + 0.36 * size, z + 0.1, 0.09)
    top, front = z + 0.42 * size, 0.3 + 0.46 * size
    if u() < 0.3:
        comb = [pod((0.06, 0.14, 0.16), (0, y, top + 0.04), red) for y in (0.2, 0.32, 0.44)]

        beak = spun([(0.1, 0), (0.01, 0.22)], bill, (0, front, z), axis=1)
        return [*parts, *comb, beak, pod((0.07, 0.08, 0.16), (0, front, z - 0.14), red)]
    hat = paint(rng, "toy")
    brim = [disc(0.24, top, top + 0.02, hat, center=(0, 0.32)), disc(0.15, top, top + 0.22, hat, 0.03, (0, 0.32))]
    return [*parts, pod((0.34, 0.4, 0.09), (0, front + 0.06, z - 0.03), bill, 2.5), *(brim if u() < 0.3 else [])]


TOYS: Theme = {each.__name__: each for each in (animal, blocks, robot, teddy, rings, duck)}
