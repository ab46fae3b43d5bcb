"""Reads glTF 2.0 files, .gltf and .glb, as the specification and its extensions say."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genvs.data.mesh.parts import PLAIN, Index, Paint, Part, Texture, find_beside, read_file, read_image, to_linear
from genvs.data.storage import printable
from genvs.data.synthetic.shading import Array
from genvs.errors import InputError

Record = dict[str, Any]
NUMBERS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
REPEAT, NEAREST = 10497, 9728
WRAPS = {REPEAT: "repeat", 33648: "mirror", 33071: "clamp"}
CLEAR = 0.25  # opacity that is drawn of glass, which lets all light through
TRIANGLES, STRIP = 4, 5  # 6 is a fan; smaller modes are points and lines
# What a file may require, besides KHR_materials_*: reflections, coats and the like are not drawn.
READ = {"KHR_texture_transform", "KHR_mesh_quantization", "EXT_mesh_gpu_instancing", "KHR_node_visibility"}
READ |= {"EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds"}
READ |= {"KHR_lights_punctual", "KHR_animation_pointer", "KHR_xmp_json_ld"}  # not needed for what is drawn
NO_DATA = "has arrays without data; export it without compression (Draco, meshopt)"


def read_gltf(path: Path) -> Iterator[Part]:
    """The triangles of the file's scene, each mesh at all its places."""
    file = _File(path)
    version = file.record.get("asset", {}).get("version", "1.0")
    if not version.startswith("2"):
        raise InputError(f"{printable(path)}: is of glTF {printable(version)}; export as 2.0")
    for extension in file.record.get("extensionsRequired", []):
        if extension not in READ and not extension.startswith("KHR_materials_"):
            raise InputError(f"{printable(path)}: needs {printable(extension)}, which is not read; export without it")
    for node, placement in file.placed_nodes():
        for primitive in file.record["meshes"][node["mesh"]]["primitives"]:
            if primitive.get("mode", TRIANGLES) >= TRIANGLES:
                yield file.part(primitive, node, placement)


class _File:
    def __init__(self, path: Path) -> None:
        data = read_file(path)
        self.path, self.textures = path, dict[tuple[int, str], Texture]()
        self.placements: dict[int, Array] = {}  # of the nodes, by number: matrices from each to the scene
        json_end = 20 + int.from_bytes(data[12:16], "little") if data.startswith(b"glTF") else None
        self.record = json.loads((data[20:json_end] if json_end else data).rstrip(b"\0"))
        uris = [buffer.get("uri") for buffer in self.record.get("buffers", [])]
        self.buffers = [self._read(uri) if uri else b"" for uri in uris]
        if json_end and uris and uris[0] is None:
            self.buffers[0] = data[json_end + 8 :]

    def _read(self, uri: str) -> bytes:
        if not uri.startswith("data:"):
            return read_file(find_beside(self.path, uri))
        kind, _, data = uri.partition(",")
        return base64.b64decode(data + "==") if kind.endswith(";base64") else unquote_to_bytes(data)  # padded or not

    def array(self, number: int) -> NDArray[Any]:
        """The numbers of an accessor `[count, width]`; integers that stand for fractions become those."""
        accessor = self.record["accessors"][number]
        dtype = np.dtype(NUMBERS[accessor["componentType"]])
        count, width = accessor["count"], WIDTHS[accessor["type"]]
        if not {"bufferView", "sparse"} & accessor.keys():
            raise InputError(f"{printable(self.path)}: {NO_DATA}")
        values = self._stored(accessor, dtype, count, width) if "bufferView" in accessor else np.zeros((count, width))
        if sparse := accessor.get("sparse"):
            values, indices = values.copy(), np.dtype(NUMBERS[sparse["indices"]["componentType"]])
            changed = self._stored(sparse["indices"], indices, sparse["count"], 1)[:, 0]
            values[changed] = self._stored(sparse["values"], dtype, sparse["count"], width)
        return np.maximum(values / np.iinfo(dtype).max, -1) if accessor.get("normalized") else values

    def _stored(self, place: Record, dtype: np.dtype, count: int, width: int) -> NDArray[Any]:
        view = self.record["bufferViews"][place["bufferView"]]
        start = view.get("byteOffset", 0) + place.get("byteOffset", 0)
        strides = (view.get("byteStride", width * dtype.itemsize), dtype.itemsize)
        if not self.buffers[view["buffer"]]:
            raise InputError(f"{printable(self.path)}: {NO_DATA}")
        return np.ndarray((count, width), dtype, self.buffers[view["buffer"]], start, strides)

    def placed_nodes(self) -> Iterator[tuple[Record, Array]]:
        """The nodes with meshes, each with the matrix `[4, 4]` from it to the scene; an instance is a node.

        Nodes outside of the scene are placed too: joints may be among them.
        """
        unvisited = dict(enumerate(self.record.get("nodes", [])))
        roots = unvisited.keys() - {child for node in unvisited.values() for child in node.get("children", [])}
        scenes = self.record.get("scenes") or [{"nodes": roots}]
        top, placed = scenes[self.record.get("scene", 0)].get("nodes", []), []
        stack = [(number, np.eye(4), number in top) for number in [*sorted(roots - set(top)), *top]]
        while stack:
            number, outer, shown = stack.pop()
            if not shown and number not in unvisited:
                continue
            node = unvisited.pop(number)  # a KeyError if the nodes form no tree
            shown &= node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True)
            self.placements[number] = placement = outer @ _placement(node)
            placed += [(node, placement)] if shown else []
            stack += [(child, placement, shown) for child in node.get("children", [])]
        for node, placement in placed:
            copies = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes", {})
            columns = {name.lower(): self.array(number) for name, number in copies.items() if name[0] != "_"}
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            if "mesh" in node:
                yield from ((node, placement @ _placement(row)) for row in (rows if columns else [{}]))

    def part(self, primitive: Record, node: Record, placement: Array) -> Part:
        vertices = {name: self.array(number) for name, number in primitive["attributes"].items()}
        weights = node.get("weights", self.record["meshes"][node["mesh"]].get("weights", []))
        for weight, target in zip(weights, primitive.get("targets", []), strict=False):
            for name in (target.keys() & vertices.keys()) - {"TANGENT"} if weight else ():
                vertices[name] = vertices[name] + weight * self.array(target[name])
        if "skin" in node and "JOINTS_0" in vertices:
            self._pose(vertices, self.record["skins"][node["skin"]])
            placement = np.eye(4)
        count = len(vertices["POSITION"])
        order = self.array(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(count)
        faces = _triangles(primitive.get("mode", TRIANGLES), order)
        if np.linalg.det(placement[:3, :3]) < 0:  # mirrored
            faces = faces[:, ::-1]
        corners = {name: array[faces] for name, array in vertices.items()}
        material = self.record["materials"][primitive["material"]] if "material" in primitive else {}
        extensions = material.get("extensions", {})
        base = material.get("pbrMetallicRoughness", {})
        factor, texture = base.get("baseColorFactor", [1, 1, 1, 1]), base.get("baseColorTexture")
        if glossy := extensions.get("KHR_materials_pbrSpecularGlossiness"):
            factor, texture = glossy.get("diffuseFactor", [1, 1, 1, 1]), glossy.get("diffuseTexture")
        colors = np.ones((len(faces), 3, 4)) * factor
        if "COLOR_0" in corners:
            tint = corners["COLOR_0"]  # integers are fractions even where an exporter does not say so
            tint = tint / np.iinfo(tint.dtype).max if tint.dtype.kind == "u" else tint
            colors[..., : tint.shape[-1]] *= tint
        elif "material" not in primitive:
            colors[:] = to_linear(np.full(4, PLAIN))
        cutoff = material.get("alphaCutoff", 0.5) if material.get("alphaMode") == "MASK" else None
        mode = "RGB" if material.get("alphaMode", "OPAQUE") == "OPAQUE" or cutoff == 0 else "RGBA"
        if mode == "RGB":
            colors[..., 3] = 1
        glass = extensions.get("KHR_materials_transmission", {})
        if "transmissionTexture" not in glass:
            colors[..., 3] *= 1 - glass.get("transmissionFactor", 0) * (1 - CLEAR)
        paint = self._paint(colors, texture, corners, mode)
        if cutoff:
            paint = paint._replace(cutoff=cutoff)
        strength = extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1)
        glow = Paint.plain(np.multiply(material.get("emissiveFactor", [0, 0, 0]), strength), len(faces))
        if glow.colors[..., :3].any():
            glow = self._paint(glow.colors, material.get("emissiveTexture"), corners)
        if "KHR_materials_unlit" in extensions:
            paint, glow = paint._replace(colors=paint.colors * [0, 0, 0, 1]), paint
        return Part(
            corners["POSITION"] @ placement[:3, :3].T + placement[:3, 3],
            corners.get("NORMAL", np.zeros((len(faces), 3, 3))) @ np.linalg.pinv(placement[:3, :3]),
            paint,
            glow,
        )

    def _pose(self, vertices: dict[str, NDArray[Any]], skin: Record) -> None:
        """Moves the vertices to where the skin's joints have them, in the scene."""
        matrices = np.stack([self.placements[joint] for joint in skin["joints"]])
        if "inverseBindMatrices" in skin:
            matrices = matrices @ self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        sets = [name.removeprefix("JOINTS_") for name in vertices if name.startswith("JOINTS_")]
        joints, weights = (np.concatenate([vertices[f"{kind}_{n}"] for n in sets], 1) for kind in ("JOINTS", "WEIGHTS"))
        weights = weights + (weights.sum(1, keepdims=True) == 0) * np.eye(1, weights.shape[1])  # else the first joint's
        matrices = np.einsum("vj,vjrc->vrc", weights / weights.sum(1, keepdims=True), matrices[joints])
        positions = np.insert(vertices["POSITION"].astype(float), 3, 1, axis=1)
        vertices["POSITION"] = np.einsum("vrc,vc->vr", matrices[:, :3], positions)
        if "NORMAL" in vertices:
            inverse = np.linalg.pinv(matrices[:, :3, :3])
            vertices["NORMAL"] = np.einsum("vrc,vr->vc", inverse, vertices["NORMAL"])

    def _paint(self, colors: Array, info: Record | None, corners: dict[str, Array], mode: str = "RGB") -> Paint:
        """info: the glTF's description of a texture and its place."""
        moved = (info or {}).get("extensions", {}).get("KHR_texture_transform", {})
        channel = f"TEXCOORD_{moved.get('texCoord', (info or {}).get('texCoord', 0))}"
        if info is None or channel not in corners:
            return Paint(colors, np.zeros((len(colors), 3, 2)))
        uv = corners[channel] * moved.get("scale", [1, 1])
        cos, sin = np.cos(moved.get("rotation", 0)), np.sin(moved.get("rotation", 0))
        uv = uv @ [[cos, -sin], [sin, cos]] + moved.get("offset", [0, 0])
        return Paint(colors, uv, self._texture(info["index"], mode))

    def _texture(self, number: int, mode: str) -> Texture:
        if (number, mode) not in self.textures:
            texture = self.record["textures"][number]
            forms = [texture, *texture.get("extensions", {}).values()]  # of the same image
            source = next((form["source"] for form in forms if "source" in form), None)
            if source is None:
                raise InputError(f"{printable(self.path)}: a texture has no image; use PNG")
            record = self.record["images"][source]
            uri = record.get("uri", "data:")
            if "bufferView" in record:
                view = self.record["bufferViews"][record["bufferView"]]
                data = self.buffers[view["buffer"]][view.get("byteOffset", 0) :][: view["byteLength"]]
            else:
                data = self._read(uri)
            image = read_image(self.path, f"image {source}" if uri.startswith("data:") else uri, data, mode)
            sampler = self.record["samplers"][texture["sampler"]] if "sampler" in texture else {}
            wrap = [WRAPS[sampler.get(key, REPEAT)] for key in ("wrapS", "wrapT")]
            self.textures[number, mode] = Texture(image, wrap, sampler.get("magFilter") != NEAREST)
        return self.textures[number, mode]


def _placement(node: Record) -> Array:
    """A node's matrix `[4, 4]`, or that of its translation, rotation (a quaternion x, y, z, w) and scale."""
    if "matrix" in node:
        return np.reshape(node["matrix"], (4, 4)).T
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix() * node.get("scale", [1, 1, 1])
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix


def _triangles(mode: int, index: Index) -> Index:
    """`[F, 3]`."""
    if mode == TRIANGLES:
        return index.reshape(-1, 3)
    first = np.arange(len(index) - 2)
    turned = first % 2 if mode == STRIP else 0  # every other triangle of a strip winds the other way
    start = first if mode == STRIP else 0 * first
    return index[np.stack([start, first + 1 + turned, first + 2 - turned], -1)]
