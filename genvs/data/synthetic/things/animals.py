"""Toy animals on four legs, of simple solids: a table of their proportions; their front is at +y."""

import numpy as np

from genvs.data.synthetic.liveries import blotches
from genvs.data.synthetic.parts import Finish, Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import mirrored, pod, tube
from genvs.data.synthetic.things.kit import DARK, WHITE, Rng, ball, curve, darker, mark, paint, pipe, ring, spun

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
