"""Trees: broad-leaved ones, firs and palms. Their size is about 1."""

import numpy as np

from genvs.data.synthetic.liveries import blotches
from genvs.data.synthetic.parts import Finish, Part, Surface
from genvs.data.synthetic.solids import Paint, Point, pod, tube
from genvs.data.synthetic.things.kit import (
    GOLD,
    SAND,
    WHITE,
    Rng,
    Theme,
    ball,
    bent,
    curve,
    darker,
    mark,
    moved,
    paint,
    pipe,
    ring,
    spun,
    turned,
    waved,
    wood,
)  # fmt: skip


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


TREES: Theme = {each.__name__: each for each in (tree, fir, palm)}
