"""Ray casting (trimesh's meshes in embree, through embreex) and shading: a model and its cameras to images and depth.

Everything here is elementwise numpy on arrays whose shapes depend on the scene alone: no BLAS, no threads, so that the
same scene gives the same bytes on every run.
"""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

Array = NDArray[np.floating]
MAX_RAYS = 400_000  # cast at once: bounds memory
SAMPLES = 3  # a pixel is the mean of SAMPLES x SAMPLES rays; odd, so that one of them is the pixel's centre
Direction = tuple[float, float, float]


class Light(NamedTuple):
    """A scene's light; directions are in the world's frame, which is the object's.

    Diffuse light on a surface with normal n, seen along a ray r: ambient + sky * ((1 + n . above) / 2)**hardness
    + camera * |n . r| + the sum over lamps of strength * max(n . towards, 0). lamps: (towards, strength, strength in
    highlights). shade: the part of it that the lowest points lack.
    """

    ambient: float
    sky: float
    above: Direction
    hardness: float
    camera: float
    lamps: tuple[tuple[Direction, float, float], ...]
    shade: float


STUDIO = Light(
    ambient=0.30,
    sky=0.18,
    above=(0.0, 0.0, 1.0),
    hardness=1.0,
    camera=0.0,
    lamps=(
        ((0.20, 0.25, 0.95), 0.46, 1.0),
        ((-0.80, 0.40, 0.30), 0.24, 0.5),
        ((0.60, -0.75, 0.25), 0.22, 0.4),
        ((-0.25, 0.15, -0.95), 0.24, 0.0),
    ),
    shade=0.3,
)


@dataclass(frozen=True)
class Castable(abc.ABC):
    """A model that rays can hit, in world coordinates, its bounding box centred and of diagonal 1.

    corners, normals: `[F, 3, 3]` float32, of each face's corners: the world position, and the normal (any length).
    """

    corners: NDArray[np.float32]
    normals: NDArray[np.float32]

    @cached_property
    def bounds(self) -> NDArray[np.float32]:
        """The lowest and the highest corner of the bounding box, `[2, 3]`."""
        points = self.corners.reshape(-1, 3)
        return np.stack([points.min(0), points.max(0)])

    @abc.abstractmethod
    def finish_at(self, faces: NDArray[np.integer], u: Array, v: Array, spacing: Array) -> Array:
        """The finish `[N, 5]` (r, g, b, specular, shininess) of hits, by their faces and places in them `[N]`.

        spacing: of the hits on the surface there, `[N]`, world units. Four more columns may hold emitted light, and
        opacity.
        """

    def normals_at(self, faces: NDArray[np.integer], u: Array, v: Array, directions: Array) -> Array:
        """The normals `[N, 3]` (any length) of hits by rays of these directions `[N, 3]`."""
        return at_hits(self.normals, faces, u, v)

    def light(self) -> Light:
        """The light that the model stands in."""
        return STUDIO

    def opacity_at(self, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
        """The opacity `[N]` of hits, as `finish_at` says; 1 in this class."""
        return np.ones_like(u)


def dot(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _unit(direction: Direction) -> Array:
    towards = np.array(direction, dtype=np.float32)
    return towards / np.sqrt(dot(towards, towards))


def _covering_pixels(bounds: Array, c2w: Array, focal: float, resolution: int) -> tuple[slice, slice]:
    """The rows and columns of pixels that show the bounding box in a view."""
    corners = np.stack(np.meshgrid(*bounds.T.astype(np.float64), indexing="ij"), -1).reshape(-1, 3)
    x, y, z = (dot(corners - c2w[:3, 3], c2w[:3, axis]) for axis in range(3))
    places = (focal * across / z + resolution / 2 for across in (y, x))
    rows, columns = (np.clip((place.min(), place.max() + 1), 0, resolution).astype(int) for place in places)
    return slice(*rows), slice(*columns)


def _rays(c2w: Array, pixels: tuple[slice, slice], focal: float, resolution: int) -> Array:
    """Ray directions (camera z 1, world axes) through SAMPLES x SAMPLES places in each of the pixels `[rows, columns]`.

    Returns `[SAMPLES * rows, SAMPLES * columns, 3]`.
    """
    places = np.arange(resolution)[:, None] + (np.arange(SAMPLES) + 0.5) / SAMPLES - resolution / 2
    y, x = (places[part].reshape(-1, 1) / focal for part in pixels)
    right, down, forward = c2w[:3, :3].T
    across, along = (x * right).astype(np.float32), (y * down + forward).astype(np.float32)
    return across + along[:, None]


def at_hits(corner_values: Array, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
    """Values at corners `[F, 3, C]`, interpolated to hits: `[N, C]`."""
    a, b, c = corner_values.transpose(1, 2, 0).reshape(3, -1, len(corner_values)).take(faces, axis=2)
    return (a * (1 - u - v) + b * u + c * v).T  # numpy is several times faster along hits than along channels


def _shade(
    model: Castable, faces: NDArray[np.integer], u: Array, v: Array, height: Array, directions: Array, spacing: Array
) -> tuple[Array, Array]:
    """Colours `[N, 3]` of hits: diffuse light and Phong highlights; no shadows. And opacity `[N]`.

    height: above the lowest point of the model, world units. spacing: of the rays there.
    """
    normal = model.normals_at(faces, u, v, directions)
    normal /= np.sqrt(dot(normal, normal))[:, None] + 1e-20
    view = directions / np.sqrt(dot(directions, directions))[:, None]
    facing = dot(normal, view)
    finish = model.finish_at(faces, u, v, spacing / np.sqrt(np.maximum(np.abs(facing), 0.05)))
    source = model.light()
    light = source.sky * (np.maximum(1 + dot(normal, _unit(source.above)), 0) / 2) ** source.hardness
    light += source.ambient + source.camera * np.abs(facing)
    shiny = np.flatnonzero(finish[:, 3])
    reflected = view[shiny] - 2 * facing[shiny, None] * normal[shiny]
    highlight = np.zeros(len(shiny), np.float32)
    for direction, diffuse, strength in source.lamps:
        towards = _unit(direction)
        light += diffuse * np.maximum(dot(normal, towards), 0)
        if strength:
            highlight += strength * np.maximum(dot(reflected, towards), 0) ** finish[shiny, 4]
    light *= 1 - source.shade * (1 - np.minimum(height / 0.14, 1))
    color = finish[:, :3] * light[:, None]
    color[shiny] += (finish[shiny, 3] * highlight)[:, None]
    if finish.shape[1] == 5:
        return np.clip(color, 0, 1), np.ones_like(light)
    return np.clip(color + finish[:, 5:8], 0, 1), finish[:, 8]


def _cast(
    scene: EmbreeScene, model: Castable, origins: Array, directions: Array, spacing: float
) -> tuple[NDArray[np.integer], Array, Array]:
    """The rays that hit something, their colours, with what shines through on white, and their depths.

    spacing: of the rays at depth 1.
    """
    layers: list[tuple[NDArray[np.integer], Array, Array, NDArray[np.integer], Array]] = []
    start = 0 * origins[:, 0]
    while not layers or len(origins):
        hit = scene.run(origins, directions, query="INTERSECT", output=True)
        hits = np.flatnonzero(hit["primID"] >= 0)
        faces, u, v, depth = (hit[name][hits] for name in ("primID", "u", "v", "tfar"))
        origins, directions = (np.stack([axis[hits] for axis in rays.T]).T for rays in (origins, directions))
        height = origins[:, 2] + depth * directions[:, 2] - model.bounds[0, 2]
        total = depth + start[hits]
        colors, opacity = _shade(model, faces, u, v, height, directions, total * spacing)
        clear = np.flatnonzero(opacity < 0.99)
        layers.append((hits, colors, total, clear, opacity[clear]))
        step = depth[clear] + np.float32(1e-4)
        origins, directions, start = origins[clear] + step[:, None] * directions[clear], directions[clear], total[clear]
    seen, behind_seen, far_seen = layers[-1][:3]
    for hits, colors, total, clear, opacity in reversed(layers[:-1]):
        behind, far = np.ones((len(clear), 3), np.float32), np.zeros(len(clear), np.float32)
        behind[seen], far[seen] = behind_seen, far_seen
        colors[clear] = behind + opacity[:, None] * (colors[clear] - behind)
        total[clear] = np.where(opacity < 0.5, far, total[clear])
        seen, behind_seen, far_seen = hits, colors, total
    return seen, behind_seen, far_seen


def render(model: Castable, c2w: Array, focal: float, resolution: int) -> Iterator[tuple[NDArray[np.uint8], Array]]:
    """Yield, per camera, the image `[R, R, 3]` (uint8, white background) and the depth `[R, R]` (camera z, 0 if none).

    c2w: `[V, 4, 4]`, OpenCV axes; focal: pixels; the principal point is the image's centre.
    """
    scene = EmbreeScene()
    TriangleMesh(scene, model.corners)
    step = max(1, MAX_RAYS // (SAMPLES * resolution) ** 2)
    for cameras in np.split(c2w, range(step, len(c2w), step)):
        shown = [_covering_pixels(model.bounds, camera, focal, resolution) for camera in cameras]
        rays = [_rays(camera, pixels, focal, resolution) for camera, pixels in zip(cameras, shown, strict=True)]
        sizes = [grid.size // 3 for grid in rays]
        origins = np.repeat(cameras[:, :3, 3].astype(np.float32), sizes, axis=0)
        directions = np.concatenate([grid.reshape(-1, 3) for grid in rays])
        hits, colors, depth = _cast(scene, model, origins, directions, 1 / (focal * SAMPLES))
        starts = np.cumsum([0, *sizes])
        edges = np.searchsorted(hits, starts)
        for view, pixels in enumerate(shown):
            of_view = slice(edges[view], edges[view + 1])
            image, far = np.full((resolution, resolution, 3), 255, np.uint8), np.zeros((resolution,) * 2, np.float32)
            places = hits[of_view] - starts[view], rays[view].shape[:2]
            image[pixels], far[pixels] = _gather(*places, colors[of_view], depth[of_view])
            yield image, far


def _gather(
    hits: NDArray[np.integer], shape: tuple[int, ...], colors: Array, depth: Array
) -> tuple[NDArray[np.uint8], Array]:
    """The pixels' colours and depths, from those of the rays that hit something, in a grid of rays of this shape."""
    rows, columns = (side // SAMPLES for side in shape)
    row, column = np.divmod(hits, shape[1])
    pixel, count = row // SAMPLES * columns + column // SAMPLES, rows * columns
    white = SAMPLES**2 - np.bincount(pixel, minlength=count)
    sums = np.stack([white + np.bincount(pixel, color, count) for color in colors.T], axis=-1)
    depths = np.zeros(shape, np.float32)
    depths.reshape(-1)[hits] = depth
    middle = slice(SAMPLES // 2, None, SAMPLES)
    return (sums * (255 / SAMPLES**2) + 0.5).astype(np.uint8).reshape(rows, columns, 3), depths[middle, middle]
