"""Ray casting (trimesh's meshes in embree, through embreex) and shading: a model and its cameras to images and depth.

Everything here is elementwise numpy on arrays whose shapes depend on the scene alone: no BLAS, no threads, so that the
same scene gives the same bytes on every run.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from genvs.data.synthetic.parts import Array, Finish, Mask, Part, vertex_normals

SAMPLES = 3  # a pixel is the mean of SAMPLES x SAMPLES rays; odd, so that one of them is the pixel's centre
MAX_RAYS = 400_000  # rays cast at once: bounds memory
AMBIENT_UP, AMBIENT_DOWN = 0.48, 0.30  # light from the sky and from the ground
LIGHTS = (  # direction towards the light (world), its diffuse strength, its strength in highlights
    ((0.20, 0.25, 0.95), 0.46, 1.0),
    ((-0.80, 0.40, 0.30), 0.24, 0.5),
    ((0.60, -0.75, 0.25), 0.22, 0.4),
    ((-0.25, 0.15, -0.95), 0.24, 0.0),
)


@dataclass(frozen=True)
class Castable(abc.ABC):
    """A model that rays can hit, in world coordinates, its bounding box centred and of diagonal 1.

    corners, normals: `[F, 3, 3]` float32, of each face's corners: the world position, and the normal (any length).
    """

    corners: NDArray[np.float32]
    normals: NDArray[np.float32]

    @property
    def bounds(self) -> NDArray[np.float32]:
        """The lowest and the highest corner of the bounding box, `[2, 3]`."""
        points = self.corners.reshape(-1, 3)
        return np.stack([points.min(0), points.max(0)])

    @abc.abstractmethod
    def finish_at(self, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
        """The finish `[N, 5]` (r, g, b, specular, shininess) of hits, by their faces and places in them `[N]`."""

    def normals_at(self, faces: NDArray[np.integer], u: Array, v: Array, directions: Array) -> Array:
        """The normals `[N, 3]` (any length) of hits by rays of these directions `[N, 3]`."""
        return at_hits(self.normals, faces, u, v)


@dataclass(frozen=True)
class Model(Castable):
    """A car, ready for ray casting.

    rest: `[F, 3, 3]` float32, where decals are painted, of each face's corners. surface_of_face: `[F]`. finishes:
    `[M, 5]` (r, g, b, specular, shininess). base_finish: per surface. decals: per surface, (covers, finish index),
    later ones on top.
    """

    rest: NDArray[np.float32]
    surface_of_face: NDArray[np.integer]
    base_finish: NDArray[np.integer]
    finishes: NDArray[np.float32]
    decals: list[list[tuple[Mask, int]]]

    def finish_at(self, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
        """A surface's own finish, or that of the last decal that covers it."""
        surface = self.surface_of_face[faces]
        finish = self.base_finish[surface]
        for index, decals in enumerate(self.decals):
            if decals:
                hits = np.flatnonzero(surface == index)
                rest = at_hits(self.rest, faces[hits], u[hits], v[hits])
                for covers, number in decals:
                    finish[hits[covers(rest)]] = number
        return self.finishes[finish]


def assemble(parts: Sequence[Part]) -> Model:
    """One model of all parts, centred, with its bounding box's diagonal 1."""
    faces = [np.array(p.mesh.faces) for p in parts]  # plain arrays: trimesh's own track every access
    corners = np.concatenate([np.array(p.mesh.vertices)[f] for p, f in zip(parts, faces, strict=True)])
    normals = np.concatenate([vertex_normals(p.mesh)[f] for p, f in zip(parts, faces, strict=True)])
    rest = np.concatenate([np.array(p.rest)[f] for p, f in zip(parts, faces, strict=True)])
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    corners = (corners - (low + high) / 2) / np.sqrt(((high - low) ** 2).sum())
    finishes: list[Finish] = []
    base: list[int] = []
    decals, surface_of_face = [], []
    for p in parts:
        surface_of_face.append(p.surface_of_face + len(base))
        for surface in p.surfaces:
            base.append(len(finishes))
            finishes.append(surface.finish)
            decals.append([(decal.covers, len(finishes) + i) for i, decal in enumerate(surface.decals)])
            finishes.extend(decal.finish for decal in surface.decals)
    return Model(
        corners=corners.astype(np.float32),
        normals=normals.astype(np.float32),
        rest=rest.astype(np.float32),
        surface_of_face=np.concatenate(surface_of_face),
        base_finish=np.array(base),
        finishes=np.array([(*f.color, f.specular, f.shininess) for f in finishes], dtype=np.float32),
        decals=decals,
    )


def _dot(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _covering_pixels(bounds: Array, c2w: Array, focal: float, resolution: int) -> NDArray[np.integer]:
    """The pixel rectangle (top, bottom, left, right; half open) that holds the bounding box in each view: `[V, 4]`."""
    corners = np.stack(np.meshgrid(*bounds.T.astype(np.float64), indexing="ij"), -1).reshape(-1, 3)
    relative = corners - c2w[:, None, :3, 3]
    x, y, z = (_dot(relative, c2w[:, None, :3, axis]) for axis in range(3))
    column, row = focal * x / z + resolution / 2, focal * y / z + resolution / 2
    edges = np.stack([row.min(1), row.max(1) + 1, column.min(1), column.max(1) + 1], axis=-1)
    return np.clip(np.floor(edges), 0, resolution).astype(int)


def _rays(c2w: Array, rectangle: NDArray[np.integer], focal: float, resolution: int) -> Array:
    """Ray directions `[h, w, SAMPLES**2, 3]` (camera z 1, world axes) through the samples of a pixel rectangle."""
    top, bottom, left, right = rectangle
    inside = (np.arange(SAMPLES) + 0.5) / SAMPLES
    y = (np.arange(top, bottom)[:, None] + inside - resolution / 2) / focal
    x = (np.arange(left, right)[:, None] + inside - resolution / 2) / focal
    x, y = x[None, :, None, :, None], y[:, None, :, None, None]
    directions = x * c2w[:3, 0] + y * c2w[:3, 1] + c2w[:3, 2]
    return directions.astype(np.float32).reshape(bottom - top, right - left, SAMPLES**2, 3)


def at_hits(corner_values: Array, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
    """Values at corners `[F, 3, C]`, interpolated to hits: `[N, C]`."""
    at = corner_values[faces]
    return at[:, 0] * (1 - u - v)[:, None] + at[:, 1] * u[:, None] + at[:, 2] * v[:, None]


def _shade(model: Castable, faces: NDArray[np.integer], u: Array, v: Array, height: Array, directions: Array) -> Array:
    """Colours `[N, 3]` of hits: hemisphere ambient, diffuse and Phong highlights; no shadows.

    height: above the lowest point of the model, world units; lower points get less light from the sky.
    """
    finish = model.finish_at(faces, u, v)
    normal = model.normals_at(faces, u, v, directions)
    normal /= np.sqrt(_dot(normal, normal))[:, None] + 1e-20
    view = directions / np.sqrt(_dot(directions, directions))[:, None]
    reflected = view - 2 * _dot(normal, view)[:, None] * normal
    light = AMBIENT_DOWN + (AMBIENT_UP - AMBIENT_DOWN) * (normal[:, 2] + 1) / 2
    light *= 0.7 + 0.3 * np.minimum(height / 0.14, 1)
    highlight = np.zeros_like(light)
    for direction, diffuse, strength in LIGHTS:
        towards = np.array(direction, dtype=np.float32)
        towards /= np.sqrt(_dot(towards, towards))
        light += diffuse * np.maximum(_dot(normal, towards), 0)
        if strength:
            highlight += strength * np.maximum(_dot(reflected, towards), 0) ** finish[:, 4]
    return np.clip(finish[:, :3] * light[:, None] + (finish[:, 3] * highlight)[:, None], 0, 1)


def render(model: Castable, c2w: Array, focal: float, resolution: int) -> Iterator[tuple[NDArray[np.uint8], Array]]:
    """Yield, per camera, the image `[R, R, 3]` (uint8, white background) and the depth `[R, R]` (camera z, 0 if none).

    c2w: `[V, 4, 4]`, OpenCV axes; focal: pixels; the principal point is the image's centre.
    """
    scene = EmbreeScene()
    TriangleMesh(scene, model.corners)
    rectangles = _covering_pixels(model.bounds, c2w, focal, resolution)
    start = 0
    while start < len(c2w):
        stop = start
        rays: list[Array] = []
        while stop < len(c2w) and (not rays or sum(r.size for r in rays) < 3 * MAX_RAYS):
            rays.append(_rays(c2w[stop], rectangles[stop], focal, resolution))
            stop += 1
        centers = np.repeat(c2w[start:stop, :3, 3].astype(np.float32), [r.size // 3 for r in rays], axis=0)
        colors, depths = _cast(scene, model, centers, np.concatenate([r.reshape(-1, 3) for r in rays]))
        end = 0
        for top, bottom, left, right in rectangles[start:stop]:
            begin, end = end, end + (bottom - top) * (right - left)
            image = np.full((resolution, resolution, 3), 255, dtype=np.uint8)
            depth = np.zeros((resolution, resolution), dtype=np.float32)
            image[top:bottom, left:right] = colors[begin:end].reshape(bottom - top, right - left, 3)
            depth[top:bottom, left:right] = depths[begin:end].reshape(bottom - top, right - left)
            yield image, depth
        start = stop


def _cast(scene: EmbreeScene, model: Castable, origins: Array, directions: Array) -> tuple[NDArray[np.uint8], Array]:
    """Cast rays `[P * SAMPLES**2, 3]`, those of a pixel in a row: colours `[P, 3]` and depths at the centres `[P]`."""
    hit = scene.run(origins, directions, query="INTERSECT", output=True)
    rays = np.flatnonzero(hit["primID"] >= 0)
    faces, u, v, depth = (hit[name][rays] for name in ("primID", "u", "v", "tfar"))
    directions = directions[rays]
    height = origins[rays, 2] + depth * directions[:, 2] - model.bounds[0, 2]
    color = _shade(model, faces, u, v, height, directions)
    samples = SAMPLES**2
    num_pixels = len(origins) // samples
    pixel = rays // samples
    white = samples - np.bincount(pixel, minlength=num_pixels)
    sums = np.stack([white + np.bincount(pixel, color[:, axis], num_pixels) for axis in range(3)], axis=-1)
    depths = np.zeros(len(origins), dtype=np.float32)
    depths[rays] = depth
    return (sums * (255 / samples) + 0.5).astype(np.uint8), depths[samples // 2 :: samples]
