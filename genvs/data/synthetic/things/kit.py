"""What things are made of besides `solids`: materials, patterns, bent pipes, hollow bodies, and placed copies."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from genvs.data.synthetic.liveries import blotches
from genvs.data.synthetic.parts import Decal, Finish, Part, Surface
from genvs.data.synthetic.shading import Array, dot
from genvs.data.synthetic.solids import Paint, Point, Points, box, lathe, mirrored, pod, solid, tube

Rng = np.random.Generator
Theme = dict[str, Callable[[Rng], list[Part]]]  # families of objects by their names

# The greatest specular strength of a material, and its colours.
MATERIALS = {
    "wood": (0.12, "c8935a dcb078 a06a3e 7a4d2c 8f4a2c e2c79c b57d45 6b4a35"),
    "fabric": (0.0, "2f4a7c 7c2633 66733c 8d8f94 cdbb9b c8963a 2f7d7c a9532f 4b4d55 e6dcc8 c98a95 35563f 8a6fae"),
    "toy": (0.35, "d9302c f2c521 2b66c4 3f9e46 ee7d25 7d4aa8 e889b4 2fb4c1 f0efe9 96c83c"),
    "ceramic": (0.45, "f1efe8 eadfc6 2c4b96 9fc0a8 c2683c 34353c a8312d 3aa0a6 d0a13a 7e9cc4 d8b4a8 5c7148"),
    "glass": (0.5, "2d5a34 5b3517 27466e 9cc7b4 b9d3dd 3f7d4c 8a5a20 6e2431"),
    "metal": (0.5, "b4b7bb 8d9095 6a6d72 c9a24c b5703f d6d8da 3b3d42"),
    "steel": (0.5, "b4b7bb 9da1a6 c6c9cc 83878c"),
    "plaster": (0.0, "eee8da e8d5ab d9b27c e3b7a0 b8c9d6 d4d2cb c7d1b0 f1efec c98b63 a94f3a 9c6b4e"),
    "stone": (0.0, "b0a999 9a958c c8bda2 85827d beb4a6"),
    "roof": (0.0, "a8452d 8e3a28 54585f 6d4a35 3f4a57 4e7a63 c0613a 7b2f2b"),
    "leaf": (0.05, "3f7d34 2f6a3a 5c9440 7aa83f 88a860 2c5a2c 4f8a5a"),
    "clay": (0.05, "b9623c a8502f c98058 8e5138"),
    "petal": (0.0, "d8273c f2b71f e87fae f0ece4 8b4fb0 ec7424 d94f8e 5a73d0"),
    "skin": (0.0, "8b5a33 b98a58 5a4637 d9b384 8f9196 c9c3b8 e0a34f 3d3a3a e8e0d2"),
    "autumn": (0.0, "d98026 bf4026 edb3c7 e0bd33"),
    "pumpkin": (0.15, "e6751a e6751a e6751a ede0bf 597a33 e0a833 b3401f"),
    "fruit": (0.3, "cc2921 ed8c1f ebcc40 80b338 732952"),
    "drink": (0.3, "381f12 734d33 8c4d1a efece6"),
}
DARK, WHITE = (0.10, 0.10, 0.11, 0.1, 16.0), (0.92, 0.92, 0.90, 0.05, 16.0)
PANE, LIT = (0.20, 0.24, 0.30, 0.3, 24.0), (0.98, 0.93, 0.6, 0.3, 20.0)  # glass of windows, and with light behind it
GOLD = (0.85, 0.68, 0.25, 0.4, 20.0)
SOIL, SAND = (0.26, 0.18, 0.12, 0.0, 1.0), (0.88, 0.77, 0.52, 0.0, 1.0)


def paint(rng: Rng, *materials: str) -> Finish:
    """A colour of one of the materials (or one given as six hexadecimal digits), varied a little."""
    material = str(rng.choice(materials))
    gloss, words = MATERIALS.get(material, (0.05, material))
    word = str(rng.choice(words.split()))
    color = np.array([int(word[place : place + 2], 16) for place in (0, 2, 4)]) / 255
    color = np.clip(color * rng.uniform(0.85, 1.1) + rng.normal(0, 0.02, 3), 0.03, 0.94)
    return (*color.tolist(), gloss * rng.random(), rng.uniform(10, 40))


def darker(finish: Finish, by: float = 0.7) -> Finish:
    return (*(by * value for value in finish[:3]), *finish[3:])


def wood(rng: Rng, *along: int) -> Surface:
    """Wood whose grain runs along these axes (along z if none is given), or painted wood."""
    base = paint(rng, "wood") if rng.random() < 0.8 else paint(rng, "plaster")
    stretch, noise, dark = np.full(3, 1.0, np.float32), blotches(rng, rng.uniform(0.02, 0.05)), rng.uniform(0.7, 0.9)
    stretch[list(along or (2,))] = 0.05
    return Surface(base, [(lambda p: np.clip(0.5 + 0.5 * noise(p * stretch), 0, 1), darker(base, dark))])


def bent(part: Part, bend: Callable[..., tuple]) -> Part:
    """The part with its vertices moved to `bend(x, y, z)`, and what is painted on it."""
    return part._replace(vertices=np.stack(bend(*part.vertices.T), -1), rest=part.vertices)


def mark(covers: Callable[..., Array | NDArray[np.bool_]], finish: Finish) -> Decal:
    """A decal where `covers(px, py, pz)`, in the part's own coordinates."""
    return lambda p: covers(*p.T), finish


def within(low: Point, high: Point, finish: Finish) -> Decal:
    """A decal on all that lies in a box."""
    ends = np.array((low, high), np.float32)
    return lambda p: np.logical_and.reduce((p > ends[0]) & (p < ends[1]), axis=1), finish


def pattern(rng: Rng, cells: Callable[[Array], tuple[Array, Array]]) -> Callable[[Array], NDArray[np.bool_]]:
    """Stripes, bands, checks, dots or zigzags. cells: from points to two coordinates whose unit is one cell."""
    style, share = rng.integers(5), rng.uniform(0.25, 0.6)

    def covers(p: Array) -> NDArray[np.bool_]:
        a, b = cells(p)
        if style == 2:
            return (np.floor(a) + np.floor(b)) % 2 == 0
        if style == 3:
            return (a % 1 - 0.5) ** 2 + (b % 1 - 0.5) ** 2 < 0.25 * share
        if style == 4:
            return (b + np.abs(a % 1 - 0.5)) % 1 < share
        return (b if style else a) % 1 < share

    return covers


def cloth(rng: Rng, size: float) -> Surface:
    """Fabric, plain or with a pattern of cells of about this size."""
    base, cell = paint(rng, "fabric"), size * rng.uniform(0.7, 1.4)
    drawn = pattern(rng, lambda p: (p[:, 0] / cell, (p[:, 1] - p[:, 2]) / cell))
    second = paint(rng, "fabric") if rng.random() < 0.7 else darker(base)
    return Surface(base, [(drawn, second)] if rng.random() < 0.45 else [])


def glazed(rng: Rng, low: float, high: float, material: str = "ceramic") -> Surface:
    """A round body's surface about the z axis, plain or with a pattern on a belt between two heights, or dipped."""
    base, second = paint(rng, material), paint(rng, material)
    ends = np.sort(rng.uniform(low, high, 2)) if rng.random() < 0.5 else np.array([low, high])
    count, cell = int(rng.integers(4, 13)), (high - low) / rng.integers(3, 9)
    drawn = pattern(rng, lambda p: (np.arctan2(p[:, 1], p[:, 0]) * (count / (2 * np.pi)), p[:, 2] / cell))
    style = rng.random()

    def belt(p: Array) -> NDArray[np.bool_]:
        inside = (p[:, 2] > ends[0]) & (p[:, 2] < ends[1])
        return drawn(p) & inside if style < 0.5 else inside

    return Surface(base, [(belt, second)] if style < 0.65 else [])


def turned(parts: Sequence[Part], degrees: float, axis: int = 2) -> list[Part]:
    """The parts, turned about an axis through the origin; what is painted on them turns along."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3

    def turn(part: Part) -> Part:
        vertices = part.vertices.copy()
        a, b = part.vertices[:, first], part.vertices[:, second]
        vertices[:, first], vertices[:, second] = c * a - s * b, s * a + c * b
        return part._replace(vertices=vertices, rest=part.vertices if part.rest is None else part.rest)

    return [turn(part) for part in parts]


def moved(parts: Sequence[Part], by: Point, size: float | Point = 1.0) -> list[Part]:
    """The parts, scaled about the origin, then moved, with what is painted on them."""
    return [
        part._replace(vertices=part.vertices * size + by, rest=part.vertices if part.rest is None else part.rest)
        for part in parts
    ]


def ring(parts: Sequence[Part], count: int, start: float = 0.0, axis: int = 2) -> list[Part]:
    """Copies of the parts, evenly around an axis through the origin."""
    return [copy for step in range(count) for copy in turned(parts, start + step * 360 / count, axis)]


def ball(size: float, center: Point, finish: Paint) -> Part:
    return pod((size, size, size), center, finish)


def spun(
    profile: Points, finish: Paint, center: Point = (0, 0, 0), axis: int = 2, sections: int = 24, sharp: bool = False
) -> Part:
    """A body of revolution, as `lathe` makes it; its ends are closed."""
    return lathe(profile, center, finish, axis=axis, sections=sections, sharp=sharp)


def curve(points: Points, count: int = 4) -> Array:
    """A smooth line (Catmull and Rom's) through points `[N, D]`, `count` steps from each to the next."""
    p = np.array(points, dtype=float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    a, b, c, d = p[:-3], p[1:-2], p[2:-1], p[3:]
    t = (np.arange(count) / count)[:, None, None]
    line = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return np.concatenate([line.swapaxes(0, 1).reshape(-1, p.shape[1]), p[-2:-1]])


def pipe(path: Points, radius: float | Point, finish: Paint, flat: float = 1.0, sides: int = 8) -> Part:
    """A bent bar along a line `[N, 3]`; a radius may be given for each point.
    flat: its thickness in the plane that the line bends in, over its width across it; a leaf has a small one.
    """
    line = np.array(path, dtype=float)
    along = np.gradient(line, axis=0)
    along /= np.sqrt(dot(along, along))[:, None]
    across = np.cross(line[-1] - line[0], line[len(line) // 2] - line[0])
    if dot(across, across) < 1e-9:
        across = np.cross(along[0], (0.0, 0.0, 1.0) if abs(along[0, 2]) < 0.9 else (0.0, 1.0, 0.0))
    angles = np.arange(sides) * (2 * np.pi / sides)
    rings = []
    for center, tangent, width in zip(line, along, np.broadcast_to(radius, len(line)), strict=True):
        across = across - dot(across, tangent) * tangent
        across = across / np.sqrt(dot(across, across))
        c, s = width * np.cos(angles)[:, None], flat * width * np.sin(angles)[:, None]
        rings.append(center + c * across + s * np.cross(tangent, across))
    return solid(np.stack(rings), finish)


def hoop(radius: float, z: float, thick: float, finish: Paint, flat: float = 1.0) -> Part:
    """A level ring about the z axis; thick: half its thickness. flat: its height over its thickness."""
    angles = np.linspace(0, 2 * np.pi, 25)
    return pipe(np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles + z], -1), thick, finish, flat)


def disc(radius: float, low: float, high: float, finish: Paint, rounding: float = 0.0, center: Point = (0, 0)) -> Part:
    """A round slab about a vertical axis; rounding: the radius of its edges, 0 for sharp ones."""
    turn = np.linspace(0, np.pi / 2, 4 if rounding else 2)
    edge = np.stack([radius - rounding + rounding * np.sin(turn), low + rounding - rounding * np.cos(turn)], -1)
    above = edge[::-1] * (1, -1) + (0, low + high)
    return spun([*edge, *above], finish, (*center, 0))


def hollow(profile: Points, wall: float, center: Point, outside: Surface, inside: Finish | None = None) -> Part:
    """A vessel about the z axis through `center`. profile: `(radius, height)` of its outside, from the bottom up.
    inside: the finish of its inner side, if it has one of its own.
    """
    outer = curve(profile)
    inner = np.maximum(outer[::-1] - (wall, 0), (0.002, outer[0, 1] + wall))
    r, z = np.maximum(outer[:, 0] - 0.6 * wall, 0.002), np.maximum.accumulate(outer[:, 1])

    def within_walls(p: Array) -> np.ndarray:
        radius = np.sqrt((p[:, 0] - center[0]) ** 2 + (p[:, 1] - center[1]) ** 2)
        return (radius < np.interp(p[:, 2] - center[2], z, r)) & (p[:, 2] > center[2] + z[0] + 0.5 * wall)

    decals: list[Decal] = [*outside.decals, *([(within_walls, inside)] if inside else [])]
    return spun(np.concatenate([outer, inner]), Surface(outside.finish, decals), center)


def plate(along: Point, low: float | Point, high: float | Point, thick: float | Array, finish: Paint) -> Part:
    """A flat body in the plane x = 0, between two lines: for each y its lowest and its highest z, and its thickness."""
    y, low, high, half = (row[:, None] for row in np.broadcast_arrays(along, low, high, np.divide(thick, 2)))
    x = half * np.array([-1, 1, 1, 1, 1, -1, -1, -1])
    z = np.where(np.array([1, 1, 1, 0, 0, 0, 0, 1], dtype=bool), high, low)
    return solid(np.stack([x, y + 0 * x, z], -1), finish)


def waved(part: Part, count: int, depth: float) -> Part:
    """A round body about the z axis with ribs, such as a cactus's. depth: in radii."""
    out = 1 + depth * np.cos(count * np.arctan2(part.vertices[:, 1], part.vertices[:, 0]))
    return bent(part, lambda x, y, z: (x * out, y * out, z))


def legs(rng: Rng, x: float, y: float, top: float, finish: Paint, thick: float = 0.05) -> list[Part]:
    """Four legs at (+-x, +-y), from the ground to `top`: square, round, turned on a lathe, or splayed."""
    style, splay = rng.integers(4), rng.uniform(0, 0.15) * top
    leg = tube((x + splay, y + splay, 0), (x, y, top), 0.35 * thick, finish, 0.6 * thick)
    if style == 0:
        leg = box((thick, thick, top), (x, y, top / 2), finish)
    elif style == 1:
        waist = [(0.4, 0), (0.55, 0.08), (0.35, 0.14), (0.6, 0.3), (0.3, 0.55), (0.6, 0.75), (0.6, 1)]
        leg = spun(np.array(waist) * (thick, top), finish, (x, y, 0), sections=10)
    return ring(mirrored([leg]), 2)
