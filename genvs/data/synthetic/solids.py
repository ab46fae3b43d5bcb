"""Solids of the parts kit: boxes, bars, round and bent ones; each a Part with one surface, closed, facing outwards."""

from collections.abc import Sequence

import numpy as np

from genvs.data.synthetic.parts import Decal, Finish, Part, Surface, face_normals, loft
from genvs.data.synthetic.shading import Array, dot

Point = Sequence[float] | Array
Points = Sequence[Point] | Array
Paint = Finish | Surface  # one finish all over, or with decals


def solid(rows: Array, finish: Paint, decals: Sequence[Decal] = ()) -> Part:
    """A loft through closed rings `[S, K, 3]`, of either direction, its ends closed by sharp-edged flat fans."""
    ends = [np.broadcast_to(end.mean(1, keepdims=True), end.shape) for end in (rows[:1], rows[-1:])]
    rows = np.concatenate([ends[0], rows[:1], rows, rows[-1:], ends[1]])
    vertices, (faces, _, _) = rows.reshape(-1, 3), loft(rows)
    inside_out = dot(vertices[faces][:, 0] - vertices.mean(0), face_normals(vertices[faces])).sum() < 0
    surface = finish if isinstance(finish, Surface) else Surface(finish, decals)
    return Part(vertices, faces[:, ::-1] if inside_out else faces, [surface])


def _sharp(outline: Array) -> Array:
    """A ring `[2 K, ...]` with sharp edges at all K points."""
    return np.stack([outline, np.roll(outline, -1, axis=0)], axis=1).reshape(-1, outline.shape[-1])


def box(size: Point, center: Point, finish: Paint, decals: Sequence[Decal] = ()) -> Part:
    """An axis-aligned box: size and centre `(x, y, z)`."""
    ring = _sharp(np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]))
    rows = np.stack([np.c_[ring, np.full(8, height)] for height in (-0.5, 0.5)])
    return solid(rows * size + center, finish, decals)


def prism(outline: Sequence[Point], x: Point, finish: Paint) -> Part:
    """A flat shape `(y, z)`, star-shaped about its mean point, pulled from x[0] to x[1], with sharp edges."""
    ring = _sharp(np.array(outline))
    return solid(np.stack([np.c_[np.full(len(ring), side), ring] for side in x]), finish)


def pod(size: Point, center: Point, finish: Paint, power: float = 2.0, decals: Sequence[Decal] = ()) -> Part:
    """A superellipsoid: 2 is an ellipsoid, larger powers are rounded boxes. size: its extents `(x, y, z)`."""
    bend = 2 / power

    def curve(angles: Array) -> tuple[Array, Array]:
        c, s = np.cos(angles), np.sin(angles)
        return np.sign(c) * np.abs(c) ** bend, np.sign(s) * np.abs(s) ** bend

    x, z = curve(np.arange(16) * (np.pi / 8) + np.pi / 16)
    r, y = curve(np.linspace(-0.5, 0.5, 9) * (np.pi - 0.2))
    rows = np.stack(np.broadcast_arrays(r[:, None] * x, y[:, None], r[:, None] * z), axis=-1)
    return solid(rows * np.divide(size, 2) + center, finish, decals)


def lathe(
    profile: Points, center: Point, finish: Paint, axis: int = 2, sections: int = 16, sharp: bool = False
) -> Part:
    """A body of revolution about an axis through `center`: profile `(radius, height)` along it, from end to end.

    A repeated point of the profile is a sharp edge; sharp: with sharp edges along the axis too (few sections).
    """
    r, height = np.array(profile, dtype=float).T[..., None]
    angles = (np.arange(sections) + 0.5) * (2 * np.pi / sections)
    turn = np.c_[np.cos(angles), np.sin(angles)]
    c, s = (_sharp(turn) if sharp else turn).T
    rows = np.stack(np.broadcast_arrays(height, r * c, r * s), axis=-1)
    return solid(np.roll(rows, axis, axis=-1) + center, finish)


def tube(start: Point, end: Point, radius: float, finish: Paint, end_radius: float | None = None) -> Part:
    """A round bar between two points; end_radius: if it tapers."""
    axis: Array = np.subtract(end, start)
    w = axis / np.sqrt((axis**2).sum())
    u = np.array([w[1], -w[0], 0.0]) if abs(w[2]) < 0.9 else np.array([0.0, w[2], -w[1]])
    u = u / np.sqrt((u**2).sum())
    angles = np.arange(8)[:, None] * (np.pi / 4)
    ring = np.cos(angles) * u + np.sin(angles) * np.cross(w, u)
    radii = radius, radius if end_radius is None else end_radius
    return solid(np.stack([ring * r + place for r, place in zip(radii, (start, end), strict=True)]), finish)


def tubes(points: Sequence[Point], radius: float, finish: Paint, mirrored: bool = False) -> list[Part]:
    """Round bars along a polyline; mirrored: another one at -x."""
    parts = [tube(*ends, radius, finish) for ends in zip(points[:-1], points[1:], strict=True)]
    if mirrored:
        parts += tubes([(-x, y, z) for x, y, z in points], radius, finish)
    return parts


def sweep(path: Sequence[Point], x: Point, finish: Paint, crown: float = 0.05, thickness: float = 0.04) -> Part:
    """A bent sheet from x[0] to x[1] along a path `(y, z)`, its outside on the path's left: a wing over a wheel.

    crown: how far its edges lie below its middle. A path's height may differ by point; metres.
    """
    line = np.array(path, dtype=float)
    along = np.gradient(line, axis=0)
    left = np.stack([-along[:, 1], along[:, 0]], -1) / np.sqrt((along**2).sum(1, keepdims=True))
    across = np.linspace(-1, 1, 7)
    side = (x[0] + x[1]) / 2 + (x[1] - x[0]) / 2 * across
    depth = np.r_[-crown * across**4, -crown * across[::-1] ** 4 - thickness]
    rows = line[:, None] + left[:, None] * depth[:, None]
    ring = np.broadcast_to(np.r_[side, side[::-1]], rows.shape[:2])
    return solid(np.concatenate([ring[..., None], rows], axis=-1), finish)


def arc(center: Point, radius: float, start: float, end: float) -> list[tuple[float, float]]:
    """Nine points `(y, z)` on a circle, by angles in degrees from +y (ahead), counterclockwise seen from +x."""
    angles = np.radians(np.linspace(start, end, 9))
    return list(zip(center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles), strict=True))


def mirrored(parts: Sequence[Part]) -> list[Part]:
    """The parts and their mirror images at -x."""
    images = [part._replace(vertices=part.vertices * (-1, 1, 1), faces=part.faces[:, ::-1]) for part in parts]
    return [*parts, *images]
