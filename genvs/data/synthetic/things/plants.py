"""Plants: house plants, cacti, mushrooms, flowers, pumpkins, and trees. Their size is about 1."""

import numpy as np

from genvs.data.synthetic.liveries import blotches
from genvs.data.synthetic.parts import Finish, Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import Paint, Point, pod, tube
from genvs.data.synthetic.things.kit import (
    DARK,
    GOLD,
    SAND,
    SOIL,
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
    waved,
    wood,
)


def frond(long: float, wide: float, rise: float, droop: float, finish: Paint, stem: float = 0.25) -> Part:
    """A leaf from the origin outwards along x: it rises, then droops at its tip."""
    path = curve([(0, 0, 0), (0.35 * long, 0, 0.75 * rise), (0.75 * long, 0, rise), (long, 0, rise - droop)], 3)
    blade = np.clip((np.linspace(0, 1, len(path)) - stem) / (1 - stem), 0, 1)
    return pipe(path, np.maximum(wide * np.sin(np.pi * blade**0.8) ** 0.8, 0.012), finish, 0.12)


def crown(rng: Rng, at: Point, size: float, green: Finish, count: int) -> list[Part]:
    """A mass of leaves: overlapping balls with light and dark patches."""
    first, second = blotches(rng, 0.09), blotches(rng, 0.05)
    patches = [(lambda p: first(p) > 0.2, darker(green, 0.8)), (lambda p: second(p) > 0.45, darker(green, 1.25))]
    places = rng.normal(0, 1, (count, 3))
    places *= 0.42 * size / np.sqrt((places**2).sum(1, keepdims=True))
    skin, sizes = Surface(green, patches), size * rng.uniform(0.55, 0.75, count)
    balls = [ball(width, place * (1, 1, 0.85) + at, skin) for width, place in zip(sizes, places, strict=True)]
    return [ball(size * 1.1, at, skin), *balls]


def tree(rng: Rng) -> list[Part]:
    """Broad-leaved trees in leaf, in autumn or in blossom, on some with fruit."""
    u, bark, green = rng.uniform, paint(rng, "wood"), paint(rng, "leaf", "leaf", "autumn")
    h, size, thick, shape = u(0.45, 0.8), u(0.5, 0.75), u(0.05, 0.085), u()
    trunk = curve([(0, 0, 0), (u(-0.04, 0.04), u(-0.04, 0.04), 0.5 * h), (0, 0, h + 0.2)])
    parts = [pipe(trunk, np.interp(np.linspace(0, 1, len(trunk)), [0, 0.15, 1], [1.7, 1.05, 0.7]) * thick, bark)]
    if shape < 0.35:  # several crowns on branches
        for angle in np.radians(np.arange(3) * 120 + u(0, 90)):
            end = np.array((u(0.25, 0.38) * np.cos(angle), u(0.25, 0.38) * np.sin(angle), h + u(0.1, 0.35)))
            branch = curve([(0, 0, 0.6 * h), end * (0.5, 0.5, 0) + (0, 0, 0.85 * h), end])
            parts += [pipe(branch, 0.5 * thick, bark, sides=6), *crown(rng, end + (0, 0, 0.08), 0.62 * size, green, 6)]
        return parts + crown(rng, (0, 0, h + 0.42), 0.6 * size, green, 6)
    tall = u(1.35, 1.8) if shape > 0.8 else u(0.8, 1.1)  # a poplar, or a ball
    middle = np.array((0, 0, h + 0.4 * size * tall))
    balls = moved(crown(rng, (0, 0, 0), size, green, 13), middle, (1, 1, tall))
    if u() < 0.3:
        fruit = paint(rng, "fruit")
        for part in balls[1:]:
            out = part.vertices.mean(0) - middle
            parts.append(ball(0.085, middle + (1 + 0.3 * size / np.sqrt((out**2).sum())) * out, fruit))
    return parts + balls


def fir(rng: Rng) -> list[Part]:
    """Firs and cypresses, on some snow, or balls and a star."""
    u, green, noise = rng.uniform, darker(paint(rng, "leaf"), 0.8), blotches(rng, 0.06)
    tiers, points, snow, dressed = int(rng.integers(3, 7)), int(rng.integers(9, 14)), u() < 0.25, u() < 0.3
    h, r, trunk = u((1.3, 0.45, 0.12), (1.9, 0.65, 0.25))
    step = (h - trunk) / (tiers + 0.6)
    tall = 1.9 * step
    dark = (lambda p: noise(p) > 0.2, darker(green, 0.78))
    dust = (lambda p: p[:, 2] + 0.03 * noise(p) > 0.3 * tall, WHITE)
    needles = Surface(green, [dark, dust] if snow else [dark])
    parts = [tube((0, 0, 0), (0, 0, h), 0.075, wood(rng), 0.02)]
    for tier in range(tiers):
        wide, z = r * (1 - 0.85 * tier / tiers), trunk + tier * step
        skirt = [(0.7 * wide, 0.06 * tall), (wide, 0), (wide, 0), (0.55 * wide, 0.35 * tall), (0.2 * wide, 0.75 * tall)]
        cone = waved(spun([*skirt, (0.01, tall)], needles, sections=3 * points), points, 0.07)
        parts += moved(turned([cone], 17 * tier), (0, 0, z))
        for angle in np.arange(7) * 51 + u(0, 50) if dressed else ():
            parts += turned([ball(0.08, (0.93 * wide, 0, z + 0.02), paint(rng, "toy"))], angle)
    if dressed:
        spike = spun([(0.055, 0), (0.005, 0.14)], GOLD, sections=4, sharp=True)
        parts += moved(ring([spike], 5, axis=1), (0, 0, h + 0.04))
    return parts


def palm(rng: Rng) -> list[Part]:
    """Palms with a bent trunk, on an island or bare."""
    u, bark, green = rng.uniform, paint(rng, "wood"), paint(rng, "leaf")
    h, lean, long = u(0.9, 1.4), u(-0.35, 0.35), u(0.5, 0.7)
    trunk = curve([(0, 0, 0), (0.2 * lean, 0, 0.35 * h), (0.6 * lean, 0, 0.75 * h), (lean, 0, h)])
    scars = mark(lambda px, py, pz: pz / 0.08 % 1 < 0.3, darker(bark, 0.7))
    cuts = mark(lambda px, py, pz: ((px * 24 - np.abs(py) * 22) % 1 < 0.3) & (np.abs(py) > 0.012), darker(green, 0.55))
    leaves: list[Part] = []
    for count, rise, droop in ((rng.integers(6, 9), u(0.1, 0.2), u(0.35, 0.5)), (5, u(0.3, 0.4), u(0.2, 0.3))):
        leaves += ring([frond(long, u(0.08, 0.11), rise, droop, Surface(green, [cuts]), 0.0)], int(count), u(0, 60))
    nuts = ring([ball(0.11, (0.08, 0, -0.05), (0.42, 0.27, 0.13, 0.1, 16.0))], 4) if u() < 0.6 else []
    sand = pod((1.1, 0.9, 0.24), (0.15 * lean, 0, 0.01), SAND, 2.2)
    island = [bent(sand, lambda x, y, z: (x, y, np.maximum(z, -0.02)))] if u() < 0.5 else []
    top = moved([*leaves, *nuts], (lean, 0, h - 0.02))
    return [pipe(trunk, np.linspace(0.09, 0.05, len(trunk)), Surface(bark, [scars])), *top, *island]


def _pot(rng: Rng, r: float, h: float) -> list[Part]:
    """A flower pot with soil, whose rim is `r` wide and `h` high."""
    skin, style = Surface(paint(rng, "clay")) if rng.random() < 0.5 else glazed(rng, 0, h), rng.random()
    side = [(0.65 * r, 0), (0.75 * r, 0.3 * h), (0.88 * r, 0.7 * h), (0.95 * r, h)]
    if style < 0.3:
        side = [(0.6 * r, 0), (0.98 * r, 0.35 * h), (1.0 * r, 0.65 * h), (0.85 * r, h)]
    parts = [hollow(side, 0.06 * r, (0, 0, 0), skin, darker(skin.finish)), disc(0.86 * r, 0.7 * h, 0.88 * h, SOIL)]
    return [*parts, hoop(0.97 * r, 0.9 * h, 0.09 * r, skin.finish, 1.1 * h / r)] if style > 0.55 else parts


def potted(rng: Rng) -> list[Part]:
    """House plants: broad leaves, swords, arching blades, or a clipped tree."""
    u, green, style, pale = rng.uniform, paint(rng, "leaf"), rng.integers(4), rng.random() < 0.4
    vein, h, leaves = (0.78, 0.82, 0.5, 0.0, 1.0) if pale else darker(green, 0.75), u(0.3, 0.5), []
    if style == 0:  # broad leaves on stalks
        veined = Surface(green, [mark(lambda px, py, pz: np.abs(py) < 0.018, vein)])
        for level, tilt in enumerate((u(0.0, 0.15), u(0.3, 0.45), u(0.55, 0.7))):
            leaf = frond(u(0.5, 0.65) * (1 - 0.35 * tilt), u(0.11, 0.16), tilt + 0.1, u(0.1, 0.25), veined)
            leaves += moved(ring([leaf], int(rng.integers(4, 7)) - level, 50 * level), (0, 0, 0.03 * level))
    elif style == 1:  # swords
        banded = Surface(green, [mark(lambda px, py, pz: (pz * 22 + 3 * np.abs(px)) % 1 < 0.35, darker(green, 0.6))])
        for count, out, tall in ((6, 0.16, u(0.5, 0.7)), (3, 0.06, u(0.8, 1.0))):
            path = curve([(0.2 * out, 0, 0), (0.8 * out, 0, 0.5 * tall), (1.6 * out, 0, tall)], 3)
            width = 0.065 * np.sin(np.pi * np.linspace(0.25, 0.99, len(path))) ** 0.7
            leaves += ring([pipe(path, width, banded, 0.3, 6)], count, u(0, 90))
    elif style == 2:  # arching blades
        edged = Surface(green, [mark(lambda px, py, pz: np.abs(py) > 0.02, vein)] if pale else [])
        for count, long, rise in ((9, u(0.55, 0.7), u(0.2, 0.35)), (7, 0.45, u(0.5, 0.7)), (4, 0.2, u(0.6, 0.8))):
            leaves += ring([frond(long, 0.05, rise, u(0.25, 0.5) * long, edged, 0.0)], count, u(0, 90))
    else:
        size, z, double = u(0.4, 0.55), u(0.3, 0.6), u() < 0.4
        leaves = crown(rng, (0, 0, z + 0.4 * size), size, green, 9)
        leaves += crown(rng, (0, 0, z + 1.2 * size), 0.65 * size, green, 9) if double else []
        leaves.append(tube((0, 0, -0.1), (0, 0, z + (1.2 if double else 0.4) * size), 0.035, paint(rng, "wood")))
    stump = tube((0, 0, -0.1), (0, 0, 0.1), 0.05, green)
    return [*_pot(rng, u(0.22, 0.32), h), *moved([stump, *leaves], (0, 0, 0.85 * h))]


def _bloom(rng: Rng, at: Point, size: float) -> list[Part]:
    petals = ring(turned([pod((0.9, 0.5, 0.14), (0.5, 0, 0), paint(rng, "petal"))], -35, 1), 6)
    return moved([*petals, ball(0.4, (0, 0, 0.1), GOLD)], at, size)


def cactus(rng: Rng) -> list[Part]:
    """Columns with arms, balls, and prickly pears, in a pot or in sand; on some a flower."""
    u, green, style, ribs = rng.uniform, paint(rng, "leaf"), rng.random(), int(rng.integers(7, 10))
    pale = (0.9, 0.88, 0.7, 0.0, 1.0)
    parts, z = ([disc(0.5, 0, 0.08, SAND, 0.04)], 0.05) if u() < 0.4 else (_pot(rng, u(0.3, 0.4), 0.37), 0.3)

    def spines(p: Array) -> np.ndarray:
        turn = np.arctan2(p[:, 1], p[:, 0]) * ribs / (2 * np.pi)
        return (np.abs((turn + 0.5) % 1 - 0.5) < 0.09) & (p[:, 2] * 14 % 1 < 0.4)

    if style < 0.7:
        tall, wide = (u(0.8, 1.2), u(0.12, 0.16)) if style < 0.45 else (u(0.42, 0.62), u(0.27, 0.34))
        side = [(0.8 * wide, 0), (wide, 0.3 * tall), (wide, 0.75 * tall), (0.6 * wide, 0.95 * tall), (0.02, tall)]
        plant = [waved(spun(curve(side), Surface(green, [(spines, pale)]), sections=4 * ribs), ribs, 0.1)]
        dotted = Surface(green, [mark(lambda px, py, pz: (pz * 14 + 8 * py) % 1 < 0.18, pale)])
        for turn in (0, 180, 90)[: rng.integers(1, 4)] if style < 0.45 else ():
            low, out, up = u(0.3, 0.55) * tall, u(0.24, 0.32), u(0.2, 0.4) * tall
            arm = curve([(0, 0, low), (0.8 * out, 0, low), (out, 0, low + 0.1), (out, 0, low + up)])
            limb = [pipe(arm, 0.6 * wide, dotted, sides=12), ball(1.2 * wide, arm[-1], green)]
            plant += turned(limb, turn + u(-25, 25))
        plant += _bloom(rng, (0, 0, tall - 0.03), 0.2) if u() < 0.5 else []
        return parts + moved(plant, (0, 0, z - 0.02))
    dots = mark(lambda px, py, pz: (px * 16 % 1 - 0.5) ** 2 + (pz * 16 % 1 - 0.5) ** 2 < 0.04, pale)
    for lean, x, up, size in ((0, 0, 0, 1), (-42, -0.12, 0.38, 0.8), (38, 0.11, 0.38, 0.9), (u(-8, 8), 0, 0.44, 0.75)):
        leaf = [pod((0.34, 0.11, 0.5), (0, 0, 0.22), Surface(green, [dots]), 2.2)]
        leaf += _bloom(rng, (0, 0, 0.48), 0.14) if up and u() < 0.6 else []
        parts += moved(turned(leaf, lean, 1), (x, 0, z + up), size)
    return parts


def _mushroom(rng: Rng, h: float, r: float, thick: float, flat: float, cap: Surface, spotted: bool) -> list[Part]:
    stem, rise = (0.92, 0.88, 0.78, 0.0, 1.0), flat * r
    gills = Surface(stem, [mark(lambda px, py, pz: np.arctan2(py, px) * (18 / np.pi) % 1 < 0.4, darker(stem))])
    stalk = spun(curve([(1.5 * thick, 0), (1.3 * thick, 0.15 * h), (thick, 0.6 * h), (thick, h)]), stem)
    dome = curve([(r, 0.0), (r, 0.15 * rise), (0.72 * r, 0.75 * rise), (0.02, rise)])
    under = spun([(0.01, 0.05 * r), (0.97 * r, 0), (0.97 * r, 0.03)], gills, (0, 0, h - 0.03))
    parts = [stalk, under, spun(dome, cap, (0, 0, h))]
    if rng.random() < 0.4:
        skirt = [(0.9 * thick, 0), (1.9 * thick, -0.06), (1.9 * thick, -0.05), (0.9 * thick, 0.03)]
        parts.append(spun(skirt, stem, (0, 0, 0.75 * h)))
    for out, count in ((0.0, 1), (0.45, 5), (0.8, 9)) if spotted else ():
        up, size = h + np.interp(out * r, dome[::-1, 0], dome[::-1, 1]), r * rng.uniform(0.13, 0.22)
        parts += ring([pod((size, size, 0.6 * size), (out * r, 0, up), WHITE)], count, rng.uniform(0, 60))
    return parts


def mushroom(rng: Rng) -> list[Part]:
    """One to three mushrooms, with spots or without."""
    u, red, flat, r = rng.uniform, rng.random() < 0.5, rng.uniform(0.3, 0.75), rng.uniform(0.35, 0.5)
    cap, spotted = Surface((0.82, 0.13, 0.1, 0.25, 20.0) if red else paint(rng, "skin")), red or u() < 0.3
    parts = _mushroom(rng, u(0.5, 0.9), r, u(0.09, 0.14), flat, cap, spotted)
    small = (0.72, -0.65)[: rng.integers(0, 3)]
    for x in small:
        parts += moved(_mushroom(rng, u(0.4, 0.6), u(0.4, 0.6) * r, 0.07, flat, cap, spotted), (x * r, u(0.2, 0.45), 0))
    moss = pod((1.9 * r, 1.9 * r, 0.14), (0, 0.12, 0), paint(rng, "leaf"), 2.2)
    return [*parts, bent(moss, lambda x, y, z: (x, y, np.maximum(z, -0.01)))] if small else parts


def _flower_head(rng: Rng, style: int, color: tuple[float, ...], green: tuple[float, ...]) -> list[Part]:
    """A tulip, a sunflower or a daisy, facing up."""
    if style == 0:
        petal = curve([(0.02, 0, 0), (0.14, 0, 0.08), (0.13, 0, 0.22), (0.07, 0, 0.32)], 3)
        blade = [pipe(petal, 0.12 * np.sin(np.pi * np.linspace(0.12, 0.93, len(petal))) ** 0.8, color, 0.2)]
        return [*ring(blade, 3), *ring(moved(blade, (0, 0, 0.01), 0.92), 3, 60), ball(0.1, (0, 0, 0.03), green)]
    count, long, eye = (int(rng.integers(14, 20)), 0.22, 0.17) if style == 1 else (int(rng.integers(6, 11)), 0.18, 0.08)
    wide, seeds = min(4.4 * (eye + 0.12) / count, 0.16), (0.28, 0.17, 0.08, 0.0, 1.0) if style == 1 else GOLD
    petals = [pod((long, wide, 0.03), (eye + 0.4 * long, 0, 0), color)]
    second = moved(ring(turned(petals, -12, 1), count, 180 / count), (0, 0, -0.015))
    middle = [pod((2 * eye, 2 * eye, 0.09), (0, 0, 0.015), seeds), pod((0.14, 0.14, 0.1), (0, 0, -0.03), green)]
    return [*ring(petals, count), *second, *middle]


def flower(rng: Rng) -> list[Part]:
    """Tulips, sunflowers and daisies, one or a few, in a pot or in soil."""
    u, green, style, bare = rng.uniform, paint(rng, "leaf"), int(rng.integers(3)), rng.random() < 0.35
    color = (0.95, 0.72, 0.1, 0.0, 1.0) if style == 1 else paint(rng, "petal")
    parts, z = ([disc(0.3, 0, 0.05, SOIL, 0.02)], 0) if bare else (_pot(rng, 0.24, 0.36), 0.3)
    count = 1 if style == 1 or bare else int(rng.integers(1, 5))
    for number in range(count):
        h, out = (u(0.8, 1.3) if style == 1 else u(0.6, 1.0)), (0.0 if count == 1 else u(0.12, 0.25))
        stem = curve([(0, 0, 0), (0.3 * out, u(-0.03, 0.03), 0.5 * h), (out, 0, h)])
        tilt = ((0, 12), (45, 75), (20, 60))[style]
        head = turned(_flower_head(rng, style, color, green), u(*tilt), 1)
        plant = [pipe(stem, 0.035 if style == 1 else 0.024, green, sides=6)]
        plant += moved(turned(head, u(70, 110)), (out, 0, h))
        for up in (0.12, 0.4):
            leaf = frond(u(0.2, 0.34), u(0.045, 0.08), u(0.1, 0.25), 0.1, green, 0.1)
            plant += moved(turned([leaf], u(0, 360)), (0.5 * up * out, 0, up * h))
        parts += moved(turned(plant, number * 360 / count + u(0, 30)), (0, 0, z))
    return parts


def pumpkin(rng: Rng) -> list[Part]:
    """Pumpkins and gourds, on some a leaf, in some a face."""
    u, ribs, color = rng.uniform, int(rng.integers(8, 12)), paint(rng, "pumpkin")
    r, h = u((0.45, 0.5), (0.6, 0.95))
    side = [(0.3, 0), (0.85, 0.1), (1, 0.5), (0.75, 0.92), (0.2, 0.95), (0.05, 0.88)]
    if u() < 0.25:  # a gourd
        side = [(0.3, 0), (0.95, 0.25), (0.8, 0.7), (0.4, 1.05), (0.3, 1.35), (0.05, 1.4)]
    groove = mark(lambda px, py, pz: np.cos(ribs * np.arctan2(py, px)) < -0.75, darker(color, 0.75))

    def face(p: Array) -> np.ndarray:
        a, b = np.abs(p[:, 0]) / r, p[:, 2] / h - 0.5
        eyes = (np.abs(a - 0.35) < 0.16 - (b - 0.1) * 0.7) & (b > 0.1) & (b < 0.3)
        mouth = (np.abs(b + 0.22 - 0.35 * a**2) < 0.09) & (a < 0.62) & ((a * 7) % 1 > 0.2)
        nose = (a < 0.08 - 0.6 * (b + 0.02)) & (np.abs(b + 0.02) < 0.07)
        return (p[:, 1] > 0) & (eyes | mouth | nose)

    skin, top = Surface(color, [groove, (face, DARK)] if u() < 0.35 else [groove]), side[-1][1] * h
    body = spun(curve(side) * (r, h), skin, sections=4 * ribs)
    stalk = curve([(0, 0, top - 0.05), (0.02, 0, top + 0.08), (u(-0.12, 0.12), 0.03, top + u(0.14, 0.22))])
    stem = pipe(stalk, np.linspace(0.07, 0.045, len(stalk)), (0.45, 0.42, 0.2, 0.0, 1.0), sides=6)
    leaf = turned([frond(0.45, 0.16, 0.1, 0.2, paint(rng, "leaf"), 0.2)], u(0, 360))
    return [waved(body, ribs, 0.05), stem, *(moved(leaf, (0, 0, top + 0.02)) if u() < 0.5 else [])]


PLANTS: Theme = {each.__name__: each for each in (potted, cactus, mushroom, flower, pumpkin, tree, fir, palm)}
