"""Writes and reads mesh files byte by byte, for tests: no library has a say in what they mean."""

import base64
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genvs.data.mesh.model import PaintedMesh, load_mesh

# In the plane z = 0; seen from +z, x to the right: lower left, lower right, upper right, upper left.
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=np.float32)
SQUARE_FACES = np.array([[0, 1, 2], [0, 2, 3]])
CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float32)
CUBE_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4]]
    + [[1, 5, 7], [1, 7, 3]]
)
GLTF_UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)  # of SQUARE; the origin is the upper left
TOP_LEFT, TOP_RIGHT, LOW_LEFT, LOW_RIGHT = (200, 40, 40), (40, 160, 40), (40, 40, 200), (180, 180, 40)
COMPONENT_TYPES = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}


def four_colors() -> Image.Image:
    """A texture of four colours, a quarter each."""
    quarters = np.array([[TOP_LEFT, TOP_RIGHT], [LOW_LEFT, LOW_RIGHT]], dtype=np.uint8)
    return Image.fromarray(quarters.repeat(32, axis=0).repeat(32, axis=1))


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def write_gltf(
    path: Path,
    vertices: np.ndarray = SQUARE,
    faces: np.ndarray = SQUARE_FACES,
    *,
    material: dict[str, Any] | None = None,
    image: Image.Image | None = None,
    node: dict[str, Any] | None = None,
    attributes: dict[str, np.ndarray] | None = None,
    change: Callable[[dict[str, Any], Callable[[np.ndarray], int]], None] = lambda record, add: None,
) -> Path:
    """A glTF of one mesh, as text or binary. attributes: such as TEXCOORD_0; integers are normalised. image: the base
    colour texture, which covers a SQUARE unless there are attributes. change: gets the record, and a function that adds
    an array and gives the number of its accessor.
    """
    if image is not None and attributes is None:
        attributes = {"TEXCOORD_0": GLTF_UV}
    blob = bytearray()
    record: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}]}
    record |= {"nodes": [{"mesh": 0, **(node or {})}], "bufferViews": [], "accessors": []}

    def add(array: np.ndarray) -> int:
        blob.extend(bytes(-len(blob) % 4))
        record["bufferViews"].append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes})
        blob.extend(array.tobytes())
        kind = "MAT4" if array.ndim == 3 else "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        code = COMPONENT_TYPES[array.dtype.name]
        view = len(record["bufferViews"]) - 1
        accessor = {"bufferView": view, "componentType": code, "count": len(array), "type": kind}
        if array.ndim > 1 and array.dtype.kind in "iu":
            accessor |= {"normalized": True}
        record["accessors"].append(accessor)
        return view

    arrays = {"POSITION": vertices if vertices.dtype.kind == "i" else vertices.astype(np.float32), **(attributes or {})}
    numbers = {name: add(array) for name, array in arrays.items()}
    primitive = {"attributes": numbers, "indices": add(faces.astype(np.uint32).reshape(-1)), "material": 0}
    record["meshes"] = [{"primitives": [primitive]}]
    record["materials"] = [{"pbrMetallicRoughness": {}} if material is None else material]
    if image is not None:
        png = io.BytesIO()
        image.save(png, "PNG")
        record["images"] = [{"uri": data_uri(png.getvalue(), "image/png")}]
        record["textures"] = [{"source": 0}]
        record["materials"][0].setdefault("pbrMetallicRoughness", {})["baseColorTexture"] = {"index": 0}
    change(record, add)
    if path.suffix == ".glb":
        record["buffers"] = [{"byteLength": len(blob)}]
        text = json.dumps(record).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    else:
        record["buffers"] = [{"byteLength": len(blob), "uri": data_uri(bytes(blob), "application/octet-stream")}]
        path.write_text(json.dumps(record))
    return path


def read_gltf(path: Path, *mesh: np.ndarray, **options) -> PaintedMesh:
    """What a file of `write_gltf` is read as."""
    return load_mesh(write_gltf(path, *mesh, **options), "y")


def write_obj(path: Path) -> Path:
    """The square with the texture of four colours; `vt` has its origin at the lower left."""
    four_colors().save(path.with_suffix(".png"))
    path.with_suffix(".mtl").write_text(f"newmtl paint\nKd 0.8 0.8 0.8\nmap_Kd {path.stem}.png\n")
    lines = [f"mtllib {path.stem}.mtl", "usemtl paint"]
    lines += [f"v {x} {y} {z}" for x, y, z in SQUARE]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1"]
    lines += ["f " + " ".join(f"{i + 1}/{i + 1}" for i in face) for face in SQUARE_FACES]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_ply(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray | None = None) -> Path:
    """colors: uint8 `[V, 3]`."""
    rows = vertices.tolist() if colors is None else [[*v, *c] for v, c in zip(vertices, colors.tolist(), strict=True)]
    channels = [] if colors is None else [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    lines += [*(f"property float {axis}" for axis in "xyz"), *channels, f"element face {len(faces)}"]
    lines += ["property list uchar int vertex_indices", "end_header"]
    lines += [" ".join(map(str, row)) for row in rows] + [f"3 {a} {b} {c}" for a, b, c in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


def colors_of(model: PaintedMesh) -> np.ndarray:
    """The colours in the middle of the faces, unlit, 0 to 255: `[F, 3]`."""
    third = np.full(len(model.corners), 1 / 3, dtype=np.float32)
    return 255 * model.finish_at(np.arange(len(third)), third, third, 0 * third)[:, :3]


def finish_seen(model: PaintedMesh, x: float, y: float) -> np.ndarray:
    """The finish of a flat model, seen from the front; x to the right and y up, from -1 to 1."""
    point = model.bounds[1, [0, 2]] * [-x, y]  # the front is +y in the world
    first, second, third = model.corners[:, :, [0, 2]].swapaxes(0, 1)
    sides = np.stack([second - first, third - first], -1)
    u, v = np.linalg.solve(sides, (point - first)[..., None])[..., 0].T
    face = int(np.minimum(np.minimum(u, v), 1 - u - v).argmax())
    place = np.array([[u[face]], [v[face]], [0.0]], dtype=np.float32)
    return model.finish_at(np.array([face]), *place)[0]


def color_at(model: PaintedMesh, x: float, y: float) -> np.ndarray:
    """The unlit colour, 0 to 255, of what `finish_seen` says."""
    return 255 * finish_seen(model, x, y)[:3]


def area(model: PaintedMesh) -> float:
    return float(np.linalg.norm(model.face_normals, axis=1).sum() / 2)


def corners_seen(model: PaintedMesh) -> list[np.ndarray]:
    """The colours a quarter away from a square's edges: upper left, upper right, lower left, lower right."""
    return [color_at(model, x, y) for y in (0.5, -0.5) for x in (-0.5, 0.5)]


def assert_four_colors(model: PaintedMesh, order=(TOP_LEFT, TOP_RIGHT, LOW_LEFT, LOW_RIGHT)) -> None:
    np.testing.assert_allclose(corners_seen(model), order, atol=2)
