"""Parts and models: meshes with finishes and decals on them.

A mesh repeats vertices where its edges are sharp. Car coordinates: x to the side, +y to the front, z up from the
ground, metres.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from genvs.data.synthetic.shading import STUDIO, Array, Castable, Light, at_hits

Finish = tuple[float, ...]  # how a point reflects light: red, green, blue in [0, 1], specular strength, Phong exponent
# A finish, or a hole (None), where `covers(points [N, 3]) -> [N]`: bool, or a float in [0, 1], how thick the paint is.
Decal = tuple[Callable[[Array], Array | NDArray[np.bool_]], Finish | None]


class Surface(NamedTuple):
    """A base finish and the decals on it, later ones on top."""

    finish: Finish
    decals: Sequence[Decal] = ()


class Part(NamedTuple):
    """A mesh of triangles. surface_of_face: for each face `[F]`, or for all, which of `surfaces` it has.

    rest: `[vertices, 3]`, where decals are painted: the vertices before the part was bent and placed, if it was.
    """

    vertices: Array
    faces: NDArray[np.integer]
    surfaces: Sequence[Surface]
    surface_of_face: NDArray[np.integer] | int = 0
    rest: Array | None = None


@dataclass(frozen=True)
class Model(Castable):
    """Parts, ready for ray casting. rest: `[F, 3, 3]` float32, of each face's corners. surface_of_face: `[F]`."""

    rest: NDArray[np.float32]
    surface_of_face: NDArray[np.integer]
    surfaces: Sequence[Surface]
    source: Light

    def light(self) -> Light:
        return self.source

    def finish_at(self, faces: NDArray[np.integer], u: Array, v: Array, spacing: Array) -> Array:
        """A surface's own finish, under those of the decals that cover it; with opacity if any decal cuts holes."""
        surface = self.surface_of_face[faces]
        holed = any(painted is None for _, decals in self.surfaces for _, painted in decals)
        bare = (0.0, 0.0, 0.0, 1.0) if holed else ()
        finishes = np.array([(*surface.finish, *bare) for surface in self.surfaces], dtype=np.float32)
        finish = finishes.T.take(surface, axis=1).T
        for index, (_, decals) in enumerate(self.surfaces):
            if decals:
                hits = np.flatnonzero(surface == index)
                rest = at_hits(self.rest, faces[hits], u[hits], v[hits])
                for covers, painted in decals:
                    cover = covers(rest)
                    if painted is None:
                        finish[hits[cover], 8] = 0
                    elif cover.dtype == bool:
                        finish[hits[cover], :5] = painted
                    else:
                        finish[hits, :5] += cover[:, None] * (np.array(painted, np.float32) - finish[hits, :5])
        return finish

    def opacity_at(self, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
        surface, opacity = self.surface_of_face[faces], np.ones_like(u)
        for index, (_, decals) in enumerate(self.surfaces):
            holes = [covers for covers, painted in decals if painted is None]
            if holes:
                hits = np.flatnonzero(surface == index)
                rest = at_hits(self.rest, faces[hits], u[hits], v[hits])
                for covers in holes:
                    opacity[hits[covers(rest)]] = 0
        return opacity


def assemble(parts: Sequence[Part], light: Light = STUDIO) -> Model:
    """One model of all parts, centred, with its bounding box's diagonal 1."""

    def of_corners(*values: Array) -> Array:
        return np.concatenate([value[part.faces] for value, part in zip(values, parts, strict=True)])

    corners = of_corners(*(part.vertices for part in parts))
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    corners = (corners - (low + high) / 2) / np.sqrt(((high - low) ** 2).sum())
    normals = of_corners(*(vertex_normals(part) for part in parts))
    rest = of_corners(*(part.vertices if part.rest is None else part.rest for part in parts))
    surfaces: list[Surface] = []
    surface_of_face = []
    for part in parts:
        surface_of_face.append(np.broadcast_to(part.surface_of_face, len(part.faces)) + len(surfaces))
        surfaces += part.surfaces
    corners, normals, rest = (array.astype(np.float32) for array in (corners, normals, rest))
    return Model(corners, normals, rest, np.concatenate(surface_of_face), surfaces, light)


def vertex_normals(part: Part) -> Array:
    """Normals `[vertices, 3]`: the mean of the faces that share a vertex, weighted by area. Not of unit length."""
    normals = np.repeat(face_normals(part.vertices[part.faces]), 3, axis=0)
    indices, count = part.faces.reshape(-1), len(part.vertices)
    return np.stack([np.bincount(indices, normals[:, axis], count) for axis in range(3)], axis=-1)


def face_normals(corners: Array) -> Array:
    """Normals `[F, 3]` of triangles `[F, 3, 3]`, twice their area long."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (ax, ay, az), (bx, by, bz) = a.T, b.T  # numpy's `cross` takes several times as long on small arrays
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def loft(rows: Array) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.integer]]:
    """A surface through cross-sections: rows `[S, K, 3]`, each a closed ring of K points.

    Rings run clockwise seen from the side that later rows lie on, so that faces point outwards. Repeat a row, or a
    point of all rings, for a sharp edge. Returns the faces, and the row (0..S-2) and column (0..K-1) of each.
    """
    index = np.arange(rows[..., 0].size).reshape(rows.shape[:2])
    following = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1], following[:-1], following[1:], index[1:]
    faces = np.stack([np.stack([a, c, b], -1), np.stack([a, d, c], -1)], axis=2).reshape(-1, 3)
    face_row, face_column = (np.repeat(grid.reshape(-1), 2) for grid in np.indices(a.shape))
    solid = (face_normals(rows.reshape(-1, 3)[faces]) ** 2).sum(-1) > 1e-14
    return faces[solid], face_row[solid], face_column[solid]


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
