"""Reads files of polygons: Wavefront's .obj with .mtl, .ply and .stl."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genvs.data.mesh.parts import PLAIN, Index, Paint, Part, Texture, find_beside, read_file, read_image, to_linear
from genvs.data.storage import printable
from genvs.data.synthetic.shading import Array
from genvs.errors import InputError

FREE_FORM = {"cstype", "curv", "curv2", "surf"}
PLY_TYPES = {"char": "int8", "uchar": "uint8", "short": "int16", "ushort": "uint16", "int": "int32", "uint": "uint32"}
PLY_TYPES |= {"float": "float32", "double": "float64"}


def read_obj(path: Path) -> Iterator[Part]:
    """The polygons of the file, a part for each material."""
    rows: dict[str, list[list[float]]] = {"v": [[np.nan] * 3], "vt": [[0, 0]], "vn": [[0, 0, 0]]}  # 0 is for none
    corners: list[list[int]] = [[], [], []]  # their rows, by kind
    sizes: list[int] = []
    groups: list[int] = []  # the material of each polygon
    materials: dict[tuple[str, bool], int] = {}  # with and without texture coordinates
    libraries: list[str] = []
    material = ""
    for key, rest in _lines(path):
        if key in rows:
            rows[key].append([*map(float, rest.partition("#")[0].split())])
        elif key == "f":
            words = rest.partition("#")[0]
            numbers = [*map(int, words.replace("//", "/0/").replace("/", " ").split())]
            sizes.append(len(words.split()))
            given = len(numbers) // sizes[-1]  # of v, vt and vn
            if "-" in words:
                counts = [*map(len, rows.values())]
                numbers = [n + counts[place % given] if n < 0 else n for place, n in enumerate(numbers)]
            for column, kind in enumerate(corners):
                kind += numbers[column::given] if column < given else [0] * sizes[-1]
            placed = given > 1 and numbers[1] != 0
            groups.append(materials.setdefault((material, placed), len(materials)))
        elif key == "usemtl":
            material = rest
        elif key == "mtllib":
            libraries += re.findall(r"\S.*?\.mtl\b", rest, re.IGNORECASE) or filter(None, [rest])
        elif key in FREE_FORM:
            raise InputError(f"{printable(path)}: has free-form surfaces ({key}); export it as polygons")
    point, place, normal = index = np.array(corners, dtype=int)
    if (index < 0).any():
        raise IndexError("a face before its vertices")
    points, uv, normals = (
        np.array([(row + [0])[:n] for row in rows[key]]) for key, n in (("v", 3), ("vt", 2), ("vn", 3))
    )
    colored = [row[3:6] if len(row) >= 6 else None for row in rows["v"]]
    tint = np.array([color or [1, 1, 1] for color in colored])
    tint = np.insert(to_linear(_fractions(tint)), 3, 1, axis=1)
    plain = np.full(3, 1 if any(colored) else PLAIN)
    found, textures = _materials(path, libraries, list(materials)), dict[tuple[Any, ...], Texture]()
    for group, faces in triangulate(points[point], sizes, groups):
        paint = _obj_paint(path, found[group], "kd", plain, uv[place[faces]], textures)
        glow = _obj_paint(path, found[group], "ke", np.zeros(3), uv[place[faces]], textures)
        if "map_kd" not in found[group]:  # beside a texture they are its colours again, in scans
            paint = paint._replace(colors=paint.colors * tint[point[faces]])
        yield Part(points[point[faces]], normals[normal[faces]], paint, glow)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The first word of each line, in lower case, and the rest. A backslash at its end continues a line."""
    text = read_file(path).decode("utf-8-sig", "surrogateescape").replace("\r", "\n").replace("\t", " ")
    for line in re.sub(r"\\ *\n+", " ", text).split("\n"):
        key, _, rest = line.strip().partition(" ")
        yield key.lower(), rest.strip()


def _materials(path: Path, libraries: list[str], used: list[tuple[str, bool]]) -> list[dict[str, Any]]:
    """The materials of these names, with textures or without. Faces that name none have the library's only one."""
    found: dict[str, dict[str, Any]] = {}
    material: dict[str, Any] = {}
    for name in libraries:
        library = find_beside(path, name)
        for key, rest in _lines(library):
            if key == "newmtl":
                material = found[rest] = {"folder": library.parent}
            elif key in ("kd", "ke", "d", "tr"):
                material[key] = rest.partition("#")[0]
            elif key in ("map_kd", "map_ke", "map_d"):
                material[key] = rest
    if len(found) < 2:
        found[""] = next(iter(found.values()), {})
    found.setdefault("(null)", {})  # Blender's word for none
    for name in (name for name, _ in used if name not in found):
        what = f"its material {printable(name)}" if name else "the material of faces without usemtl"
        known = printable(", ".join(libraries)) or "none"
        raise InputError(f"{printable(path)}: {what} is not known (mtllib: {known}); export the mesh with its .mtl")
    plain = {name: {key: material[key] for key in material if key[:4] != "map_"} for name, material in found.items()}
    return [(found if placed else plain)[name] for name, placed in used]


def _obj_paint(
    path: Path, material: dict[str, Any], key: str, plain: Array, uv: Array, textures: dict[tuple[Any, ...], Texture]
) -> Paint:
    """key: kd or ke. Beside a texture, its colour means nothing: exporters write any. plain: where there is neither.

    Kd's opacity is `d`, or 1 - `Tr`, times that of `map_d`. 0 is opaque, as 1 is: exporters confuse the two. textures:
    those that have been read, which materials may share.
    """
    color = np.array(material[key].split()[:3], dtype=float) * np.ones(3) if key in material else plain
    colors = Paint.plain(to_linear(_fractions(color)), len(uv)).colors
    named, mask = material.get(f"map_{key}", ""), material.get("map_d", "") if key == "kd" else ""
    if named:
        colors = np.ones_like(colors)
    if key == "kd":
        opacity = float(material["d"].split()[-1]) if "d" in material else 1 - float(material.get("tr", "0").split()[0])
        colors = colors * [1, 1, 1, opacity if 0 < opacity < 1 else 1]
    if not (named or mask):
        return Paint(colors, np.zeros((len(uv), 3, 2)))
    shared = named, mask, material["folder"]
    file, places, wrap = _obj_texture(path, named or mask, material["folder"], uv)
    if shared not in textures:
        image = read_image(path, file.name, read_file(file))
        if mask:
            image = _cut_out(path, image if named else None, file, _obj_texture(path, mask, material["folder"], uv)[0])
        textures[shared] = Texture(image, (wrap, wrap))
    return Paint(colors, places, textures[shared])


def _cut_out(path: Path, image: Image.Image | None, file: Path, mask: Path) -> Image.Image:
    """The image in `file`, white for None, with the alpha channel of another one or, if that is in a file of its own
    and has none, its brightness.
    """
    clear = read_image(path, mask.name, read_file(mask), "RGBA")
    alpha = clear.getchannel("A")
    if alpha.getextrema()[0] == 255 and not (image and mask == file):
        alpha = clear.convert("L")
    size = max(image.size, alpha.size) if image else alpha.size
    image = image.resize(size) if image else Image.new("RGB", size, "white")
    image.putalpha(alpha.resize(size))
    return image


def _obj_texture(path: Path, line: str, folder: Path, uv: Array) -> tuple[Path, Array, str]:
    """A texture's file, the coordinates `uv` as its options place them, and what lies beyond the image."""
    options: dict[str, list[str]] = {}
    while option := re.match(r"-(\w+)((?:\s+[-+]?[.\d][-+.\de]*){1,3}|\s+\S+)\s+", line):
        options[option[1]] = option[2].split()
        line = line[option.end() :]
    if {"mm", "t"} & options.keys():
        raise InputError(f"{printable(path)}: options -mm and -t of textures are not read; export it without them")
    scale, offset = ([*map(float, options.get(name, [])), *fill][:2] for name, fill in (("s", [1, 1]), ("o", [0, 0])))
    places = (uv * scale + offset) * [1, -1] + [0, 1]
    return find_beside(path, line, folder), places, "clamp" if options.get("clamp") == ["on"] else "repeat"


def _fractions(colors: Array) -> Array:
    """Some programs write colours from 0 to 255 where those from 0 to 1 belong."""
    return colors / (255 if colors.max(initial=0) > 2 else 1)


def read_ply(path: Path) -> Iterator[Part]:
    """The polygons of the file, a part for each texture. Beside a texture, colours mean nothing."""
    header, *body = re.split(rb"end_header *(?:\r?\n|\r)", read_file(path), maxsplit=1)
    lines = [line.split() for line in header.decode("utf-8", "surrogateescape").splitlines()]
    table = _ply_table(lines, b"".join(body))
    vertices, faces = table["vertex"], table.get("face", {})
    if "tristrips" in table:
        raise InputError(f"{printable(path)}: has strips of triangles; export its faces one by one")
    rows = faces.get("vertex_indices", faces.get("vertex_index", []))
    sizes = [len(row) for row in rows]
    index = np.concatenate([[], *rows]).astype(int)
    if (index < 0).any():
        raise IndexError("a face of a vertex with a negative number")
    places = (vertices, index), (faces, np.arange(len(rows)).repeat(sizes))

    def at_corners(*choices: str, otherwise: float) -> Array:
        """Columns of vertices or faces at the corners; the first choice that there is. Integers become fractions."""
        for names, (table, place) in itertools.product(map(str.split, choices), places):
            if names[0] in table:
                values = np.stack([np.ravel(table[name])[place] for name in names], -1)
                return values if values.dtype.kind == "f" else values / (255 if values.max(initial=0) < 256 else 65535)
        return np.full((sum(sizes), len(choices[0].split())), otherwise)

    points, normals = at_corners("x y z", otherwise=np.nan), at_corners("nx ny nz", otherwise=0)
    colors = at_corners("red green blue", "diffuse_red diffuse_green diffuse_blue", "r g b", otherwise=PLAIN)
    colors = np.insert(to_linear(_fractions(colors)), 3, 1, axis=1)
    uv = at_corners("s t", "u v", "texture_u texture_v", otherwise=np.nan)
    if "texcoord" in faces:
        uv = np.concatenate(faces["texcoord"]).reshape(-1, 2)
    names = [" ".join(line[2:]) for line in lines if [word.lower() for word in line[:2]] == ["comment", "texturefile"]]
    if len(names) > 1 and "texnumber" not in faces:
        raise InputError(
            f"{printable(path)}: has {len(names)} textures, but no texnumber of its faces; export it again"
        )
    numbers = np.ravel(faces["texnumber"]).tolist() if len(names) > 1 else [0] * len(rows)
    for number, corners in triangulate(points, sizes, numbers):
        paint = Paint(colors[corners], np.nan_to_num(uv[corners]) * [1, -1] + [0, 1])
        if 0 <= number < len(names) and not np.isnan(uv).any():
            image = read_image(path, names[number], read_file(find_beside(path, names[number])))
            paint = paint._replace(colors=np.ones_like(paint.colors), texture=Texture(image))
        yield Part(points[corners], normals[corners], paint)


def _ply_table(lines: list[list[str]], body: bytes) -> dict[str, dict[str, list[Any]]]:
    """The columns of each element by name: of numbers, or of arrays for properties that are lists."""
    text = ["format", "ascii", "1.0"] in lines
    order = ">" if ["format", "binary_big_endian", "1.0"] in lines else "<"
    body = np.array(body.split(), dtype="<f8").tobytes() if text else body
    at = 0

    def stored(kind: str) -> str:
        return "<f8" if text else order + np.dtype(PLY_TYPES.get(kind, kind)).str[1:]

    table: dict[str, dict[str, list[Any]]] = {}
    starts = [number for number, line in enumerate(lines) if line[:1] == ["element"]]
    for start, end in itertools.pairwise([*starts, len(lines)]):
        fields = [[*line[1:-1], line[-1].lower()] for line in lines[start:end] if line[:1] == ["property"]]
        columns = table[lines[start][1]] = {field[-1]: [] for field in fields}
        left = step = int(lines[start][2])
        while left:  # a run of rows with lists of the same lengths, which numpy reads at once
            row: list[Any] = []
            for *counted, kind, name in fields:
                shape: tuple[int, ...] = ()
                if counted:  # "list", and the type of its length
                    row.append((name + " length", stored(counted[1])))
                    shape = (int(np.ndarray(1, row, body, at)[name + " length"][0]),)
                row.append((name, stored(kind), shape))
            rows = np.ndarray(min(step, left, (len(body) - at) // np.dtype(row).itemsize), row, body, at)
            if not len(rows):
                raise EOFError("it ends too soon")
            same = np.ones(len(rows), dtype=bool)
            for length in (part[0] for part in row if part[0] not in columns):
                same &= rows[length] == rows[length][0]
            rows = rows[: len(rows) if same.all() else same.argmin()]
            left, step, at = left - len(rows), 4 * len(rows) + 8, at + rows.nbytes
            for *_, kind, name in fields:
                columns[name] += [*rows[name].astype(PLY_TYPES.get(kind, kind))]
    return table


def read_stl(path: Path) -> Iterator[Part]:
    """The triangles of the file, gray unless it is binary with colours as Magics or VisCAM write them."""
    data = read_file(path)
    colors = np.full((1, 3), PLAIN)
    count = int.from_bytes(data[80:84], "little")
    if len(data) >= 84 + 50 * count:  # in a text, the number would be huge
        dtype = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        facets = np.frombuffer(data, dtype, count, 84)
        corners, colors = facets["corners"], _stl_colors(data[:80], facets["attribute"])
    elif b"vertex" not in data.lower():
        raise EOFError("it ends too soon")
    else:
        corners = np.array(re.findall(rb"(?i)vertex\s+(\S+)\s+(\S+)\s+(\S+)", data), dtype=float).reshape(-1, 3, 3)
    colors = np.insert(np.broadcast_to(to_linear(colors), (len(corners), 3)), 3, 1, axis=1)
    yield Part(corners, 0 * corners, Paint(colors[:, None].repeat(3, axis=1), np.zeros((len(corners), 3, 2))))


def _stl_colors(header: bytes, attributes: Index) -> Array:
    """As displayed, `[F, 3]`: five bits for each channel, which count if the 16th bit is set (VisCAM) or, after
    `COLOR=` and the colour of all other facets in the header, if it is not (Magics).
    """
    shades, flagged = (attributes[:, None] >> [10, 5, 0] & 31) / 31, attributes[:, None] >= 1 << 15
    _, magics, color = header.partition(b"COLOR=")
    if not magics or not attributes.any():
        return np.where(flagged, shades, PLAIN)
    return np.where(flagged, np.frombuffer(color[:3], np.uint8) / 255, shades[:, ::-1])


def triangulate(corners: Array, sizes: list[int], groups: list[int]) -> Iterator[tuple[int, Index]]:
    """Cuts polygons into triangles `[T, 3]` of their corners, for each group of polygons.

    corners: `[C, 3]`, polygon by polygon. sizes, groups: of the polygons; those of fewer than 3 corners are left out.
    """
    size_of, starts = np.array(sizes, dtype=int), np.cumsum([0, *sizes])[:-1]
    triangles, group_of = [np.zeros((0, 3), int)], [np.zeros(0, int)]
    for size in np.unique(size_of[size_of > 2]):
        chosen = np.flatnonzero(size_of == size)
        index = starts[chosen, None] + np.arange(size)
        cut = np.stack([index[:, [0, second, second + 1]] for second in range(1, size - 1)], 1)
        if size > 3:
            edges = np.roll(corners[index], -1, axis=1) - corners[index]
            normals = np.cross(corners[index] - corners[index[:, :1]], edges).sum(1)  # twice the area long
            turns = (np.cross(np.roll(edges, 1, axis=1), edges) * normals[:, None]).sum(-1)
            for polygon in np.flatnonzero(turns.min(1) < -1e-6 * (normals**2).sum(-1)):
                cut[polygon] = index[polygon][_ears(corners[index[polygon]], normals[polygon])]
        triangles.append(cut.reshape(-1, 3))
        group_of.append(np.array(groups)[chosen].repeat(size - 2))
    all_triangles, all_groups = np.concatenate(triangles), np.concatenate(group_of)
    for group in dict.fromkeys(groups):
        yield group, all_triangles[all_groups == group]


def _ears(corners: Array, normal: Array) -> list[list[int]]:
    """Triangles of a concave polygon: corners whose triangle holds no other corner are cut off one by one."""
    axis = int(np.abs(normal).argmax())
    flat = corners[:, [(axis + 1) % 3, (axis + 2) % 3]] * [np.sign(normal[axis]), 1]  # counterclockwise
    rest, triangles, start = list(range(len(flat))), [], 0
    while len(rest) > 3:
        for number in range(start, start + len(rest)):
            ear = [rest[(number + step) % len(rest)] for step in (-1, 0, 1)]
            sides, across = np.roll(flat[ear], -1, axis=0) - flat[ear], flat[rest][:, None] - flat[ear]
            left = sides[:, 0] * across[..., 1] - sides[:, 1] * across[..., 0]  # of each side: [corners, 3]
            convex = sides[0, 0] * sides[1, 1] >= sides[0, 1] * sides[1, 0]
            if convex and left.min(1).max() <= 1e-9 * abs(normal[axis]):
                break
        triangles.append(ear)
        start = max(rest.index(ear[1]) - 1, 0)  # the next one is usually beside it
        rest.remove(ear[1])
    return [*triangles, rest]
