"""Toy trains, rockets, boats and aeroplanes; their front is at +y."""

import numpy as np

from genvs.data.synthetic.parts import Finish, Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import box, mirrored, pod, prism, solid, tube
from genvs.data.synthetic.things.kit import (
    DARK,
    LIT,
    PANE,
    WHITE,
    Rng,
    Theme,
    bent,
    curve,
    darker,
    mark,
    moved,
    paint,
    plate,
    ring,
    spun,
    within,
    wood,
)


def _wheels(x: float, y: float, r: float, tyre: Finish, hub: Finish) -> list[Part]:
    """Two wheels, at +-x."""
    cap = mark(lambda px, py, pz: (py - y) ** 2 + (pz - r) ** 2 < (0.5 * r) ** 2, hub)
    return mirrored([spun([(r, -0.04), (r, 0.04)], Surface(tyre, [cap]), (x, y, r), axis=0)])


def _wagon(rng: Rng, y: float, dark: Finish) -> list[Part]:
    """A coach, or a truck with logs or a heap."""
    color, style, long = paint(rng, "toy"), rng.integers(3), (0.5, 1.1)
    panes = mark(lambda px, py, pz: (((py - y) / 0.32 + 0.5) % 1 < 0.6) & (np.abs(pz - 0.78) < 0.11), PANE)
    parts = [box((0.08, 0.5, 0.05), (0, y + 0.7, 0.34), DARK), box((*long, 0.18), (0, y, 0.33), dark)]
    if style == 0:
        return [*parts, box((*long, 0.6), (0, y, 0.7), color, [panes]), pod((0.62, 1.2, 0.14), (0, y, 1.0), dark, 5.0)]
    if style == 1:
        places = (-0.15, 0.5), (0.15, 0.5), (0, 0.72)
        return parts + [tube((x, y - 0.5, z), (x, y + 0.5, z), 0.15, wood(rng, 1)) for x, z in places]
    heap = pod((0.44, 1.0, 0.5), (0, y, 0.68), DARK if rng.random() < 0.5 else paint(rng, "toy"))
    return [*parts, box((*long, 0.34), (0, y, 0.55), color), heap]


def train(rng: Rng) -> list[Part]:
    """A steam engine with up to two wagons."""
    u, color, second, metal = rng.uniform, paint(rng, "toy"), paint(rng, "toy"), paint(rng, "metal")
    dark, tyre, hub = DARK if u() < 0.5 else darker(second, 0.6), paint(rng, "toy"), paint(rng, "toy")
    r, boiler, top = u(0.13, 0.16), u(0.22, 0.28), u(0.25, 0.4)
    z = 0.42 + boiler
    high = z + boiler + u(0.05, 0.25)
    bands = [mark(lambda px, py, pz: np.abs((py - 0.1) % 0.28) < 0.04, metal), mark(lambda px, py, pz: py > 0.67, dark)]
    barrel = [(boiler, -0.1), (boiler, 0.66), (boiler, 0.66), (0.85 * boiler, 0.72)]
    panes = [within((-9, -0.55, high - 0.34), (9, -0.25, high - 0.08), PANE)]
    panes.append(within((-0.15, -9, high - 0.34), (0.15, -0.3, high - 0.08), PANE))
    funnel = curve([(0.08, 0), (0.07, 0.6 * top), (0.11 + u(0, 0.06), top)])
    parts = [
        box((0.5, 1.5, 0.2), (0, 0, 0.33), dark),
        spun(barrel, Surface(color, bands), (0, 0, z), axis=1),
        box((0.52, 0.56, high - 0.4), (0, -0.4, (high + 0.4) / 2), second, panes),
        pod((0.66, 0.74, 0.12), (0, -0.4, high), dark, 5.0),
        spun(funnel, dark, (0, 0.5, z + boiler - 0.03)),
        pod((0.2, 0.2, 0.24), (0, 0.15, z + boiler), metal),
        pod((0.16, 0.12, 0.16), (0, 0.73, z + 0.08), LIT),
        prism([(0.75, 0.12), (1, 0.1), (0.75, 0.42)], (-0.24, 0.24), tyre),
        *_wheels(0.28, -0.45, 1.5 * r, tyre, hub),
    ]
    wagons = [-1.5, -2.85][: rng.integers(3)]
    parts += [part for y in wagons for part in _wagon(rng, y, dark)]
    axles = [0.5, 0.08, *(y + at for y in wagons for at in (-0.33, 0.33))]
    return parts + [part for y in axles for part in _wheels(0.28, y, r, tyre, hub)]


def rocket(rng: Rng) -> list[Part]:
    """Rockets with fins and portholes."""
    u, skin, second, trim = rng.uniform, paint(rng, "toy"), paint(rng, "toy"), paint(rng, "toy")
    h, r, base, nose, style = u(1.6, 2.4), u(0.28, 0.45), u(0.2, 0.35), u(0.6, 0.72), u()
    outline = curve([(0.65, 0), (0.95, 0.25), (1, 0.45), (0.85, nose), (0.45, 0.9), (0.02, 1)]) * (r, h)

    def band(p: Array) -> np.ndarray:
        turn, up = np.arctan2(p[:, 1], p[:, 0]) * 4 / np.pi, (p[:, 2] - base) / h
        if style < 0.35:
            return np.abs(up - 0.1) < 0.05
        return (up < 0.4) & ((np.floor(turn) + np.floor(up / 0.12)) % 2 == 0)

    cone = mark(lambda px, py, pz: pz > base + nose * h, second)
    body = spun(outline, Surface(skin, [cone, (band, trim)] if style < 0.6 else [cone]), (0, 0, base))
    t, reach = np.linspace(0, 1, 6), u(0.35, 0.6)
    y = 0.55 * r + t * (0.45 * r + reach)
    low, high = (base - 0.02) * (1 - t**1.5), base + u(0.5, 0.75) * (1 - t**1.3) + 0.12 * t
    parts = [body, spun([(0.7 * r, 0), (0.45 * r, 0.25)], DARK, (0, 0, base - 0.15))]
    parts += ring([plate(y, low, high, 0.07, second)], int(rng.integers(3, 5)), 90)
    for z in np.linspace(0.45, 0.62, int(rng.integers(1, 3))) * h:
        rim = np.interp(z, outline[:, 1], outline[:, 0])
        glass = pod((0.2, 0.12, 0.2), (0, rim + 0.01, base + z), (0.6, 0.8, 0.95, 0.4, 20.0))
        parts += ring([pod((0.3, 0.1, 0.3), (0, rim, base + z), trim), glass], 2)
    return parts


def _sails(rng: Rng, long: float, high: float) -> list[Part]:
    u, mast, y, low = rng.uniform, rng.uniform(1.4, 2.0), rng.uniform(0.05, 0.2) * long, high + rng.uniform(0.1, 0.2)
    white, second, rise = WHITE if u() < 0.6 else paint(rng, "toy"), paint(rng, "toy"), np.linspace(0, 1, 8)
    stripes = [mark(lambda px, py, pz: pz * 4 % 1 < 0.3, second)] if u() < 0.4 else []
    aft, ahead = np.linspace(y - 0.62 * long + 0.1, y, 8), np.linspace(y, long / 2, 8)
    boom = tube((0, aft[0], low), (0, y, low), 0.02, wood(rng))
    flag = plate([y, y - 0.2], [mast, mast - 0.02], [mast + 0.12, mast + 0.1], 0.015, second)
    main = plate(aft, low, low + (mast - low) * rise**0.8, 0.02, Surface(white, stripes))
    jib = plate(ahead, high + 0.3 * high * rise, high + 0.1 + (0.8 * mast - high) * (1 - rise), 0.02, white)
    pole = tube((0, y, high - 0.05), (0, y, mast + 0.05), 0.03, wood(rng))
    return [pole, boom, flag, main, *([jib] if u() < 0.75 else [])]


def boat(rng: Rng) -> list[Part]:
    """Sailing boats, and steamers with funnels."""
    u, color, second = rng.uniform, paint(rng, "toy"), paint(rng, "toy")
    long, wide, high, t = u(1.5, 2.0), u(0.5, 0.7), u(0.28, 0.4), np.linspace(-1, 1, 15)[:, None]
    half = wide / 2 * np.sqrt(np.clip(1 - np.abs(np.where(t > 0, t, 0.75 * t)) ** 2.2, 0.0004, 1))
    sheer, angles = high * (1 + 0.3 * np.clip(t, 0, 1) ** 2), np.linspace(np.pi, 2 * np.pi, 9)
    ring_x, ring_z = np.r_[np.cos(angles), 1, -1], np.r_[1 + np.sin(angles), 1, 1]
    hull = np.stack(np.broadcast_arrays(half * ring_x, t * long / 2, sheer * ring_z), -1)
    deck = np.stack(np.broadcast_arrays(0.9 * half * ring_x, 0.93 * t * long / 2, sheer - 0.01 + 0.02 * ring_z), -1)
    parts = [
        solid(hull, Surface(color, [mark(lambda px, py, pz: pz < 0.45 * high, second)])),
        solid(deck, wood(rng, 1)),
    ]
    if u() < 0.6:
        return parts + _sails(rng, long, high)
    panes = mark(lambda px, py, pz: (py * 6 % 1 < 0.5) & ((pz * 4 - 0.1) % 1 < 0.5) & (pz > high + 0.05), PANE)
    decks = int(rng.integers(1, 4))
    for level in range(decks):
        size = 0.62 * wide * 0.85**level, 0.5 * long * 0.75**level, 0.22
        parts.append(box(size, (0, -0.06 * long, high + 0.22 * level + 0.11), WHITE, [panes]))
    z, band = high + 0.22 * decks, mark(lambda px, py, pz: pz > high + 0.22 * decks + 0.22, DARK)
    for y in np.linspace(-0.12, 0.12, int(rng.integers(1, 4))) * long:
        parts.append(tube((0, y - 0.1, z - 0.05), (0, y - 0.12, z + 0.32), 0.085, Surface(second, [band])))
    return parts


def aeroplane(rng: Rng) -> list[Part]:
    """Propeller planes with one wing or two, and jets."""
    u, color, second = rng.uniform, paint(rng, "toy"), paint(rng, "toy")
    long, r, span, chord, z, jet = u(1.5, 1.9), u(0.17, 0.24), u(0.8, 1.1), u(0.3, 0.42), 0.42, u() < 0.35
    outline = curve([(0.25, -0.5), (0.7, -0.2), (1, 0.15), (0.9, 0.4), (0.5, 0.5)]) * (r, long)
    nose = mark(lambda px, py, pz: py > 0.36 * long, second)
    row = mark(lambda px, py, pz: (np.abs(pz - z - 0.3 * r) < 0.18 * r) & (py * 9 % 1 < 0.55) & (py**2 < 0.2), PANE)
    sweep, t = u(0.3, 0.6) if jet else u(-0.02, 0.08), np.linspace(0, 1, 6)

    def wing(y: float, height: float, span: float, chord: float, rise: float = 0.0) -> list[Part]:
        front = y - sweep * t * span
        back = front - chord * (1 - 0.4 * t) * np.sqrt(1 - 0.96 * t**4)
        half = plate(t * span, back, front, 0.06 * (1 - 0.5 * t), second)
        return mirrored([bent(half, lambda x, y, z: (y, z, x + height + rise * y))])

    tall = z + np.array([1, 1, 0.8, 0.45, 0.2]) * u(0.38, 0.5)
    parts = [spun(outline, Surface(color, [row if jet else nose]), (0, 0, z), axis=1)]
    parts += wing(0.2 * long, z - 0.4 * r, span, chord, 0.06)
    parts += wing(-0.36 * long, z + 0.15 * r, 0.4 * span, 0.6 * chord)
    parts.append(plate(np.linspace(-0.5, -0.3, 5) * long, z, tall, 0.04, second))
    if jet:
        engine = tube((0.4 * span, 0.05, z - 0.09), (0.4 * span, -0.28, z - 0.09), 0.085, WHITE)
        parts += [*mirrored([engine]), pod((0.26, 0.24, 0.12), (0, 0.4 * long, z + 0.5 * r), PANE)]
    else:
        if u() < 0.4:  # a biplane
            struts = [
                tube((x, 0.13 * long, z - 0.3 * r), (x, 0.13 * long, z + 2.1 * r), 0.015, DARK) for x in (0.3, 0.75)
            ]
            parts += wing(0.22 * long, z + 2.1 * r, span, chord) + mirrored(struts)
        blades = ring([box((0.07, 0.02, 0.3), (0, 0, 0.17), paint(rng, "wood"))], int(rng.integers(2, 5)), u(0, 90), 1)
        parts += moved([*blades, pod((0.13, 0.16, 0.13), (0, 0, 0), WHITE)], (0, 0.52 * long, z))
        parts.append(pod((1.2 * r, 0.4, 0.9 * r), (0, 0, z + 0.9 * r), PANE))
    legs = mirrored([tube((0.22, 0.2 * long, z - 0.08), (0.28, 0.24 * long, 0.1), 0.02, DARK)])
    legs.append(tube((0, -0.4 * long, z), (0, -0.46 * long, 0.17), 0.025, DARK))
    return parts + legs + _wheels(0.28, 0.24 * long, 0.1, DARK, WHITE)


VEHICLES: Theme = {each.__name__: each for each in (train, rocket, boat, aeroplane)}
