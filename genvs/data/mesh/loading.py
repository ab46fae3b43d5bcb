"""Mesh files (through trimesh) as models with colours and textures, ready for ray casting.

Colours are multiplied in linear light, as glTF specifies: factor x vertex colour x texture. Transparent parts are drawn
opaque. Metalness and roughness are ignored, since the embedded dataset's shading has no such terms.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_matrix

from genvs.data.mesh.textures import load_scene
from genvs.data.storage import printable
from genvs.data.synthetic.dataset import Subject
from genvs.data.synthetic.shading import Array, Castable, at_hits
from genvs.errors import InputError

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
GLTF = (".glb", ".gltf")
CREASE = np.cos(np.radians(40))  # faces that meet at more than this angle have a sharp edge, in files without normals
SPECULAR, SHININESS = 0.05, 16.0
PLAIN = 0.6  # gray of meshes without colours, as displayed
# Rows: the mesh's axes that become the world's x, y and z (up). The front is +z in glTF, -z in ShapeNet's files, and
# becomes +y, as in the embedded cars.
Z_UP = np.eye(3)
GLTF_TO_WORLD = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
Y_UP_TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


@dataclass(frozen=True)
class PaintedMesh(Castable):
    """Triangles with colours, seen from both sides.

    face_normals: `[F, 3]`, on the same side as `normals`. colors: `[F, 3, 3]`, of corners, linear light. uv:
    `[F, 3, 2]`, texture coordinates of corners, with the origin at the image's lower left. texture_of_face: `[F]`, -1
    for none. textures: uint8 RGB `[h, w, 3]` each.
    """

    face_normals: NDArray[np.float32]
    colors: NDArray[np.float32]
    uv: NDArray[np.float32]
    texture_of_face: NDArray[np.integer]
    textures: Sequence[NDArray[np.uint8]]

    def finish_at(self, faces: NDArray[np.integer], u: Array, v: Array) -> Array:
        color = at_hits(self.colors, faces, u, v)
        for number, texture in enumerate(self.textures):
            hits = np.flatnonzero(self.texture_of_face[faces] == number)
            uv = at_hits(self.uv, faces[hits], u[hits], v[hits])
            color[hits] *= to_linear(sample_texture(texture, uv))
        terms = np.full((len(faces), 2), (SPECULAR, SHININESS), dtype=color.dtype)
        return np.concatenate([to_display(color), terms], axis=1)

    def normals_at(self, faces: NDArray[np.integer], u: Array, v: Array, directions: Array) -> Array:
        """As in Castable, on the side that faces the ray."""
        behind = (self.face_normals[faces] * directions).sum(1) > 0
        return np.where(behind[:, None], -1, 1) * super().normals_at(faces, u, v, directions)


@dataclass(frozen=True)
class MeshFile(Subject):
    """The model in a file. up: 'y' or 'z', its upward axis."""

    path: Path
    up: str

    def build(self) -> tuple[Castable, dict[str, Any]]:
        model = load_mesh(self.path, self.up)
        return model, {"mesh": self.path.name, "triangles": len(model.corners)}


class _Piece(NamedTuple):
    """A part of a mesh with one material, in world axes; the fields are PaintedMesh's."""

    corners: Array
    normals: Array
    colors: Array
    uv: Array
    image: Image.Image | None


def load_mesh(path: Path, up: str) -> PaintedMesh:
    """The model in a file with all its parts, centred, the diagonal of its bounding box scaled to 1.

    up: 'y' or 'z'. Raises InputError for a file that cannot be read, has no visible triangles, or names textures that
    cannot be used.
    """
    shown = printable(path)
    try:
        pieces = _read_pieces(path, up)
    except InputError:
        raise
    except Exception as error:  # a parser may raise anything on a damaged file
        reason = printable(f"{type(error).__name__}: {error}"[:150])
        raise InputError(f"{shown}: cannot be read ({reason}); export the mesh again") from None
    if not pieces:
        raise InputError(f"{shown}: holds no triangles; export the mesh with its faces")
    corners, normals, colors, uv = (np.concatenate([piece[part] for piece in pieces]) for part in range(4))
    if not np.isfinite(corners).all() or not np.isfinite(uv).all():
        raise InputError(f"{shown}: has coordinates that are not finite; repair the mesh")
    low, high = corners.reshape(-1, 3).min(0), corners.reshape(-1, 3).max(0)
    if not np.linalg.norm(high - low) > 0:
        raise InputError(f"{shown}: all its points are one; export the mesh again")
    corners = (corners - (low + high) / 2) / np.linalg.norm(high - low)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if not np.abs(face_normals).sum() > 1e-12:  # what rounding leaves
        raise InputError(f"{shown}: all its faces have area 0; export the mesh again")
    face_normals *= np.where((face_normals * normals.sum(1)).sum(1) < 0, -1, 1)[:, None]
    images = {id(piece.image): piece.image for piece in pieces if piece.image is not None}
    number = {key: place for place, key in enumerate(images)} | {id(None): -1}
    return PaintedMesh(
        corners=corners.astype(np.float32),
        normals=normals.astype(np.float32),
        face_normals=face_normals.astype(np.float32),
        colors=colors.astype(np.float32),
        uv=uv.astype(np.float32),
        texture_of_face=np.concatenate([np.full(len(piece.corners), number[id(piece.image)]) for piece in pieces]),
        textures=[np.asarray(image.convert("RGB")) for image in images.values()],
    )


def _read_pieces(path: Path, up: str) -> list[_Piece]:
    """All parts with triangles, placed, in the world's axes."""
    gltf = path.suffix.lower() in GLTF
    axes = Z_UP if up == "z" else GLTF_TO_WORLD if gltf else Y_UP_TO_WORLD
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = load_scene(path)
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        parts = [(scene.geometry[name], placement) for placement, name in placed]
        return [_piece(mesh, placement, axes, gltf) for mesh, placement in parts if len(getattr(mesh, "faces", []))]


def _piece(mesh: trimesh.Trimesh, placement: Array, axes: Array, gltf: bool) -> _Piece:
    """A mesh, placed by a matrix `[4, 4]` in the file, and rotated to the world's axes by `axes` `[3, 3]`."""
    to_world = axes @ placement[:3, :3]
    faces = np.asarray(mesh.faces)
    corners = (np.asarray(mesh.vertices) @ to_world.T + axes @ placement[:3, 3])[faces]
    if "vertex_normals" in mesh._cache:  # they are the file's
        of_vertices = np.asarray(mesh.vertex_normals) @ np.linalg.inv(to_world)
        normals = (of_vertices / np.linalg.norm(of_vertices, axis=1, keepdims=True).clip(1e-12))[faces]
    else:
        normals = creased_normals(corners)
    colors, image = _colors(mesh.visual, faces, gltf)
    uv = getattr(mesh.visual, "uv", None)
    if uv is None or image is None:
        return _Piece(corners, normals, colors, np.zeros((len(faces), 3, 2)), None)
    image.load()  # raises an error if the image is damaged
    return _Piece(corners, normals, colors, np.asarray(uv)[faces], image)


def _colors(visual, faces: NDArray[np.integer], gltf: bool) -> tuple[Array, Image.Image | None]:
    """Colours of corners `[F, 3, 3]`, linear light, and the image that multiplies them. glTF's numbers are linear."""
    linear = np.asarray if gltf else to_linear
    shape = (len(faces), 3, 3)
    if not isinstance(visual, trimesh.visual.TextureVisuals):
        if visual.kind == "face":
            return np.broadcast_to(linear(_rgb(visual.face_colors))[:, None], shape), None
        if visual.kind == "vertex":
            return linear(_rgb(visual.vertex_colors))[faces], None
        return to_linear(np.full(shape, PLAIN)), None
    material = visual.material
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        image, factor = material.baseColorTexture, material.baseColorFactor
        factor = np.ones(3) if factor is None else _rgb(factor)
    else:  # beside an image, the diffuse colour means nothing: exporters write any
        image = getattr(material, "image", None)
        factor = np.ones(3) if image is not None else to_linear(_rgb(material.main_color))
    of_vertices = visual.vertex_attributes.get("color")
    if of_vertices is not None:
        return linear(_rgb(of_vertices))[faces] * factor, image
    return np.broadcast_to(factor, shape), image


def _rgb(color: NDArray) -> Array:
    """The first three channels of colours `[..., 3 or 4]`, integers of any size or floats, in [0, 1]."""
    color = np.asarray(color)[..., :3]
    return color / np.iinfo(color.dtype).max if np.issubdtype(color.dtype, np.integer) else np.clip(color, 0, 1)


def to_linear(color: Array) -> Array:
    """sRGB values in [0, 1], as displayed, to linear light (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def to_display(color: Array) -> Array:
    """The inverse of `to_linear`."""
    return np.where(color <= 0.0031308, color * 12.92, 1.055 * np.maximum(color, 1e-9) ** (1 / 2.4) - 0.055)


def sample_texture(texture: NDArray[np.uint8], uv: Array) -> Array:
    """Bilinear values `[N, 3]` in [0, 1] of uint8 `[h, w, 3]` at uv `[N, 2]`, with the origin at the lower left corner.

    The texture repeats. A texel has its value at its centre.
    """
    height, width = texture.shape[:2]
    x, y = uv[:, 0] % 1 * width - 0.5, (1 - uv[:, 1]) % 1 * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_share, low_share = (x - left)[:, None], (y - top)[:, None]
    left, right, top, low = left % width, (left + 1) % width, top % height, (top + 1) % height
    upper = texture[top, left] * (1 - right_share) + texture[top, right] * right_share
    lower = texture[low, left] * (1 - right_share) + texture[low, right] * right_share
    return (upper * (1 - low_share) + lower * low_share) / 255


def creased_normals(corners: Array) -> Array:
    """Normals at the corners of faces `[F, 3, 3]`, unit length, smooth except at creases.

    A normal is the area-weighted mean over those faces around the vertex that are within CREASE of the corner's own.
    """
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit = of_faces / np.linalg.norm(of_faces, axis=1, keepdims=True).clip(1e-20)
    points = corners.reshape(-1, 3)
    size = np.ptp(points, axis=0).max() if len(points) else 1.0
    vertex = np.unique(np.round(points / max(size, 1e-20) * 1e6), axis=0, return_inverse=True)[1].reshape(-1)
    corner = np.arange(len(points))
    at_vertex = csr_matrix((np.ones(len(points), dtype=np.float32), (vertex, corner)))
    pairs = (at_vertex.T @ at_vertex).tocoo()  # of corners at one vertex
    face, other = pairs.row // 3, pairs.col // 3
    smooth = (unit[face] * unit[other]).sum(1) > CREASE
    normals = np.stack(
        [np.bincount(pairs.row[smooth], of_faces[other[smooth], axis], minlength=len(points)) for axis in range(3)], -1
    )
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)).reshape(corners.shape)
