"""Side-looking radar (SAR) and forward-looking sonar: a model and the sensors' poses to pictures of azimuth and range.

A pixel is the sum of the echoes at its azimuth and range, from all elevations, in decibels. Columns and rows are u and
v of the charts `slant` (radar) and `fan` (sonar) in genvs.geometry.projections. Unit echoes from a plate at 45 degrees
sum to 0 dB. Rays pass through surfaces that are mostly transparent, as in depth images. Everything is elementwise, as
in `shading`.
"""

import abc
import math
from collections.abc import Iterator, Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from genvs.config import SceneConfig
from genvs.data.synthetic.parts import face_normals
from genvs.data.synthetic.shading import MAX_RAYS, Array, Castable, dot
from genvs.modalities import MODALITIES, coded

CARS = SceneConfig()  # the cameras and depth planes of SRN's cars
EXTENT = CARS.far - CARS.near  # of a picture in range, and of the radar's rays in azimuth and elevation; world units
FIELD_OF_VIEW = 2 * math.atan(0.5 / CARS.focal)  # of the sonar, in bearing and elevation; radians
EDGE_RISE = math.radians(1) / FIELD_OF_VIEW  # an edge of a model rises less than this above the elevations of its ends
ACROSS, DOWN = 2, 8  # rays per pixel's width in azimuth and elevation: fewer leave stripes on grazed surfaces
BOUNCES = 2  # that the radar follows
DIFFUSE, HIGHLIGHT, GLOSS = 0.3, 0.7, 40.0  # of a radar echo
REFLECTION = 0.6  # the part of a radar ray's power that the next bounce gets
SILENCE = 1e-9  # a power below all windows of decibels
GAP = 1e-4  # between a surface and a ray that leaves it
Echoes = tuple[Array, Array, Array]  # u, v and power, `[N]` each


class Target:
    """A model as rays meet it. normals: `[F, 3]`, of its faces, unit length."""

    def __init__(self, model: Castable) -> None:
        self.model, self.scene = model, EmbreeScene()
        TriangleMesh(self.scene, model.corners)
        normals = face_normals(model.corners)
        self.normals = normals / np.sqrt(dot(normals, normals)).clip(1e-20)[:, None]

    def hits(self, origins: Array, directions: Array) -> tuple[NDArray[np.integer], Array, Array]:
        """The rays `[N, 3]` that hit something: their numbers `[H]`, the distances `[H]`, and the normals `[H, 3]`
        there, on the side that the rays come from.
        """
        hit = self.scene.run(origins, directions, query="INTERSECT", output=True)
        rays = np.flatnonzero(hit["primID"] >= 0)
        faces, u, v, distances = (hit[name][rays] for name in ("primID", "u", "v", "tfar"))
        normals = self.normals[faces]
        normals = np.where((dot(normals, directions[rays]) > 0)[:, None], -normals, normals)
        clear = self.model.opacity_at(faces, u, v) < 0.5
        if not clear.any():
            return rays, distances, normals
        through, step = rays[clear], distances[clear] + GAP
        beyond, further, behind = self.hits(origins[through] + step[:, None] * directions[through], directions[through])
        both = (rays[~clear], through[beyond]), (distances[~clear], step[beyond] + further), (normals[~clear], behind)
        return tuple(map(np.concatenate, both))  # type: ignore[return-value]


class Sensor(abc.ABC):
    """A sensor of echoes. blur: standard deviations of its response in range and azimuth, pixels."""

    blur = (0.0, 0.0)

    @abc.abstractmethod
    def bounds(self, points: Array, c2w: Array) -> tuple[Array, Array]:
        """Between which u, and which w, the model with these vertices `[N, 3]` lies."""

    @abc.abstractmethod
    def echoes(self, target: Target, c2w: Array, u: Array, w: Array) -> Iterator[Echoes]:
        """The echoes of rays at (u, w) `[N]`."""

    def power(self, target: Target, c2w: Array, resolution: int, rng: np.random.Generator) -> Array:
        """What the sensor at the pose `[4, 4]` receives from each azimuth (columns) and range (rows, far on top)."""
        c2w = c2w.astype(np.float32)
        image = np.zeros((resolution + 2, resolution + 2))  # with a margin for echoes at its edge
        for u, w in _places(self.bounds(target.model.corners.reshape(-1, 3), c2w), resolution, rng):
            for echoes in self.echoes(target, c2w, u, w):
                _add(image, *echoes)
        return gaussian_filter(image[1:-1, 1:-1] / (ACROSS * DOWN), self.blur, mode="constant")


class Radar(Sensor):
    """Parallel rays along the camera's axis. With several bounces, an echo lies at the mean azimuth and range of going
    and coming. Its power has POV-Ray's diffuse and Blinn terms, as in RaySAR (Auer, Hinz and Bamler, TGRS 48(3), 2010).
    """

    def __init__(self, bounces: int = BOUNCES) -> None:
        self.bounces = bounces

    def bounds(self, points: Array, c2w: Array) -> tuple[Array, Array]:
        return tuple(_range(across / EXTENT + 0.5) for across in _in_camera(points, c2w)[:2])  # type: ignore[return-value]

    def echoes(self, target: Target, c2w: Array, u: Array, w: Array) -> Iterator[Echoes]:
        azimuth, path, back = (u - 0.5) * EXTENT, 0 * u, -c2w[:3, 2]
        origins = c2w[:3, 3] + _to_world(azimuth, (w - 0.5) * EXTENT, path, c2w)
        directions = np.tile(-back, (len(u), 1))
        for bounce in range(self.bounces):
            rays, distances, normals = target.hits(origins, directions)
            azimuth, path, directions = azimuth[rays], path[rays] + distances, directions[rays]
            points = origins[rays] + distances[:, None] * directions
            origins = points + GAP * normals
            facing, half = dot(normals, back), back - directions
            seen = facing > 0
            if bounce:
                ways = np.flatnonzero(seen)
                seen[ways[target.hits(origins[ways], np.tile(back, (len(ways), 1)))[0]]] = False
            shine = dot(normals, half) / np.sqrt(dot(half, half)).clip(1e-6)
            power = REFLECTION**bounce * (DIFFUSE * facing + HIGHLIGHT * shine.clip(0) ** GLOSS)
            x, _, z = _in_camera(points, c2w)
            at = (azimuth + x) / 2 / EXTENT + 0.5, (CARS.far - (path + z) / 2) / EXTENT
            yield at[0][seen], at[1][seen], power[seen]
            directions = directions - 2 * dot(directions, normals)[:, None] * normals


class Sonar(Sensor):
    """Rays through the camera's centre, equally spaced in bearing and elevation.

    A Lambertian patch that fills a solid angle W returns W cos(i) / r^2, and time-varied gain undoes the spreading.
    """

    blur = (0.5, 0.7)  # pulse and beam

    def bounds(self, points: Array, c2w: Array) -> tuple[Array, Array]:
        x, y, z = _in_camera(points, c2w)
        elevations = _range(np.arctan2(y, np.sqrt(x * x + z * z)) / FIELD_OF_VIEW + 0.5)
        return _range(np.arctan2(x, z) / FIELD_OF_VIEW + 0.5), elevations + np.array([-EDGE_RISE, EDGE_RISE])

    def echoes(self, target: Target, c2w: Array, u: Array, w: Array) -> Iterator[Echoes]:
        bearing, elevation = (u - 0.5) * FIELD_OF_VIEW, (w - 0.5) * FIELD_OF_VIEW
        level = np.cos(elevation)
        directions = _to_world(level * np.sin(bearing), np.sin(elevation), level * np.cos(bearing), c2w)
        rays, distances, normals = target.hits(np.tile(c2w[:3, 3], (len(u), 1)), directions)
        facing = -dot(normals, directions[rays])
        unit = CARS.radius * FIELD_OF_VIEW / EXTENT  # a pixel's width over its height, at the distance of the cars
        yield u[rays], (CARS.far - distances) / EXTENT, unit * level[rays] * facing


SENSORS: dict[str, Sensor] = {"sar": Radar(), "sonar": Sonar()}


def draw(
    name: str, model: Castable, c2w: Array, resolution: int, rng_key: Sequence[int], looks: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yield the picture `[R, R]` of the sensor SENSORS[name] at each of the poses `[V, 4, 4]`, OpenCV axes.

    Decibels are coded as genvs.modalities says. looks: of speckle, which multiplies the power by Gamma(looks), of mean
    1 (Goodman); None for no speckle. Everything random is a function of (rng_key, name, number of the view).
    """
    modality, target = MODALITIES[name], Target(model)
    for view, pose in enumerate(c2w):
        rng = np.random.default_rng((*rng_key, modality.index, view))
        power = SENSORS[name].power(target, pose, resolution, rng)
        if looks:
            power *= rng.gamma(looks, 1 / looks, power.shape)
        values = coded(10 * np.log10(power.clip(SILENCE)), *modality.decibels)  # type: ignore[misc]
        yield np.round(values.clip(0, 255)).astype(np.uint8)


def _in_camera(points: Array, c2w: Array) -> list[Array]:
    """x, y and z `[N]` of world points `[N, 3]`."""
    offsets = points - c2w[:3, 3]
    return [dot(offsets, c2w[:3, axis]) for axis in range(3)]


def _to_world(x: Array, y: Array, z: Array, c2w: Array) -> Array:
    """Vectors `[N, 3]` in world axes from those in camera axes."""
    return np.stack([x * row[0] + y * row[1] + z * row[2] for row in c2w[:3, :3]], -1)


def _range(values: Array) -> Array:
    return np.array([values.min(), values.max()])


def _places(
    bounds: tuple[Array, Array], resolution: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield u and w `[N]` of rays, at most about MAX_RAYS at a time: random places in all cells within the bounds."""
    columns, rows = (
        np.arange(max(0, math.floor(low * cells)), min(cells, math.ceil(high * cells)), dtype=np.float32)
        for (low, high), cells in zip(bounds, (ACROSS * resolution, DOWN * resolution), strict=True)
    )
    for some in np.split(rows, range(step := max(1, MAX_RAYS // len(columns)), len(rows), step)):
        u, w = rng.random((2, len(some), len(columns)), dtype=np.float32)
        yield (columns + u).ravel() / (ACROSS * resolution), (some[:, None] + w).ravel() / (DOWN * resolution)


def _add(image: Array, u: Array, v: Array, power: Array) -> None:
    """Add echoes to a picture with a margin of one pixel: each to the four pixels around it, bilinearly."""
    width = len(image)
    x, y = (at * (width - 2) + 0.5 for at in (u, v))  # the margin's first pixel has its centre at 0
    inside = (x >= 0) & (x < width - 1) & (y >= 0) & (y < width - 1)
    x, y, power = x[inside], y[inside], power[inside]
    column, row = x.astype(np.int64), y.astype(np.int64)
    right, below = x - column, y - row
    for down, share in ((0, 1 - below), (1, below)):
        for across, part in ((0, 1 - right), (1, right)):
            pixels = (row + down) * width + column + across
            image += np.bincount(pixels, share * part * power, image.size).reshape(image.shape)
