"""Whether a mesh file's colour textures, and a glTF's numbers, can be read: trimesh does not say what it cannot."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trimesh
from PIL import Image

from genvs.data.storage import printable
from genvs.errors import InputError

FLOAT, UNSIGNED_SHORT = 5126, 5123  # componentType of a glTF's accessors


class _FilesBeside(trimesh.resolvers.FilePathResolver):
    def get(self, name: str) -> bytes:
        try:
            return super().get(name)
        except OSError:
            return super().get(unquote(name))  # glTF's URIs have %20 for a space


def files_beside(path: Path) -> trimesh.resolvers.FilePathResolver:
    """Where trimesh finds what a mesh names: in its folder, and in others, as in ShapeNet's `../images`."""
    resolver = _FilesBeside(str(path))
    resolver.allow_anywhere = True  # trimesh before 5 has no such setting, and does so
    return resolver


def refuse_unusable_parts(path: Path, read: Callable[[str], bytes]) -> None:
    """Raise InputError for a mesh whose colour textures are missing, damaged, or placed in a way that is not read, or
    that has coordinates or colours in an encoding that is not.

    read: the content of a file by the name that the mesh has for it. A file that is no mesh may raise anything.
    """
    data, suffix = path.read_bytes(), path.suffix.lower()
    if suffix == ".ply":
        for name in re.findall(rb"(?im)^comment[ \t]+texturefile(.*)$", data.partition(b"end_header")[0]):
            _check_image(path, name.decode().strip(), read)
    elif suffix == ".obj":
        _check_obj(path, trimesh.util.decode_text(data), read)
    else:
        _check_gltf(path, data, read)


def _check_image(path: Path, name: str, read: Callable[[str], bytes]) -> None:
    shown = f"{printable(path)}: its texture {printable(name[:200])}"
    try:
        data = read(name)
    except (OSError, ValueError):
        raise InputError(
            f"{shown} is not there; put it where the mesh looks for it, or export the mesh with it"
        ) from None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:  # a decoder may raise anything on a damaged file
        raise InputError(f"{shown} cannot be decoded; save it again as PNG") from None


def _check_obj(path: Path, text: str, read: Callable[[str], bytes]) -> None:
    """The textures of those materials that faces use."""
    used = {" ".join(name.split()) for name in re.findall(r"(?m)^[ \t]*usemtl[ \t]+(.*)$", text)}
    libraries = list(dict.fromkeys(name.strip() for name in re.findall(r"(?m)^[ \t]*mtllib[ \t]+(.*)$", text)))
    if not used or not libraries:
        return
    if len(libraries) > 1:
        raise InputError(f"{printable(path)}: names {len(libraries)} mtllib, of which one is read; join them into one")
    try:
        lines = trimesh.util.decode_text(read(libraries[0])).splitlines()
    except (OSError, ValueError):
        shown = f"{printable(path)}: its mtllib {printable(libraries[0][:200])}"
        raise InputError(f"{shown} is not there; put it beside the mesh") from None
    material = ""
    for line in lines:
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key.lower() == "newmtl":
            material = " ".join(value.split())
        elif key.lower() == "map_kd" and value.strip() and material in used:
            _check_image(path, value.strip(), read)


def _check_gltf(path: Path, data: bytes, read: Callable[[str], bytes]) -> None:
    binary = b""
    if data.startswith(b"glTF"):
        end = 20 + int.from_bytes(data[12:16], "little")  # the first chunk is the JSON
        data, binary = data[20:end], data[end + 8 :]
    record = json.loads(data)
    for extension in record.get("extensionsRequired", []):
        if extension.endswith("_compression"):  # Draco's and meshopt's
            raise InputError(
                f"{printable(path)}: is compressed ({printable(extension)}); export it without compression"
            )
    _check_numbers(path, record)

    def content(uri: str) -> bytes:
        return base64.b64decode(uri.partition("base64,")[2]) if "base64," in uri else read(uri)

    def content_of_image(name: str) -> bytes:
        image = record["images"][int(name.removeprefix("image "))]
        if "bufferView" not in image:
            return content(image.get("uri", ""))
        view = record["bufferViews"][image["bufferView"]]
        buffer, start = record["buffers"][view["buffer"]], view.get("byteOffset", 0)
        return (content(buffer["uri"]) if "uri" in buffer else binary)[start : start + view["byteLength"]]

    numbers = [_image_number(path, record, material) for material in record.get("materials", [])]
    for number in sorted({number for number in numbers if number is not None}):
        uri = record["images"][number].get("uri", "data:")
        if uri.startswith("data:"):
            _check_image(path, f"image {number}", content_of_image)
        else:
            _check_image(path, uri, read)


def _check_numbers(path: Path, record: dict[str, Any]) -> None:
    """Refuse integers that stand for fractions where trimesh takes them for themselves."""
    for primitive in [primitive for mesh in record.get("meshes", []) for primitive in mesh["primitives"]]:
        accessors = {name: record["accessors"][number] for name, number in primitive["attributes"].items()}
        types = {name: accessor["componentType"] for name, accessor in accessors.items()}
        misread = {
            "POSITION": accessors["POSITION"].get("normalized"),
            "TEXCOORD_0": "material" in primitive and types.get("TEXCOORD_0", FLOAT) != FLOAT,
            "COLOR_0": "material" not in primitive and types.get("COLOR_0") == UNSIGNED_SHORT,
        }
        for name in misread:
            if misread[name]:
                raise InputError(f"{printable(path)}: has {name} in integers; export it with float attributes")


def _image_number(path: Path, record: dict[str, Any], material: dict[str, Any]) -> int | None:
    """The place in `images` of a material's colour texture; None where it has none."""
    shown = printable(path)
    if "diffuseTexture" in material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {}):
        raise InputError(
            f"{shown}: has KHR_materials_pbrSpecularGlossiness textures; export it with metal and roughness"
        )
    texture = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
    if texture is None:
        return None
    moved = texture.get("extensions", {}).get("KHR_texture_transform", {})
    values = moved.get("offset", [0, 0]), moved.get("scale", [1, 1]), moved.get("rotation", 0)
    if values != ([0, 0], [1, 1], 0):
        raise InputError(f"{shown}: moves its textures (KHR_texture_transform); export it without that")
    channel = moved.get("texCoord", texture.get("texCoord", 0))
    if channel != 0:
        raise InputError(f"{shown}: a texture uses TEXCOORD_{channel}; export it with its colours in the first UV map")
    entry = record["textures"][texture["index"]]
    source = entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source", entry.get("source"))
    if source is None:
        raise InputError(f"{shown}: a texture is neither PNG, JPEG nor WebP; export it with PNG textures")
    return source
