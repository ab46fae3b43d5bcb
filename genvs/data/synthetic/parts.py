"""Building blocks of a car: lofted surfaces, wheels, boxes, and the finishes and decals on them.

A part is a `trimesh.Trimesh` with one `Surface` per face. A mesh repeats vertices where its edges are sharp. Car
coordinates: x to the side, +y to the front, z up from the ground, metres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

Array = NDArray[np.floating]
Mask = Callable[[Array], NDArray[np.bool_]]


@dataclass(frozen=True)
class Finish:
    """How a point reflects light: colour `(r, g, b)` in [0, 1], specular strength, and Phong exponent."""

    color: tuple[float, ...]
    specular: float = 0.05
    shininess: float = 16.0


@dataclass(frozen=True)
class Decal:
    """A finish painted over a surface wherever `covers(points [N, 3]) -> bool [N]` says so, in the rest frame."""

    covers: Mask
    finish: Finish


@dataclass(frozen=True)
class Surface:
    """A base finish and the decals on it, later ones on top."""

    finish: Finish
    decals: Sequence[Decal] = ()


@dataclass(frozen=True)
class Part:
    """A mesh, the surface of each of its faces (`surface_of_face [F]` indexes `surfaces`), and its rest frame.

    rest: `[vertices, 3]`, where each vertex was before the part was bent and placed; decals are painted there.
    """

    mesh: trimesh.Trimesh
    surfaces: Sequence[Surface]
    surface_of_face: NDArray[np.integer]
    rest: Array

    @classmethod
    def plain(cls, mesh: trimesh.Trimesh, *surfaces: Surface) -> Part:
        """A part that is its own rest frame; with several surfaces, they take equal runs of its faces."""
        surface = np.arange(len(mesh.faces)) * len(surfaces) // len(mesh.faces)
        return cls(mesh, surfaces, surface, mesh.vertices)


def loft(rows: Array) -> tuple[trimesh.Trimesh, NDArray[np.integer], NDArray[np.integer]]:
    """A surface through cross-sections: rows `[S, K, 3]`, each a closed ring of K points.

    Rings run clockwise seen from the side that later rows lie on, so that faces point outwards. Repeat a row, or a
    point of all rings, for a sharp edge. Returns the mesh, and the row (0..S-2) and column (0..K-1) of each face.
    """
    num_rows, num_points = rows.shape[:2]
    index = np.arange(num_rows * num_points).reshape(num_rows, num_points)
    following = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1], following[:-1], following[1:], index[1:]
    faces = np.stack([np.stack([a, c, b], -1), np.stack([a, d, c], -1)], axis=2).reshape(-1, 3)
    face_row, face_column = (np.repeat(grid.reshape(-1), 2) for grid in np.indices(a.shape))
    vertices = rows.reshape(-1, 3)
    normals = face_normals(vertices[faces])
    solid = (normals**2).sum(-1) > 1e-14
    return trimesh.Trimesh(vertices, faces[solid], process=False), face_row[solid], face_column[solid]


def face_normals(corners: Array) -> Array:
    """Normals `[F, 3]` of triangles `[F, 3, 3]`, twice their area long."""
    p, q = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    return np.stack([p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]], axis=-1)


def vertex_normals(mesh: trimesh.Trimesh) -> Array:
    """Normals `[V, 3]`: the mean of the faces that share a vertex, weighted by area. Not of unit length."""
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    normals = np.repeat(face_normals(vertices[faces]), 3, axis=0)
    return np.stack([np.bincount(faces.reshape(-1), normals[:, k], len(vertices)) for k in range(3)], axis=-1)


_BOX = trimesh.creation.box()
_BOX.unmerge_vertices()  # sharp edges
_SPHERE = trimesh.creation.icosphere(subdivisions=1)
_TUBE = trimesh.creation.cylinder(1.0, 1.0, sections=8)


def box(size: Sequence[float], center: Sequence[float]) -> trimesh.Trimesh:
    """An axis-aligned box: size and centre `(x, y, z)`."""
    return trimesh.Trimesh(_BOX.vertices * size + center, _BOX.faces, process=False)


def ellipsoid(radii: Sequence[float], center: Sequence[float]) -> trimesh.Trimesh:
    """A smooth ellipsoid: half-axes and centre `(x, y, z)`."""
    return trimesh.Trimesh(_SPHERE.vertices * radii + center, _SPHERE.faces, process=False)


def tube(start: Sequence[float], end: Sequence[float], radius: float) -> trimesh.Trimesh:
    """A round bar between two points."""
    axis = np.subtract(end, start)
    length = np.sqrt((axis**2).sum())
    w = axis / length
    u = np.array([w[1], -w[0], 0.0]) if abs(w[2]) < 0.9 else np.array([0.0, w[2], -w[1]])
    u = u / np.sqrt((u**2).sum())
    frame = np.stack([u * radius, np.cross(w, u) * radius, axis])
    local = _TUBE.vertices
    vertices = sum(local[:, i : i + 1] * frame[i] for i in range(3)) + np.add(start, end) / 2
    return trimesh.Trimesh(vertices, _TUBE.faces, process=False)


def smooth_profile(at: Array | float, positions: Sequence[float], heights: Sequence[float], rounding: float) -> Array:
    """A polyline `heights(positions)` (ascending positions) at `at`, its corners rounded over +-`rounding`.

    It is the polyline's mean over that interval, from its integral, which is a parabola within each segment.
    """
    x, y = np.asarray(positions, dtype=float), np.asarray(heights, dtype=float)
    integral = np.r_[0.0, np.cumsum((y[1:] + y[:-1]) / 2 * np.diff(x))]
    slope = np.r_[0.0, np.diff(y) / np.diff(x), 0.0]

    def antiderivative(p: Array) -> Array:
        segment = np.searchsorted(x, p)  # 0 before the first position
        start = np.maximum(segment - 1, 0)
        beyond = p - x[start]
        return integral[start] + beyond * (y[start] + slope[segment] * beyond / 2)

    at = np.asarray(at, dtype=float)
    return (antiderivative(at + rounding) - antiderivative(at - rounding)) / (2 * rounding)


def wheel(radius: float, width: float, rim: float, dish: float) -> tuple[trimesh.Trimesh, NDArray[np.integer]]:
    """A wheel about the x axis, its outside towards +x, centred on the origin.

    radius: of the tyre; rim: of the rim; dish: how far the hub lies inside the rim's edge; metres. Returns the mesh
    and, for each face, 0 for tyre and 1 for rim.
    """
    half, shoulder = width / 2, min(0.4 * (radius - rim), 0.3 * width)
    profile = [  # (radius, x), sharp where repeated
        (0.0, half - dish), (0.35 * rim, half - dish), (0.92 * rim, half - dish), (0.92 * rim, half - dish),
        (rim, half), (rim, half), (radius - shoulder, half + 0.01), (radius, half - shoulder),
        (radius, shoulder - half), (radius - shoulder, -half), (radius - shoulder, -half), (0.0, -half),
    ]  # fmt: skip
    angles = np.arange(22) * (2 * np.pi / 22)
    r, x = np.array(profile).T[..., None]
    rows = np.stack(np.broadcast_arrays(x, r * np.cos(angles), r * np.sin(angles)), axis=-1)
    mesh, face_row, _ = loft(rows)
    return mesh, (face_row < 4).astype(np.int64)
