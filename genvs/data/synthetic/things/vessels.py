"""Vessels: cups, vases, bottles, bowls, teapots, jugs, pots, buckets and barrels. Decimetres."""

import numpy as np

from genvs.data.synthetic.parts import Part, Surface
from genvs.data.synthetic.solids import Paint, box, mirrored, pod, tube
from genvs.data.synthetic.things.kit import (
    DARK,
    GOLD,
    WHITE,
    Rng,
    Theme,
    ball,
    bent,
    curve,
    darker,
    disc,
    glazed,
    hollow,
    hoop,
    mark,
    moved,
    paint,
    pipe,
    ring,
    spun,
    turned,
    wood,
)


def _handle(x: float, low: float, high: float, out: float, thick: float, finish: Paint, flat: float = 1.0) -> Part:
    """A bow at +x, from one height to another."""
    middle = (low + high) / 2 + 0.1 * out
    bow = curve([(0, 0, low), (0.8, 0, low + 0.1 * out), (1, 0, middle), (0.7, 0, high), (0, 0, high)])
    return pipe(bow * (out, 1, 1) + (x, 0, 0), thick, finish, flat)


def cup(rng: Rng) -> list[Part]:
    """Mugs and teacups, on some a saucer, in some a drink."""
    u, tea = rng.uniform, rng.random() < 0.45
    r, h, foot, waist = u(0.4, 0.5), *(u((0.5, 0.35, 0.7), (0.65, 0.55, 0.95)) if tea else u((0.75, 0.75, 0.85), 1.1))
    skin, inside, saucer = glazed(rng, 0, h), paint(rng, "ceramic") if u() < 0.3 else WHITE, u(1.5, 1.9) * r
    side = np.array([(foot * r, 0), (waist * r, 0.35 * h), ((0.5 + waist / 2) * r, 0.7 * h), (r, h)])
    at = r * (0.9 if tea else min(waist, 1.0)) - 0.03
    bow = _handle(at, u(0.15, 0.3) * h, u(0.72, 0.85) * h, u(0.28, 0.36), u(0.05, 0.075), skin.finish, u(0.6, 1))
    parts = [hollow(side, 0.045, (0, 0, 0), skin, inside), bow]
    if u() < 0.6:
        parts.append(disc(np.interp(0.8 * h, side[:, 1], side[:, 0]) - 0.03, 0.4 * h, 0.8 * h, paint(rng, "drink")))
    if tea or u() < 0.2:
        plate = [(0.5 * saucer, -0.05), (0.75 * saucer, -0.01), (saucer, 0.08)]
        parts += [
            hollow(plate, 0.03, (0, 0, 0), glazed(rng, -0.05, 0.1)),
            disc(0.9 * foot * r, -0.03, 0.02, skin.finish),
        ]
    return parts


def _flowers(rng: Rng, low: float, neck: float, h: float) -> list[Part]:
    """A bunch, from the height `low` through a neck at `h`."""
    u, green, petals, count, parts = rng.uniform, paint(rng, "leaf"), paint(rng, "petal"), int(rng.integers(3, 8)), []
    for turn in range(count):
        end, size = (u(0.1, 0.5), 0, h + u(0.4, 1.1)), u(0.14, 0.2)
        head = [*ring([pod((1.2, 0.8, 0.4), (0.8, 0, 0), petals)], 5), pod((1, 1, 0.6), (0, 0, 0.2), GOLD)]
        stem = pipe(curve([(0, 0, low), (0.3 * neck, 0, h), end]), 0.02, green, sides=5)
        parts += turned([stem, *moved(turned(head, u(0, 40), 1), end, size)], turn * 360 / count)
    return parts


def vase(rng: Rng) -> list[Part]:
    """Vases of many outlines, on some two handles, in some flowers."""
    u, h, foot, belly, neck, lip = rng.uniform, *rng.uniform((1.2, 0.2, 0.4, 0.12, 0.18), (2.6, 0.4, 0.75, 0.3, 0.45))
    at, above = u(0.25, 0.6) * h, u(0.72, 0.88) * h
    skin = glazed(rng, 0.05 * h, at + 0.1 * h) if u() < 0.5 else glazed(rng, 0, h)
    side = [(foot, 0), (0.5 * (foot + belly) + 0.05, 0.5 * at), (belly, at), (neck + 0.02, above), (lip, h)]
    parts = [hollow(side, 0.05, (0, 0, 0), skin, darker(skin.finish, 0.5))]
    if u() < 0.25:
        parts += mirrored([_handle(neck - 0.02, at + 0.15 * h, above + 0.02 * h, u(0.25, 0.4), 0.045, skin.finish)])
    return parts + _flowers(rng, 0.5 * h, neck, h) if u() < 0.4 else parts


def bottle(rng: Rng) -> list[Part]:
    """Bottles with a label and a cork or a cap, and jars with a lid."""
    u, glass, jar = rng.uniform, paint(rng, "glass"), rng.random() < 0.3
    r, h = u((0.38, 0.8), (0.5, 1.3)) if jar else u((0.32, 2.0), (0.46, 3.0))
    neck, shoulder = (0.85 * r, 0.86) if jar else u((0.12, 0.5), (0.16, 0.68))
    low, high = u(0.12, 0.25) * h, (shoulder - u(0.06, 0.14)) * h
    paper, ink, cap = paint(rng, "ceramic"), paint(rng, "ceramic"), paint(rng, "metal", "toy")
    label = [mark(lambda px, py, pz: (pz > low) & (pz < high), WHITE if u() < 0.6 else paper)]
    label.append(mark(lambda px, py, pz: np.abs(np.abs(2 * (pz - low) / (high - low) - 1) % 0.6) < 0.15, ink))
    label.append(mark(lambda px, py, pz: (pz < low) | (pz > high), glass))
    collar = (neck, 0.95 if jar else 0.82)
    upper = [(r, 0.2), (r, shoulder), (0.6 * r + 0.4 * neck, 0.6 * shoulder + 0.32), collar, (neck, 1)]
    body = [(0.01, 0.04), (0.8 * r, 0), (r, 0.06), (r, 0.06), *(curve(upper) * (1, h))]
    tops = [disc(neck + 0.06, h - 0.1, h + 0.1, cap, 0.03), disc(neck + 0.03, h - u(0.15, 0.3), h + 0.02, cap, 0.02)]
    tops.append(disc(neck - 0.02, h - 0.1, h + 0.1, paint(rng, "wood")))
    return [spun(body, Surface(glass, label if u() < 0.85 else [])), tops[0 if jar else rng.integers(1, 3)]]


def bowl(rng: Rng) -> list[Part]:
    """Bowls and dishes, on some a foot, in most fruit."""
    u, r, foot, kind = rng.uniform, rng.uniform(0.9, 1.3), rng.choice([0.0, rng.uniform(0.3, 0.7)]), paint(rng, "fruit")
    h, base, size = u(0.4, 0.8) * r, u(0.3, 0.5) * r, u(0.3, 0.38) * r
    skin = wood(rng, 0, 1) if u() < 0.25 else glazed(rng, foot, foot + h)
    rim = [(base, 0), (0.5 * (base + r) + 0.08, 0.3 * h), (0.93 * r, 0.7 * h), (r, h)]
    parts = [hollow(rim, 0.05, (0, 0, foot), skin, paint(rng, "ceramic") if u() < 0.5 else None)]
    if foot:
        stem = curve([(base + 0.1, 0), (0.14, 0.35 * foot), (0.12, 0.8 * foot), (base, foot + 0.04)])
        parts.append(spun(stem, skin.finish))
    if u() < 0.65:
        same, up = u() < 0.4, foot + 0.75 * h
        around = [(0.5 * r * np.cos(a), 0.5 * r * np.sin(a), up) for a in np.arange(6) * (np.pi / 3) + u(0, 1)]
        for place in (*around, (0, 0, up + 0.8 * size), (0.2 * r, 0.1, up - 0.25 * h), (-0.2 * r, -0.1, up - 0.25 * h)):
            fruit = pod((1.7, 1.7, 1.6 * u(0.9, 1.1)), (0, 0, 0), kind if same else paint(rng, "fruit"))
            parts += moved([fruit, tube((0, 0, 0.7), (0.15, 0, 1), 0.07, DARK)], place, size)
    return parts


def teapot(rng: Rng) -> list[Part]:
    """Teapots and kettles."""
    u, r, metal = rng.uniform, rng.uniform(0.6, 0.75), rng.random() < 0.3
    h, mouth, widest = r * u(1.1, 1.7), u(0.4, 0.55) * r, u(0.35, 0.6)
    skin = Surface(paint(rng, "steel")) if metal else glazed(rng, 0.1, h)
    trim = DARK if metal else skin.finish if u() < 0.7 else paint(rng, "ceramic")
    side = [(0.65 * r, 0), (0.95 * r, 0.5 * widest * h), (r, widest * h), ((r + mouth) / 2 + 0.1, 0.85 * h), (mouth, h)]
    lid = curve([(mouth + 0.03, 0), (0.7 * mouth, 0.1), (0.06, 0.15)]) + (0, h)
    spout = curve([(-0.8, 0, 0.3), (-1.3, 0, 0.5), (-1.45, 0, 0.85), (-1.75, 0, 1)]) * (r, 1, h)
    parts = [spun(curve(side), skin), spun([(mouth + 0.04, h - 0.02), *lid], skin), ball(0.16, (0, 0, h + 0.2), trim)]
    parts.append(pipe(spout, np.linspace(0.2, 0.075, len(spout)), skin, sides=10))
    if metal or u() < 0.2:  # over the lid
        arch = curve([(-0.6, 0, -0.2 * h), (-0.75, 0, 0.4), (0, 0, 0.75), (0.75, 0, 0.4), (0.6, 0, -0.2 * h)])
        return [*parts, pipe(arch * (r, 1, 1) + (0, 0, h), 0.05, trim)]
    return [*parts, _handle(0.85 * r, 0.25 * h, 0.85 * h, 0.75 * r, 0.07, trim)]


def can(rng: Rng) -> list[Part]:
    """Watering cans with a spout and a rose."""
    u, color, r, h = rng.uniform, paint(rng, "toy", "metal"), rng.uniform(0.5, 0.65), rng.uniform(0.9, 1.2)
    tip = np.array((-r - u(0.8, 1.1), 0, h + u(0.2, 0.5)))
    rose = moved(turned([spun([(0.08, 0), (0.22, 0.2), (0.22, 0.2), (0.01, 0.24)], color)], -50, 1), tip)
    bow = [(-0.8, 0, -0.05), (-0.5, 0, 0.4), (0.6, 0, 0.45), (1.7, 0, -0.2 * h), (0.95, 0, -0.7 * h)]
    lid = bent(disc(0.94 * r, h - 0.12, h - 0.02, color), lambda x, y, z: (0.6 * x - 0.38 * r, y, z))
    side, over = [(r, 0), (r, 0.01), (0.97 * r, 0.5 * h), (0.93 * r, h)], curve(bow) * (r, 1, 1) + (0, 0, h)
    body = hollow(side, 0.04, (0, 0, 0), Surface(color), darker(color, 0.5))
    return [body, lid, tube((-0.9 * r, 0, 0.15 * h), tip, 0.1, color, 0.07), *rose, pipe(over, 0.05, color)]


def jug(rng: Rng) -> list[Part]:
    """Jugs with a lip."""
    u, r, h, at = rng.uniform, *rng.uniform((0.42, 1.2, 0.3), (0.6, 1.7, 0.5))
    neck, skin = u(0.5, 0.75) * r, glazed(rng, 0.05, h) if u() < 0.8 else Surface(paint(rng, "metal"))
    rim = u(1.05, 1.35) * neck
    side = [(0.7 * r, 0), (r, at * h), (neck, 0.78 * h), (rim, h)]
    body = hollow(side, 0.05, (0, 0, 0), skin, darker(skin.finish, 0.6))
    x, _, z = body.vertices.T  # the rim is drawn out at -x
    out = np.clip(-x / rim, 0, 1) ** 4 * np.clip((z / h - 0.75) / 0.25, 0, 1) ** 2
    body = bent(body, lambda x, y, z: (x - 0.6 * rim * out, y, z + 0.1 * out))
    return [body, _handle(neck - 0.03, at * h, 0.92 * h, u(0.4, 0.6), 0.075, skin.finish, u(0.5, 1))]


def pot(rng: Rng) -> list[Part]:
    """Cooking pots with two handles, saucepans, and frying pans; on some a lid."""
    u, style, r = rng.uniform, rng.random(), rng.uniform(0.8, 1.1)
    grip = DARK if u() < 0.7 else paint(rng, "wood")
    metal = DARK if u() < 0.2 else paint(rng, "steel", "toy")
    flat = style < 0.3
    h, flare = (u(0.22, 0.32), u(1.05, 1.2)) if flat else (u(0.6, 1.2) * r, 1.0)
    side = [(0.95 * r, 0), (0.99 * r, 0.1 * h), (r, 0.5 * h), (flare * r, h)]
    parts = [hollow(side, 0.05, (0, 0, 0), Surface(metal), DARK if flat else darker(metal, 0.7))]
    if style < 0.55:
        shaft = curve([(0.98 * r, 0, 0), (1.4 * r, 0, 0.12), (r * u(2.2, 2.7), 0, 0.25)]) + (0, 0, 0.75 * h)
        parts.append(pipe(shaft, np.linspace(0.07, 0.11, len(shaft)), grip, 0.6))
    else:
        bow = curve([(0.0, -0.22, 0.0), (0.24, -0.2, 0.03), (0.24, 0.2, 0.03), (0.0, 0.22, 0)])
        parts += mirrored([pipe(bow + (r - 0.02, 0, 0.75 * h), 0.05, grip)])
    if not flat and u() < 0.75:
        dome = curve([(r + 0.03, h), (0.7 * r, h + 0.16), (0.1, h + 0.22)])
        parts += [spun([(r + 0.03, h - 0.02), dome[0], *dome], metal), pod((0.24, 0.24, 0.14), (0, 0, h + 0.3), grip)]
        parts.append(tube((0, 0, h + 0.15), (0, 0, h + 0.3), 0.05, grip))
    return parts


def barrel(rng: Rng) -> list[Part]:
    """Barrels with hoops, upright or lying on beams."""
    u, oak, steel, r, h = rng.uniform, wood(rng), paint(rng, "metal"), rng.uniform(0.6, 0.75), rng.uniform(1.6, 2.0)
    staves, bulge = int(rng.integers(12, 20)), curve([(0.8, 0), (0.97, 0.3), (0.97, 0.7), (0.8, 1)]) * (r, h)
    gaps = mark(lambda px, py, pz: np.arctan2(py, px) * staves / (2 * np.pi) % 1 < 0.06, darker(oak.finish, 0.45))
    ends = mark(lambda px, py, pz: (np.abs(pz - h / 2) > h / 2 - 0.16) & (px**2 + py**2 > (0.77 * r) ** 2), steel)
    side = [(0.01, 0.06), (0.74 * r, 0.06), (0.74 * r, 0), bulge[0], *bulge, (0.74 * r, h), (0.74 * r, h - 0.06)]
    parts = [spun(side, Surface(oak.finish, [*oak.decals, gaps, ends]))]
    parts += [disc(0.96 * r + 0.02, z - 0.07, z + 0.07, steel) for z in (0.32 * h, 0.68 * h)]
    beams = [box((0.3, 1.0, 0.3), (x, 0, -0.85 * r), paint(rng, "wood")) for x in (0.3 * h, 0.7 * h)]
    return [*turned(parts, 90, 1), *beams] if u() < 0.25 else parts


def bucket(rng: Rng) -> list[Part]:
    """Buckets with a bail, up or down."""
    u, color, band = rng.uniform, paint(rng, "toy", "steel"), paint(rng, "toy")
    r, h = u((0.62, 1.0), (0.75, 1.3))
    stripe = mark(lambda px, py, pz: np.abs(pz - 0.4 * h) < 0.1, band)
    side = [(0.7 * r, 0), (0.8 * r, 0.33 * h), (0.9 * r, 0.66 * h), (r, h)]
    body = hollow(side, 0.04, (0, 0, 0), Surface(color, [stripe] if u() < 0.4 else []), darker(color, 0.7))
    rim = hoop(r, h - 0.03, 0.04, color)
    lugs = mirrored([pod((0.1, 0.2, 0.2), (r, 0, h - 0.12), color)])
    arch = [(r * np.cos(a), 0, 0.95 * r * np.sin(a)) for a in np.linspace(0, np.pi, 15)]
    grip = tube((-0.2, 0, 0.95 * r), (0.2, 0, 0.95 * r), 0.06, paint(rng, "wood"))
    bail = turned([pipe(arch, 0.025, paint(rng, "steel"), sides=6), grip], rng.choice([0, 75]), 0)
    return [body, rim, *lugs, *moved(bail, (0, 0, h - 0.1))]


VESSELS: Theme = {each.__name__: each for each in (cup, vase, bottle, bowl, teapot, can, jug, pot, barrel, bucket)}
