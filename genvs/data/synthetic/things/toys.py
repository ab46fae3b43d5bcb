"""Toys: animals on four legs, blocks, robots, teddy bears, stacks of rings, bath ducks; their front is at +y."""

import numpy as np

from genvs.data.synthetic.liveries import GLYPHS, blotches, lettering
from genvs.data.synthetic.parts import Finish, Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import box, mirrored, pod, prism, tube
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
    ring,
    spun,
    turned,
    within,
    wood,
)

# Kind: its coat (a material, or a colour), and what else it has; then length, height and width of the body, length of
# the legs and the neck, the neck's angle (degrees above the level), size of the head, length of the snout.
_TABLE = """
dog skin flaps 0.75 0.32 0.3 0.4 0.22 50 0.3 0.16
cat skin points 0.65 0.28 0.26 0.32 0.16 50 0.27 0.05
horse skin points+mane+brush 0.95 0.42 0.36 0.7 0.5 55 0.27 0.24
zebra ebe8e0 points+mane+brush+stripes 0.95 0.42 0.36 0.62 0.45 55 0.27 0.22
cow e8e6db flaps+horns+brush+spots 1.0 0.52 0.44 0.45 0.2 25 0.32 0.16
pig eba8a3 points 0.8 0.5 0.46 0.24 0.1 10 0.36 0.14
sheep e6e0d1 flaps+wool 0.75 0.55 0.5 0.3 0.18 35 0.26 0.12
elephant 8f919c sails+trunk+brush 1.0 0.72 0.62 0.48 0.12 20 0.5 0.02
giraffe e6bd6b points+mane+brush+spots+knobs 0.75 0.42 0.34 0.9 1.0 70 0.24 0.18
lion d9a152 halo+brush 0.85 0.38 0.34 0.42 0.2 40 0.34 0.12
camel c79961 points+brush+humps 0.9 0.42 0.36 0.72 0.5 45 0.25 0.2
bear skin rounds 0.85 0.52 0.48 0.34 0.12 20 0.38 0.14
"""
ANIMALS = [line.split() for line in _TABLE.strip().splitlines()]


def eyes(x: float, y: float, z: float, size: float, finish: Finish = DARK) -> list[Part]:
    return mirrored([ball(size, (x, y, z), finish)])


def _coat(rng: Rng, kind: str, own: str, extras: list[str]) -> Surface:
    """An animal's colour, or a toy's; with stripes or spots."""
    base = paint(rng, "toy" if rng.random() < 0.2 else own)
    noise, dark = blotches(rng, 0.16), darker(base, 0.55 if kind == "giraffe" else 0.25)
    if "stripes" in extras:
        return Surface(base, [(lambda p: (p[:, 1] * 9 + 0.4 * noise(p)) % 1 < 0.4, DARK)])
    if "spots" in extras or (kind in ("dog", "cat") and rng.random() < 0.4):
        return Surface(base, [(lambda p: noise(p) > 0.35, dark)])
    return Surface(base)


def _head(at: Array, size: float, snout: float, coat: Surface, extras: list[str]) -> list[Part]:
    """A head with snout, eyes, and its kind's ears, horns and trunk. Lengths in units of its size, from its middle."""
    dark = darker(coat.finish, 0.6)
    skin = coat if "wool" not in extras else Surface((0.15, 0.13, 0.12, 0.0, 1.0))
    horn, knob = curve([(0.2, 0, 0.35), (0.5, 0, 0.5), (0.5, 0, 0.8)]), ((0.15, 0, 0.4), (0.18, -0.1, 0.75))
    trunk = curve([(0, 0.3, -0.1), (0, 0.62, -0.3), (0, 0.68, -0.8), (0, 0.85, -1.1), (0, 1.05, -1.0)])
    tusk = curve([(0.24, 0.3, -0.3), (0.3, 0.6, -0.5), (0.28, 0.85, -0.4)])
    parts = [pod((0.85, 1, 1), (0, 0, 0), skin), *eyes(0.28, 0.38, 0.16, 0.13)]
    if snout > 0.04:
        long = snout / size
        parts += [pod((0.55, long + 0.5, 0.5), (0, 0.45 + 0.5 * long, -0.15), skin, 2.5)]
        parts += [pod((0.2, 0.12, 0.14), (0, 0.7 + long, -0.09), DARK)]
    sides = {
        "flaps": [pod((0.12, 0.28, 0.55), (0.45, -0.05, 0.08), dark)],
        "points": [spun([(0.15, 0), (0.01, 0.4)], skin, (0.26, -0.1, 0.36))],
        "rounds": [pod((0.32, 0.14, 0.32), (0.32, -0.08, 0.42), dark)],
        "sails": [pod((0.8, 0.1, 1.05), (0.72, -0.22, 0), dark, 2.4)],
        "halo": [pod((0.25, 0.12, 0.25), (0.34, 0, 0.4), skin)],
        "horns": [pipe(horn, np.linspace(0.08, 0.03, len(horn)), WHITE)],
        "knobs": [tube(*knob, 0.06, dark, 0.09)],
        "trunk": [pipe(tusk, np.linspace(0.08, 0.02, len(tusk)), WHITE)],
    }
    parts += mirrored([part for name in extras for part in sides.get(name, [])])
    if "halo" in extras:
        parts.append(pod((1.5, 0.7, 1.6), (0, -0.3, 0), dark, 2.5))
    if "trunk" in extras:
        parts.append(pipe(trunk, np.linspace(0.24, 0.1, len(trunk)), coat))
    return [part._replace(vertices=part.vertices * size + at) for part in parts]


def animal(rng: Rng) -> list[Part]:
    kind, own, tags, *numbers = ANIMALS[rng.integers(len(ANIMALS))]
    extras = tags.split("+")
    long, high, wide, leg, neck, angle, size, snout = np.array(numbers, float) * rng.uniform(0.9, 1.1, 8)
    coat, z = _coat(rng, kind, own, extras), leg + 0.45 * high
    hair = DARK if "stripes" in extras else darker(coat.finish, 0.45)
    hoof = mark(lambda px, py, pz: pz < 0.13 * leg, darker(coat.finish, 0.4))
    parts = [pod((wide, long, high), (0, 0, z), coat, rng.uniform(2.2, 3))]
    x, y, thick = 0.32 * wide, 0.33 * long, 0.5 * wide if leg < 0.55 else 0.36 * wide
    limb = tube((x, y, 0), (x, y, z), 0.38 * thick, Surface(coat.finish, [*coat.decals, hoof]), 0.5 * thick)
    parts += ring(mirrored([limb]), 2)
    start, up = np.array((0, 0.4 * long, z + 0.15 * high)), np.radians(angle)
    ahead = np.array((0, np.cos(up), np.sin(up)))
    at = start + (neck + 0.35 * size) * ahead
    parts.append(tube(start - 0.12 * ahead, at, min(0.4 * wide, 0.45 * high), coat, 0.32 * size))
    parts += _head(at, size, snout, coat, extras)
    if "wool" in extras:
        for place in rng.uniform(-1, 1, (14, 3)):
            unit = place / np.sqrt((place**2).sum())
            parts.append(ball(0.26, unit * (0.4 * wide, 0.42 * long, 0.4 * high) + (0, 0, z), coat))
    if "mane" in extras:
        back = np.linspace(start - (0, 0.06 + 0.3 * wide, 0), at + (0, -0.3 * size, 0.35 * size), 5)
        parts += [pod((0.07, 0.2, 0.28 + neck / 9), place, hair) for place in back]
    if "humps" in extras:
        places = (-0.2, 0.16) if rng.random() < 0.6 else (0,)
        parts += [pod((0.26, 0.36, 0.5), (0, place * long, z + 0.42 * high), coat) for place in places]
    brush, top = "brush" in extras, z + 0.15 * high
    drop, out = (-0.7 * leg, 0.12) if brush else (0.3, 0.22)
    tail = curve([(0, 0.08 - long / 2, top), (0, -long / 2 - 0.06, top), (0, -long / 2 - out, top + drop)])
    parts.append(pipe(tail if "wool" not in extras else tail[:6], 0.035, coat))
    return [*parts, pod((0.09, 0.09, 0.2), tail[-1], hair)] if brush else parts


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
