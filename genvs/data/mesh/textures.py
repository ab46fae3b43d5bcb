"""Loads mesh files through trimesh, and refuses what it would silently leave out or misread."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import trimesh

from genvs.data.storage import printable
from genvs.errors import InputError

FLOAT, UNSIGNED_SHORT = 5126, 5123  # componentType of a glTF's accessors


class _FilesBeside(trimesh.resolvers.FilePathResolver):
    """Finds the files that a mesh names, in its folder or in others, as in ShapeNet's `../images`."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.allow_anywhere = True  # the default before trimesh 5

    def get(self, name: str) -> bytes:
        for spelling in (name, unquote(name)):  # glTF's URIs have %20 for a space
            with contextlib.suppress(OSError, ValueError):
                return super().get(spelling)
        raise FileNotFoundError(name)


def load_scene(path: Path) -> trimesh.Scene:
    """A mesh file with its textures.

    Raises InputError for a colour texture that is missing, damaged or placed in a way that trimesh ignores, and for
    encodings of coordinates or colours that it misreads. A damaged file may raise anything.
    """
    shown, files, data, suffix = printable(path), _FilesBeside(path), path.read_bytes(), path.suffix.lower()
    wanted: set[str] = set()  # names of textures
    if suffix == ".obj":
        textures = _obj_textures(shown, trimesh.util.decode_text(data), files)
    elif suffix == ".ply":
        wanted = {name.decode().strip() for name in re.findall(rb"(?im)^comment[ \t]+texturefile(.*)$", data[:65536])}
    else:
        wanted = _gltf_textures(shown, data)
    scene = cast(trimesh.Scene, trimesh.load(path, force="scene", process=False, resolver=files))
    materials = [getattr(mesh.visual, "material", None) for mesh in scene.geometry.values()]
    images = [getattr(material, "baseColorTexture", getattr(material, "image", None)) for material in materials]
    if suffix == ".obj":
        named = [(getattr(material, "name", None), image) for material, image in zip(materials, images, strict=True)]
        wanted = {textures[name] for name, image in named if image is None and name in textures}
        images = []
    if len({id(image) for image in images if image is not None}) < len(wanted):
        names = " or ".join(printable(name[:200]) for name in sorted(wanted))
        raise InputError(f"{shown}: its texture {names} is not there or damaged; export the mesh with its textures")
    return scene


def _obj_textures(shown: str, text: str, files: _FilesBeside) -> dict[str, str]:
    """The colour texture of each material in the file's material library."""
    libraries = {name.strip() for name in re.findall(r"(?m)^[ \t]*mtllib[ \t]+(.*)$", text)}
    if not libraries or not re.search(r"(?m)^[ \t]*usemtl", text):
        return {}
    if len(libraries) > 1:
        raise InputError(f"{shown}: names {len(libraries)} mtllib, but only one would be read; join them")
    library = libraries.pop()
    try:
        lines = trimesh.util.decode_text(files.get(library))
    except OSError:
        raise InputError(
            f"{shown}: its mtllib {printable(library[:200])} is not there; put it beside the mesh"
        ) from None
    textures, material = {}, ""
    for key, value in re.findall(r"(?im)^[ \t]*(newmtl|map_kd)[ \t]+(.+)$", lines):
        if key.lower() == "newmtl":
            material = " ".join(value.split())
        else:
            textures[material] = value.strip()
    return textures


def _gltf_textures(shown: str, data: bytes) -> set[str]:
    """The names of the colour textures that primitives use. Raises InputError for what trimesh misreads."""
    if data.startswith(b"glTF"):
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]  # the first chunk is the JSON
    record = json.loads(data)
    for extension in record.get("extensionsRequired", []):
        if extension.endswith("_compression"):  # Draco's and meshopt's
            raise InputError(f"{shown}: is compressed ({printable(extension)}); export it without compression")
    primitives = [primitive for mesh in record.get("meshes", []) for primitive in mesh["primitives"]]
    for primitive in primitives:
        _check_numbers(shown, record, primitive)
    used = {primitive["material"] for primitive in primitives if "material" in primitive}
    numbers = {_image_number(shown, record, record["materials"][number]) for number in used}
    images = {number: record["images"][number].get("uri", "data:") for number in numbers if number is not None}
    return {f"image {number}" if uri.startswith("data:") else uri for number, uri in images.items()}


def _check_numbers(shown: str, record: dict[str, Any], primitive: dict[str, Any]) -> None:
    """Raises InputError for integers that stand for fractions, if trimesh does not convert them."""
    accessors = {name: record["accessors"][number] for name, number in primitive["attributes"].items()}
    types = {name: accessor["componentType"] for name, accessor in accessors.items()}
    misread = {
        "POSITION": accessors["POSITION"].get("normalized"),
        "TEXCOORD_0": "material" in primitive and types.get("TEXCOORD_0", FLOAT) != FLOAT,
        "COLOR_0": "material" not in primitive and types.get("COLOR_0") == UNSIGNED_SHORT,
    }
    wrong = [name for name, found in misread.items() if found]
    if wrong:
        raise InputError(f"{shown}: has {' and '.join(wrong)} in integers; export it with float attributes")


def _image_number(shown: str, record: dict[str, Any], material: dict[str, Any]) -> int | None:
    """The index in `images` of a material's colour texture; None without one."""
    if "diffuseTexture" in material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {}):
        raise InputError(
            f"{shown}: has KHR_materials_pbrSpecularGlossiness textures; export it with metal and roughness"
        )
    texture = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
    if texture is None:
        return None
    moved = texture.get("extensions", {}).get("KHR_texture_transform", {})
    if (moved.get("offset", [0, 0]), moved.get("scale", [1, 1]), moved.get("rotation", 0)) != ([0, 0], [1, 1], 0):
        raise InputError(f"{shown}: moves its textures (KHR_texture_transform); export it without that")
    channel = moved.get("texCoord", texture.get("texCoord", 0))
    if channel != 0:
        raise InputError(f"{shown}: a texture uses TEXCOORD_{channel}; export it with its colours in the first UV map")
    entry = record["textures"][texture["index"]]
    source = entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source", entry.get("source"))
    if source is None:
        raise InputError(f"{shown}: a texture is neither PNG, JPEG nor WebP; export it with PNG textures")
    return source
