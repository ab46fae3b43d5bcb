"""Mesh files as models with colours and textures, ready for ray casting.

Colours are multiplied in linear light, as glTF specifies: factor x vertex colour x texture. Metalness and roughness are
ignored, since the embedded dataset's shading has no such terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from genvs.data.mesh.gltf import read_gltf
from genvs.data.mesh.parts import Index, Paint, to_display, to_linear
from genvs.data.mesh.polygons import read_obj, read_ply, read_stl
from genvs.data.storage import printable
from genvs.data.synthetic.dataset import Subject
from genvs.data.synthetic.parts import face_normals
from genvs.data.synthetic.shading import Array, Castable, at_hits
from genvs.errors import InputError

READERS = {".glb": read_gltf, ".gltf": read_gltf, ".obj": read_obj, ".ply": read_ply, ".stl": read_stl}
CREASE = np.cos(np.radians(40))  # faces that meet at more than this angle have a sharp edge, in files without normals
CROWD = 128  # corners at one place, above which each is apart: the pairs of them all would fill the memory
DECAL = 2e-4  # how far faces that may be transparent stand off: rays that pass through one skip what is nearer behind
SPECULAR, SHININESS = 0.05, 16.0
# Rows: the mesh's axes that become the world's x, y and z (up). The front is +z in glTF, -z in ShapeNet's files, and
# becomes +y, as in the embedded cars.
Z_UP = np.eye(3)
GLTF_TO_WORLD = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
Y_UP_TO_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


class Layer:
    """The paints of a model's parts. corners: `[F, 3, 3]`, of all faces."""

    def __init__(self, paints: Sequence[Paint], corners: Array) -> None:
        self.colors = np.concatenate([paint.colors for paint in paints]).astype(np.float32)
        self.uv = np.concatenate([paint.uv for paint in paints]).astype(np.float32)
        self.textures = list(dict.fromkeys(paint.texture for paint in paints if paint.texture))
        numbers = [self.textures.index(paint.texture) if paint.texture else -1 for paint in paints]
        sizes = [len(paint.uv) for paint in paints]
        self.texture_of_face, self.cutoff = np.repeat(numbers, sizes), np.repeat([p.cutoff for p in paints], sizes)
        clear = np.repeat([paint.texture is not None and paint.texture.channels == 4 for paint in paints], sizes)
        self.may_be_clear = clear | (self.colors[..., 3] != 1).any(axis=1)
        first, second = (self.uv[:, 1:] - self.uv[:, :1]).swapaxes(0, 1)
        area_uv = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
        self.uv_per_length = np.sqrt(area_uv / np.linalg.norm(face_normals(corners), axis=1).clip(1e-20))

    def at(self, faces: Index, u: Array, v: Array, spacing: Array) -> Array:
        """Linear light and opacity `[N, 4]` of hits `[N]`. spacing: of the hits on the surface, world units."""
        color = at_hits(self.colors, faces, u, v)
        for number, texture in enumerate(self.textures):
            hits = np.flatnonzero(self.texture_of_face[faces] == number)
            uv = at_hits(self.uv, faces[hits], u[hits], v[hits])
            values = texture.sample(uv, spacing[hits] * self.uv_per_length[faces[hits]])
            color[hits, :3] *= to_linear(values[:, :3])
            if texture.channels == 4:
                color[hits, 3] *= values[:, 3]
        return color


@dataclass(frozen=True)
class PaintedMesh(Castable):
    """Triangles with colours, seen from both sides.

    face_normals: `[F, 3]`, on the same side as `normals`. paint reflects light, glow emits it.
    """

    face_normals: NDArray[np.float32]
    paint: Layer
    glow: Layer | None

    def finish_at(self, faces: Index, u: Array, v: Array, spacing: Array) -> Array:
        """As in Castable, with emitted light and opacity if the model has any."""
        color = self.paint.at(faces, u, v, spacing)
        terms = np.full((len(faces), 2), (SPECULAR, SHININESS), dtype=color.dtype)
        finish = [to_display(color[:, :3]), terms]
        if self.glow or self.paint.may_be_clear.any():
            glow = self.glow.at(faces, u, v, spacing)[:, :3] if self.glow else 0 * color[:, :3]
            cutoff, opacity = self.paint.cutoff[faces], color[:, 3]
            finish += [to_display(glow), np.where(cutoff > 0, opacity >= cutoff, opacity)[:, None]]
        return np.concatenate(finish, axis=1)

    def normals_at(self, faces: Index, u: Array, v: Array, directions: Array) -> Array:
        """As in Castable, on the side that faces the ray."""
        behind = (self.face_normals[faces] * directions).sum(1) > 0
        return np.where(behind[:, None], -1, 1) * super().normals_at(faces, u, v, directions)

    def opacity_at(self, faces: Index, u: Array, v: Array) -> Array:
        clear = self.paint.may_be_clear.any()
        return self.finish_at(faces, u, v, np.zeros_like(u))[:, 8] if clear else super().opacity_at(faces, u, v)


@dataclass(frozen=True)
class MeshFile(Subject):
    """The model in a file. up: 'y' or 'z', its upward axis."""

    path: Path
    up: str

    def build(self) -> tuple[Castable, dict[str, Any]]:
        model = load_mesh(self.path, self.up)
        return model, {"mesh": self.path.name, "triangles": len(model.corners)}


def load_mesh(path: Path, up: str) -> PaintedMesh:
    """The model in a file with all its parts, centred, the diagonal of its bounding box scaled to 1.

    up: 'y' or 'z'. Raises InputError for a file that cannot be read or drawn correctly, or has no visible triangles.
    """
    shown, suffix = printable(path), path.suffix.lower()
    try:
        parts = [part for part in READERS[suffix](path) if part.paint.colors[..., 3].any()]
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        reason = printable(f"{type(error).__name__}: {error}"[:150])
        raise InputError(f"{shown}: cannot be read ({reason}); export the mesh again") from None
    if not parts:
        raise InputError(f"{shown}: holds no visible triangles; export the mesh with its faces")
    axes = Z_UP if up == "z" else GLTF_TO_WORLD if READERS[suffix] is read_gltf else Y_UP_TO_WORLD
    corners = np.concatenate([part.corners for part in parts]) @ axes.T
    normals = np.concatenate([part.normals for part in parts]) @ axes.T
    paints = [array for part in parts for paint in (part.paint, part.glow) if paint for array in paint[:2]]
    if not all(np.isfinite(array).all() for array in (corners, *paints)):
        raise InputError(f"{shown}: has coordinates or colours that are not finite; repair the mesh")
    sides = corners[:, 1:] - corners[:, :1]
    seen = np.linalg.norm(face_normals(corners), axis=1) > 1e-9 * (sides**2).sum((1, 2))  # what rounding leaves of 0
    if not seen.any():
        raise InputError(f"{shown}: all its faces have area 0; export the mesh again")
    low, high = corners[seen].min((0, 1)), corners[seen].max((0, 1))
    corners = np.where(seen[:, None, None], (corners - (low + high) / 2) / np.linalg.norm(high - low), 0)
    of_faces = face_normals(corners)
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    given = lengths > 0
    normals = np.where(given, normals / lengths.clip(1e-20), 0 if given.all() else creased_normals(corners))
    of_faces *= np.where((of_faces * normals.sum(1)).sum(1) < 0, -1, 1)[:, None]
    glow = Layer([part.glow or Paint.plain(np.zeros(3), len(part.corners)) for part in parts], corners)
    paint = Layer([part.paint for part in parts], corners)
    corners = corners + DECAL * paint.may_be_clear[:, None, None] * normals
    return PaintedMesh(
        corners.astype(np.float32),
        normals.astype(np.float32),
        of_faces.astype(np.float32),
        paint,
        glow if glow.colors[..., :3].any() else None,
    )


def creased_normals(corners: Array) -> Array:
    """Normals at the corners of faces `[F, 3, 3]`, unit length, smooth except at creases.

    A normal is the area-weighted mean over those faces around the vertex that are within CREASE of the corner's own, or
    the corner's own where more than CROWD meet.
    """
    of_faces = face_normals(corners)
    unit = of_faces / np.linalg.norm(of_faces, axis=1, keepdims=True).clip(1e-20)
    points = corners.reshape(-1, 3)
    places = np.round((points - points.min(0)) * (1e6 / np.ptp(points, axis=0).max())).astype(np.int64)
    keys = places @ [1 << 42, 1 << 21, 1]  # 21 bits for each coordinate
    vertex, counts = np.unique(keys, return_inverse=True, return_counts=True)[1:]
    corner = np.arange(len(points))
    vertex = np.where(counts[vertex] > CROWD, len(counts) + corner, vertex)
    at_vertex = csr_matrix((np.ones(len(points), dtype=np.float32), (vertex, corner)))
    pairs = (at_vertex.T @ at_vertex).tocoo()  # of corners at one vertex
    face, other = pairs.row // 3, pairs.col // 3
    smooth = (unit[face] * unit[other]).sum(1) > CREASE
    normals = np.stack(
        [np.bincount(pairs.row[smooth], of_faces[other[smooth], axis], minlength=len(points)) for axis in range(3)], -1
    )
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-20)).reshape(corners.shape)
