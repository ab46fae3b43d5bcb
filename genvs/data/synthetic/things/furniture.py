"""Furniture: chairs, stools, tables, sofas, cabinets, shelves, beds, lamps and clocks. Metres; its front is at +y."""

import numpy as np

from genvs.data.synthetic.parts import Part, Surface
from genvs.data.synthetic.shading import Array
from genvs.data.synthetic.solids import Paint, Point, arc, box, mirrored, pod, prism, tube
from genvs.data.synthetic.things.kit import (
    DARK,
    GOLD,
    LIT,
    WHITE,
    Rng,
    Theme,
    ball,
    cloth,
    curve,
    darker,
    disc,
    glazed,
    hollow,
    legs,
    mark,
    moved,
    paint,
    pipe,
    ring,
    spun,
    turned,
    wood,
)


def _ornament(rng: Rng, at: Point, high: float, r: float) -> Part:
    """A vase on a table or a shelf."""
    side = [(0.6 * r, 0), (r, 0.4 * high), (0.45 * r, 0.85 * high), (0.55 * r, high)]
    return hollow(side, 0.01, at, glazed(rng, at[2], at[2] + high), DARK)


def _back(rng: Rng, w: float, y: float, low: float, high: float, frame: Paint, seat: Surface) -> list[Part]:
    """A chair's back: upright or level bars between two posts, a panel, or a cushion."""
    style, lean, bars, tall = rng.integers(4), rng.uniform(0.02, 0.1), rng.integers(3, 7), high - low
    parts = mirrored([tube((w / 2 - 0.025, y, low - 0.05), (w / 2 - 0.025, y - lean, high), 0.022, frame)])
    parts.append(box((w, 0.03, 0.08), (0, y - lean, high - 0.02), frame))
    if style == 0:
        places = np.linspace(-w / 2, w / 2, bars + 2)[1:-1]
        return parts + [tube((x, y, low), (x, y - lean, high), 0.011, frame) for x in places]
    if style == 1:
        steps = np.linspace(0.35, 0.8, bars - 2)
        return parts + [box((w, 0.02, 0.05), (0, y - t * lean, low + t * tall), frame) for t in steps]
    if style == 2:
        return [*parts, box((w - 0.05, 0.025, 0.7 * tall), (0, y - 0.6 * lean, low + 0.6 * tall), frame)]
    return [pod((w, 0.09, tall), (0, y, (low + high) / 2), seat, 5.0)]


def _office_chair(rng: Rng, w: float, d: float, h: float, high: float, seat: Surface) -> list[Part]:
    metal, x, y = paint(rng, "metal"), w / 2, -d / 2
    foot = [tube((0, 0, 0.09), (0, 0.3, 0.05), 0.03, metal, 0.02), ball(0.06, (0, 0.3, 0.03), DARK)]
    spine = pipe([(0, 0, h - 0.03), (0, y - 0.06, h), (0, y - 0.05, h + 0.25)], 0.025, metal)
    arm = curve([(x - 0.05, 0, h), (x + 0.06, 0, h + 0.05), (x + 0.06, 0, h + 0.2)])
    arms = mirrored([pipe(arm, 0.015, metal), box((0.07, 0.26, 0.03), (x + 0.06, 0, h + 0.21), DARK)])
    parts = [*ring(foot, 5), tube((0, 0, 0.07), (0, 0, h), 0.028, metal), spine, pod((w, d, 0.1), (0, 0, h), seat, 4.0)]
    parts.append(pod((w, 0.08, high - h - 0.05), (0, y - 0.02, (high + h) / 2 + 0.03), seat, 4.0))
    return parts + arms if rng.random() < 0.6 else parts


def chair(rng: Rng) -> list[Part]:
    """Kitchen chairs, on some arms, and office chairs on castors."""
    u, frame, seat = rng.uniform, wood(rng), cloth(rng, 0.06)
    w, d, h, high = u((0.38, 0.38, 0.42, 0.78), (0.52, 0.5, 0.5, 1.15))
    if u() < 0.25:
        return _office_chair(rng, w, d, h, high, seat)
    x, y = w / 2 - 0.03, d / 2 - 0.03
    parts = [box((w, d, 0.04), (0, 0, h), frame) if u() < 0.5 else pod((w, d, 0.08), (0, 0, h), seat, 5.0)]
    parts += legs(rng, x, y, h - 0.01, frame, u(0.035, 0.055)) + _back(rng, w, -y, h, high, frame, seat)
    rest = [box((0.05, d, 0.03), (w / 2, 0, h + 0.2), frame), tube((x, y, h - 0.02), (w / 2, y, h + 0.2), 0.018, frame)]
    bar = [tube((x, -y, 0.4 * h), (x, y, 0.4 * h), 0.013, frame)]
    return parts + mirrored((rest if u() < 0.3 else []) + (bar if u() < 0.4 else []))


def stool(rng: Rng) -> list[Part]:
    """Round stools: three or four splayed legs with a ring or bars, or one foot."""
    u, frame = rng.uniform, wood(rng) if rng.random() < 0.6 else paint(rng, "metal")
    h, r, soft, count = *u((0.42, 0.15), (0.8, 0.21)), u() < 0.5, int(rng.integers(3, 5))
    thick, out, t = u(0.04, 0.09) if soft else 0.035, r * u(1.05, 1.4), u(0.3, 0.5)
    seat = disc(r, h - thick, h + thick, cloth(rng, 0.06) if soft else frame, 0.6 * thick)
    if u() < 0.3:
        return [seat, spun([(r, 0), (r, 0.02), (0.05, 0.05), (0.025, 0.08), (0.025, h)], frame)]
    at, angles = out + t * (0.6 * r - out), np.linspace(0, 2 * np.pi, 25 if soft else count + 1)
    corners = np.stack([at * np.cos(angles), at * np.sin(angles), 0 * angles + t * h], -1)
    bars = [tube(*ends, 0.011, frame) for ends in zip(corners[:-1], corners[1:], strict=True)]
    return [seat, *ring([tube((out, 0, 0), (0.6 * r, 0, h), 0.016, frame, 0.02)], count), *bars]


def table(rng: Rng) -> list[Part]:
    """Long, round and low tables, on legs, on a foot, or on trestles; on some stands a vase."""
    u, top, style = rng.uniform, wood(rng, 0), rng.random()
    frame = wood(rng) if u() < 0.4 else top if u() < 0.7 else paint(rng, "metal")
    h, w, d, t, r = u(0.38, 0.5) if u() < 0.4 else u(0.7, 0.78), *u((0.8, 0.55, 0.025, 0.35), (1.7, 0.9, 0.06, 0.65))
    parts = [box((w, d, t), (0, 0, h - t / 2), top)]
    if style < 0.35:  # round, on one foot
        arm = curve([(0, 0, 0.3 * h), (0.3 * r, 0, 0.2 * h), (0.75 * r, 0, 0.02)])
        post = curve([(0.04, 0.1 * h), (0.07, 0.3 * h), (0.035, 0.6 * h), (0.06, h - t)])
        parts = [disc(r, h - t, h, top), spun(post, frame), *ring([pipe(arm, 0.028, frame)], int(rng.integers(3, 6)))]
    elif style < 0.8:
        parts += legs(rng, w / 2 - 0.06, d / 2 - 0.06, h - t, frame, u(0.05, 0.09))
        parts.append(box((w - 0.1, d - 0.1, 0.09), (0, 0, h - t - 0.045), frame))
        if u() < 0.3:
            parts.append(box((w - 0.12, d - 0.12, 0.025), (0, 0, 0.3 * h), frame))
    else:
        x, y = w / 2 - 0.18, 0.42 * d
        parts += mirrored([tube((x, side * y, 0), (x, -side * y, h - t), 0.03, frame) for side in (1, -1)])
        parts.append(tube((-x, 0, h / 2), (x, 0, h / 2), 0.025, frame))
    return [*parts, _ornament(rng, (u(-0.2, 0.2), u(-0.1, 0.1), h), u(0.15, 0.3), 0.08)] if u() < 0.35 else parts


def sofa(rng: Rng) -> list[Part]:
    """Armchairs and sofas of up to three seats, with cushions."""
    u, seat, seats, soft = rng.uniform, cloth(rng, 0.1), int(rng.integers(1, 4)), rng.choice([3.0, 5.0, 8.0])
    w, d, h, high, arm, foot = u((0.52, 0.75, 0.38, 0.72, 0.1, 0.04), (0.66, 0.9, 0.44, 1.0, 0.2, 0.14))
    w *= seats
    trim, back, wide, rest = cloth(rng, 0.1) if u() < 0.3 else seat, -d / 2, w + 2 * arm, h + u(0.12, 0.24)
    parts = [pod((wide, d, h - foot - 0.06), (0, 0, (h + foot - 0.06) / 2), seat, 9.0)]
    parts.append(pod((wide, 0.22, high - foot), (0, 0.11 + back, (high + foot) / 2), seat, soft + 2))
    parts += mirrored([pod((arm + 0.02, d, rest - foot), ((w + arm) / 2, 0, (rest + foot) / 2), seat, soft)])
    for x in (np.arange(seats) - (seats - 1) / 2) * (w / seats):
        parts.append(pod((w / seats - 0.01, d - 0.2, 0.18), (x, 0.1, h), trim, 6.0))
        parts.append(pod((w / seats - 0.01, 0.2, high - h), (x, 0.27 + back, (h + high) / 2 + 0.02), trim, 4.0))
    for _ in range(rng.integers(3)):
        pillow = turned([pod((0.38, 0.14, 0.36), (0, 0, 0), cloth(rng, 0.07), 3.0)], -15, 0)
        parts += moved(pillow, (u(-0.4, 0.4) * w, 0.4 + back, h + 0.24))
    return parts + legs(rng, wide / 2 - 0.06, d / 2 - 0.07, foot + 0.04, wood(rng), 0.06)


def cabinet(rng: Rng) -> list[Part]:
    """Chests of drawers, sideboards and wardrobes."""
    u, body, knob, tall = rng.uniform, wood(rng, 0, 1), paint(rng, "metal"), rng.random() < 0.35
    w, d, h = u((0.8, 0.45, 1.5), (1.2, 0.6, 1.9)) if tall else u((0.5, 0.38, 0.6), (1.5, 0.5, 1.1))
    columns, rows, foot = int(np.ceil(w / 0.6)), 1 if tall else int(rng.integers(1, 5)), u(0.04, 0.2)
    front, round_knobs, drawers = wood(rng) if u() < 0.4 else body, u() < 0.5, rows > 1
    parts = [box((w, d, h), (0, 0, foot + h / 2), body), box((w + 0.06, d + 0.05, 0.035), (0, 0, foot + h), body)]
    levels = [0.0, 0.26, 1.0] if tall and u() < 0.4 else np.linspace(0, 1, rows + 1)
    heights = foot + 0.04 + np.multiply(levels, h - 0.08)
    size = (0.04, 0.05, 0.04) if round_knobs else (0.14, 0.04, 0.025) if drawers else (0.025, 0.04, 0.16)
    for low, high in zip(heights[:-1], heights[1:], strict=True):
        for column in range(columns):
            x, wide, z = (column - (columns - 1) / 2) * w / columns, w / columns - 0.05, (low + high) / 2
            grip = 0.0 if drawers else (0.4 if column % 2 == 0 else -0.4) * wide
            parts.append(box((wide, 0.03, high - low - 0.03), (x, d / 2 + 0.005, z), front))
            parts.append(pod(size, (x + grip, d / 2 + 0.035, z), knob))
    return parts + legs(rng, w / 2 - 0.05, d / 2 - 0.05, foot, body, 0.06)


def shelf(rng: Rng) -> list[Part]:
    """Bookcases with books and vases."""
    u, board, levels = rng.uniform, wood(rng, 0, 1), int(rng.integers(2, 6))
    w, d, step = u((0.5, 0.24, 0.3), (1.0, 0.34, 0.38))
    h, spines = levels * step + 0.1, [paint(rng, "fabric") for _ in range(6)]
    parts = mirrored([box((0.03, d, h), (w / 2, 0, h / 2), board)])
    parts += [box((w, d, 0.03), (0, 0, 0.06 + level * step), board) for level in range(levels + 1)]
    if u() < 0.6:
        parts.append(box((w, 0.02, h - 0.08), (0, 0.01 - d / 2, h / 2), darker(board.finish, 0.85)))
    for level in range(levels):
        z, x, stop = 0.075 + level * step, 0.02 - w / 2, u(-0.2, 0.5) * w
        while x < stop - 0.07:
            thick, tall = u(0.03, 0.075), u(0.55, 0.88) * step
            parts.append(box((thick, 0.7 * d, tall), (x + thick / 2, -0.1 * d, z + tall / 2), spines[rng.integers(6)]))
            x += thick
        if stop < 0.2 * w:
            parts.append(_ornament(rng, (u(0.3, 0.36) * w, 0, z), u(0.4, 0.7) * step, u(0.05, 0.08)))
    return parts


def bed(rng: Rng) -> list[Part]:
    """Single and double beds."""
    u, frame, cover, style = rng.uniform, wood(rng, 0, 1), cloth(rng, 0.14), rng.random()
    w, long, h, high, fold = u((0.85, 1.9, 0.3, 0.75, 0.15), (1.7, 2.1, 0.42, 1.2, 0.4))
    y, double, linen = -long / 2, w > 1.25, WHITE if u() < 0.6 else cloth(rng, 0.08)
    mattress = pod((w - 0.04, long - 0.04, 0.26), (0, 0, h + 0.08), WHITE, 8.0)
    parts = [box((w, long, 0.14), (0, 0, h - 0.1), frame), mattress]
    parts.append(pod((w + 0.06, long * (1 - fold), 0.32), (0, long * fold / 2 + 0.02, h + 0.07), cover, 8.0))
    pillow = pod((0.62 if double else 0.7 * w, 0.36, 0.16), (0.24 * w * double, y + 0.26, h + 0.25), linen, 3.0)
    parts += mirrored([pillow]) if double else [pillow]
    if style < 0.25:
        half, top = w / 2, high - 0.1
        arch = [(-half, 0), (half, 0), (half, top), (0.5 * half, high), (-0.5 * half, high), (-half, top)]
        parts += moved(turned([prism(arch, (-0.03, 0.03), frame)], 90), (0, y, 0))
    elif style < 0.5:
        parts.append(box((w, 0.06, high), (0, y, high / 2), frame))
    else:
        rails = np.linspace(-w / 2, w / 2, int(rng.integers(6, 11)))
        parts += [tube((x, y, h - 0.1), (x, y, high), 0.016, frame) for x in rails]
        parts.append(tube((-w / 2, y, high), (w / 2, y, high), 0.03, frame))
    if u() < 0.4:
        parts.append(box((w, 0.05, h + 0.3), (0, long / 2, (h + 0.3) / 2), frame))
    return parts + legs(rng, w / 2 - 0.05, long / 2 - 0.05, h - 0.05, frame, 0.08)


def _desk_lamp(rng: Rng, metal: Paint) -> list[Part]:
    """With a jointed arm."""
    u, elbow, tip = rng.uniform, (0, rng.uniform(-0.25, -0.1), 0.36), (0, rng.uniform(0.05, 0.2), 0.58)
    cone = spun(curve([(0.02, 0.1), (0.04, 0.06), (0.06, 0), (0.11, -0.08)]), metal)
    head = moved(turned([cone, ball(0.09, (0, 0, -0.05), LIT)], u(15, 50), 0), tip)
    arm = [tube((0, 0, 0.03), elbow, 0.014, metal), tube(elbow, tip, 0.014, metal)]
    joints = [ball(0.05, at, DARK) for at in (elbow, tip)]
    return [spun([(0.12, 0), (0.12, 0.02), (0.02, 0.045)], metal), *arm, *joints, *head]


def lamp(rng: Rng) -> list[Part]:
    """Standing lamps, table lamps and desk lamps."""
    u, metal, standing, style = rng.uniform, paint(rng, "metal", "toy"), rng.random() < 0.5, rng.random()
    if u() < 0.35:
        return _desk_lamp(rng, metal)
    h, r = u((1.1, 0.16), (1.5, 0.26)) if standing else u((0.3, 0.13), (0.5, 0.2))
    tall, taper, foot = r * u(1.0, 1.7), r * u(0.45, 1.0), u(0.1, 0.16)
    top, band = h + 0.5 * tall, glazed(rng, h, h + tall, "fabric")
    light = (*(np.array(band.finish[:3]) * 0.4 + (0.55, 0.52, 0.43)).tolist(), 0.0, 1.0)
    shade = [(taper - 0.01, h + tall), (taper, h + tall), (r, h), (r - 0.01, h)]
    parts = [spun(shade, Surface(light, band.decals))]
    if standing and style < 0.4:
        stand = ring([tube((0.25, 0, 0), (0, 0, h - 0.1), 0.014, wood(rng))], 3)
        return [*parts, *stand, tube((0, 0, h - 0.2), (0, 0, top), 0.018, metal)]
    if not standing and style < 0.7:
        belly = curve([(0.5 * foot, 0), (foot, u(0.1, 0.5) * h), (0.03, 0.85 * h), (0.02, top)])
        return [*parts, spun(belly, glazed(rng, 0, h))]
    return [*parts, spun([(foot, 0), (foot, 0.015), (0.03, 0.04), (0.016, 0.06), (0.016, top)], metal)]


def clock(rng: Rng) -> list[Part]:
    """Grandfather clocks and alarm clocks."""
    u, case, color, metal = rng.uniform, wood(rng), paint(rng, "toy"), paint(rng, "metal")

    def face(r: float, y: float, z: float) -> list[Part]:
        def ticks(px: Array, py: Array, pz: Array) -> np.ndarray:
            radius = np.sqrt(px**2 + (pz - z) ** 2) / r
            return (np.abs(radius - 0.84) < 0.1) & ((np.arctan2(pz - z, px) * (6 / np.pi) + 0.2) % 1 < 0.4)

        dial = spun([(r, -0.02), (r, 0.01)], Surface(WHITE, [mark(ticks, DARK)]), (0, y, z), axis=1)
        hands = [box((0.1 * r, 0.01, long * r), (0, y + 0.015, long * r / 2), DARK) for long in (0.5, 0.75)]
        return [dial, *(part for hand in hands for part in moved(turned([hand], u(0, 360), 1), (0, 0, z)))]

    if u() < 0.5:
        body = spun([(0.3, -0.1), (0.33, 0), (0.3, 0.1), (0.27, 0.1), (0.27, 0.06)], color, (0, 0, 0.42), axis=1)
        bell = [pod((0.2, 0.18, 0.16), (0.15, 0, 0.76), metal), tube((0.2, 0, 0.2), (0.27, 0, 0), 0.03, DARK)]
        return [body, *mirrored(bell), *face(0.26, 0.09, 0.42), tube((0, 0, 0.7), (0, 0, 0.86), 0.02, DARK)]
    w, h = u((0.3, 1.5), (0.4, 1.9))
    boxes = ((w, 0.24, 0.4), 0.2), ((0.8 * w, 0.2, h - 0.8), h / 2), ((w, 0.24, 0.45), h - 0.25)
    top = [(-w / 2 - 0.03, 0), (w / 2 + 0.03, 0), *arc((0, 0.04), w / 2, 20, 160)]
    window, bob = box((0.5 * w, 0.02, h - 1.0), (0, 0.105, h / 2), DARK), pod((0.14, 0.03, 0.14), (0, 0.12, 0.56), GOLD)
    parts = [*(box(size, (0, 0, z), case) for size, z in boxes), window, bob, *face(0.42 * w, 0.12, h - 0.24)]
    parts.append(tube((0, 0.12, 0.6), (0, 0.12, h - 0.55), 0.008, GOLD))
    return parts + moved(turned([prism(top, (-0.12, 0.12), case)], 90), (0, 0, h - 0.03))


FURNITURE: Theme = {each.__name__: each for each in (chair, stool, table, sofa, cabinet, shelf, bed, lamp, clock)}
