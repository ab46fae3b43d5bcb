"""Writes and reads mesh files byte by byte, for tests: no library has a say in what they mean."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# In the plane z = 0; seen from +z, x to the right: lower left, lower right, upper right, upper left.
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], dtype=np.float32)
SQUARE_FACES = np.array([[0, 1, 2], [0, 2, 3]])
TOP_LEFT, TOP_RIGHT, LOW_LEFT, LOW_RIGHT = (200, 40, 40), (40, 160, 40), (40, 40, 200), (180, 180, 40)
COMPONENT_TYPES = {"uint16": 5123, "uint32": 5125, "float32": 5126}


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
) -> Path:
    """A glTF of one mesh. attributes: such as TEXCOORD_0; integers are normalised. image: the base colour texture."""
    arrays = {"POSITION": vertices.astype(np.float32), **(attributes or {})}
    blob, views, accessors = b"", [], []
    for name, array in [*arrays.items(), ("", faces.astype(np.uint32).reshape(-1))]:
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes})
        kind = "SCALAR" if array.ndim == 1 else f"VEC{array.shape[1]}"
        code = COMPONENT_TYPES[array.dtype.name]
        accessor = {"bufferView": len(accessors), "componentType": code, "count": len(array), "type": kind}
        if name and array.dtype.kind in "iu":
            accessor |= {"normalized": True}
        if name == "POSITION":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        accessors.append(accessor)
        blob += array.tobytes()
    material = {"pbrMetallicRoughness": {}} if material is None else material
    attributes = {name: number for number, name in enumerate(arrays)}
    primitive = {"attributes": attributes, "indices": len(arrays), "material": 0}
    record: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "buffers": [{"byteLength": len(blob), "uri": data_uri(blob, "application/octet-stream")}],
        "bufferViews": views,
        "accessors": accessors,
    }
    if image is not None:
        png = io.BytesIO()
        image.save(png, "PNG")
        record["images"] = [{"uri": data_uri(png.getvalue(), "image/png")}]
        record["textures"] = [{"source": 0}]
        material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0, **material.pop("texture", {})}
    path.write_text(json.dumps(record))
    return path


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
