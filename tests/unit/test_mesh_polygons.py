"""What .obj, .ply and .stl files mean: each test writes one and looks at what is read."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genvs.data.mesh.model import PaintedMesh, load_mesh
from genvs.errors import InputError
from tests.unit.mesh_files import (
    CUBE,
    CUBE_FACES,
    LOW_LEFT,
    LOW_RIGHT,
    SQUARE,
    TOP_LEFT,
    TOP_RIGHT,
    area,
    assert_four_colors,
    color_at,
    colors_of,
    finish_seen,
    four_colors,
)

L_SHAPE = np.array([[0, 0, 0], [2, 0, 0], [2, 0.6, 0], [0.6, 0.6, 0], [0.6, 2, 0], [0, 2, 0]])
SQUARE_OBJ = "v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
FACE = "f 1/1 2/2 3/3 4/4\n"


def obj(path: Path, text: str, **files: str | bytes | Image.Image) -> Path:
    """An .obj and files beside it, with dots for the first double underscore of their names."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    for name, content in files.items():
        file = path.parent / name.replace("__", ".")
        content.save(file) if isinstance(content, Image.Image) else file.write_text(content)
    return path


# --- OBJ --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(6))
def test_concave_polygons_keep_their_outline(tmp_path, first):
    vertices = "".join(f"v {x} {y} {z}\n" for x, y, z in L_SHAPE)
    polygon = " ".join(str((first + i) % 6 + 1) for i in range(6))
    model = load_mesh(obj(tmp_path / "a.obj", f"{vertices}f {polygon}\n"), "y")
    assert area(model) == pytest.approx(2.04 / 8, rel=1e-5)
    assert np.ptp(np.sign(model.face_normals[:, 1])) == 0, "no triangle is turned over"


def test_a_wall_with_a_hole(tmp_path):
    """One polygon goes around the wall, in to the window, around it the other way, and back."""
    outer, inner = [(0, 0), (4, 0), (4, 3), (0, 3), (0, 0)], [(1, 1), (1, 2), (3, 2), (3, 1), (1, 1)]
    corners = outer + inner
    text = "".join(f"v {x} {y} 0\n" for x, y in corners) + f"f {' '.join(map(str, range(1, 11)))}\n"
    assert area(load_mesh(obj(tmp_path / "a.obj", text), "y")) == pytest.approx(10 / 25, rel=1e-5)


OBJ_SQUARES = {
    "plain": f"mtllib a.mtl\nusemtl p\n{SQUARE_OBJ}{FACE}",
    "no usemtl": f"mtllib a.mtl\n{SQUARE_OBJ}{FACE}",
    "negative": f"mtllib a.mtl\nusemtl p\n{SQUARE_OBJ}f -4/-4 -3/-3 -2/-2\nf -4/-4 -2/-2 -1/-1\n",
    "Windows": f"mtllib .\\a.mtl\nusemtl p\n{SQUARE_OBJ}{FACE}".replace("\n", "\r\n"),
    "continued": f"mtllib a.mtl\nusemtl p\n{SQUARE_OBJ}f 1/1 2/2 \\\n 3/3 4/4\n",
    "groups": f"mtllib a.mtl\no house\ng wall\ns 1\nusemtl p\n{SQUARE_OBJ}{FACE}l 1 2\np 1\n# f 1 2\n",
    "two libraries": f"mtllib a.mtl b c.mtl\nusemtl p\n{SQUARE_OBJ}{FACE}",
    "tabs": f"MTLLIB a.mtl\nusemtl p\n{SQUARE_OBJ.upper()}{FACE.upper()}".replace(" ", "\t").replace("F\t", "F\t\t"),
}


@pytest.mark.parametrize("kind", OBJ_SQUARES)
def test_ways_to_write_an_obj(tmp_path, kind):
    files = {"a__mtl": "newmtl p\nKd 0.2 0.2 0.2\nmap_Kd t.png\n", "t__png": four_colors(), "b c__mtl": "newmtl q\n"}
    assert_four_colors(load_mesh(obj(tmp_path / "a.obj", OBJ_SQUARES[kind], **files), "y"), BEHIND)


BEHIND = (TOP_RIGHT, TOP_LEFT, LOW_RIGHT, LOW_LEFT)  # seen from an .obj's front, -z


@pytest.mark.parametrize(
    "name",
    ["maps\\t 1.png", "./maps/t 1.png", "Maps/T 1.PNG", "C:\\me\\t 1.png", "file:///me/maps/t 1.png", '"maps/t 1.png"'],
)
def test_ways_to_name_a_texture(tmp_path, name):
    """There is another texture of the same name where it is not meant."""
    (tmp_path / "maps").mkdir()
    images = [four_colors(), Image.new("RGB", (4, 4))]
    for folder, image in zip((tmp_path / "maps", tmp_path), images if "aps" in name else images[::-1], strict=True):
        image.save(folder / "t 1.png")
    path = obj(tmp_path / "a.obj", OBJ_SQUARES["plain"], a__mtl=f"newmtl p\nmap_Kd {name}\n")
    assert_four_colors(load_mesh(path, "y"), BEHIND)


def test_options_of_a_texture(tmp_path):
    (tmp_path / "maps").mkdir()
    four_colors().save(tmp_path / "maps" / "t.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "t.png")  # of the same name, in the wrong place

    def read(options):
        mtl = f"newmtl p\nmap_Kd {options} maps/t.png\n"
        return load_mesh(obj(tmp_path / "a.obj", OBJ_SQUARES["plain"], a__mtl=mtl), "y")

    assert_four_colors(read("-blendu on -bm 0.5 -texres 512 -imfchan l"), BEHIND)
    tiled = read("-s 2.0 2.0 1.0")
    across = [color_at(tiled, x, 0.75) for x in (-0.75, -0.25, 0.25, 0.75)]
    np.testing.assert_allclose(across, [TOP_RIGHT, TOP_LEFT] * 2, atol=2)
    assert_four_colors(read("-o 0.5 0 0"), (TOP_LEFT, TOP_RIGHT, LOW_LEFT, LOW_RIGHT))
    clamped = read("-clamp on -s 2 2")
    across = [color_at(clamped, x, -0.75) for x in (-0.75, -0.25, 0.25, 0.75)]
    np.testing.assert_allclose(across, [LOW_RIGHT] * 3 + [LOW_LEFT], atol=2)
    with pytest.raises(InputError, match="a.obj: .*-mm"):
        read("-mm 0.1 2")


def test_an_objs_colours(tmp_path):
    mtl = "newmtl red\nKd 1 0 0\nKe 0 0 1\nnewmtl green\nKd 0 1 0\n"
    text = f"mtllib a.mtl\n{SQUARE_OBJ}usemtl red\nf 1 2 3\nusemtl green\nf 1 3 4\n"
    model = load_mesh(obj(tmp_path / "a.obj", text, a__mtl=mtl), "y")
    np.testing.assert_allclose(colors_of(model), [[255, 0, 0], [0, 255, 0]], atol=1)
    glow = model.finish_at(np.array([0, 1]), *np.full((3, 2), 0.3, dtype=np.float32))[:, 5:8]
    np.testing.assert_allclose(glow, [[0, 0, 1], [0, 0, 0]], atol=1e-3)
    vertices = "".join(f"v {x} {y} 0 1 0.5 0\n" for x, y in SQUARE[:, :2])
    for colored in (f"{vertices}f 1 2 3 4\n", vertices.replace("0.5 0", "0.5 0 1") + "f 1 2 3\n"):
        assert_allclose_all(load_mesh(obj(tmp_path / "b.obj", colored), "y"), [255, 128, 0])
    faces = FACE, "usemtl (null)\nf 1 2 3 4\n"
    plain = [load_mesh(obj(tmp_path / "c.obj", SQUARE_OBJ + face), "y") for face in faces]
    np.testing.assert_allclose(colors_of(plain[0]), colors_of(plain[1]))


CUT = Image.fromarray(np.tri(8, dtype=np.uint8) * 255)  # dark at the upper right, which is seen from behind
LEAF = Image.merge("RGBA", [*Image.new("RGB", CUT.size, (60, 60, 60)).split(), CUT])
OPACITIES = {  # of a material with these lines, at the lower left and at the upper right of its texture
    "d 0.25": (0.25, 0.25),
    "Tr 0.75": (0.25, 0.25),
    "d -halo 0.25 # glass\nTr 0.3": (0.25, 0.25),
    "d 1\nTr 1": (1, 1),
    "d 0": (1, 1),
    "map_Kd leaf.png": (1, 1),
    "map_Kd leaf.png\nmap_d leaf.png": (1, 0),
    "map_Kd plain.png\nmap_d leaf.png\nd 0.5": (0.5, 0),
    "map_Kd plain.png\nmap_d -imfchan m cut.png": (1, 0),
    "map_d cut.png": (1, 0),
    "map_Kd plain.png\nmap_d plain.png": (1, 1),
}


@pytest.mark.parametrize("lines", OPACITIES)
def test_materials_that_are_seen_through(tmp_path, lines):
    """A leaf is cut out by the alpha channel of its texture, or by the brightness of another one."""
    files = {"leaf__png": LEAF, "plain__png": Image.new("RGB", (4, 4), (60, 60, 60)), "cut__png": CUT}
    path = obj(tmp_path / "a.obj", OBJ_SQUARES["plain"], a__mtl=f"newmtl p\nKd 0.235 0.235 0.235\n{lines}\n", **files)
    model = load_mesh(path, "y")
    seen = [finish_seen(model, 0.5, -0.5), finish_seen(model, -0.5, 0.5)]
    np.testing.assert_allclose(np.multiply([finish[:3] for finish in seen], 255), 60, atol=1)
    np.testing.assert_allclose([[*finish, 1][8 if len(finish) > 8 else -1] for finish in seen], OPACITIES[lines])


def test_materials_share_a_texture_beside_which_colours_of_vertices_mean_nothing(tmp_path):
    text = f"mtllib a.mtl\n{SQUARE_OBJ}usemtl p\nf 1/1 2/2 3/3\nusemtl q\nf 1/1 3/3 4/4\n".replace("0\nv", "0 0 0 0\nv")
    mtl = "newmtl p\nmap_Kd t.png\nnewmtl q\nKd 0 0 0\nmap_Kd t.png\n"
    model = load_mesh(obj(tmp_path / "a.obj", text, a__mtl=mtl, t__png=four_colors()), "y")
    assert len(model.paint.textures) == 1
    assert_four_colors(model, BEHIND)


def test_a_colour_of_one_number_and_a_texture_of_a_windows_program(tmp_path):
    """The name of the texture is not in UTF-8."""
    assert_allclose_all(
        load_mesh(obj(tmp_path / "a.obj", OBJ_SQUARES["plain"], a__mtl="newmtl p\nKd 1\n"), "y"), [255] * 3
    )
    four_colors().save(tmp_path / "grün.png")
    (tmp_path / "a.mtl").write_bytes("newmtl p\nmap_Kd grün.png\n".encode("cp1252"))
    assert_four_colors(load_mesh(tmp_path / "a.obj", "y"), BEHIND)


def test_faces_without_texture_coordinates_have_the_materials_colour(tmp_path):
    text = f"mtllib a.mtl\nusemtl p\n{SQUARE_OBJ}vn 0 0 1\nf 1//1 2//1 3//1\nf 1 3 4\n"
    mtl = "newmtl p\nKd 1 0 0\nmap_Kd t.png\n"
    model = load_mesh(obj(tmp_path / "a.obj", text, a__mtl=mtl, t__png=Image.new("RGB", (8, 8), "blue")), "y")
    assert_allclose_all(model, [255, 0, 0])


def test_colours_up_to_255_and_a_library_without_a_name(tmp_path):
    text = f"mtllib\nmtllib a.mtl\nusemtl p\n{SQUARE_OBJ}{FACE}"
    assert_allclose_all(load_mesh(obj(tmp_path / "a.obj", text, a__mtl="newmtl p\nKd 255 128 0\n"), "y"), [255, 128, 0])


def test_textures_in_floating_point_are_refused(tmp_path):
    texture = Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32))
    path = obj(tmp_path / "a.obj", OBJ_SQUARES["plain"], a__mtl="newmtl p\nmap_Kd t.tif\n", t__tif=texture)
    with pytest.raises(InputError, match="a.obj: .*t.tif .*floating point"):
        load_mesh(path, "y")


def assert_allclose_all(model: PaintedMesh, color: list[int]) -> None:
    np.testing.assert_allclose(colors_of(model), [color] * len(model.corners), atol=1)


BAD_OBJ = {
    "no library": (f"usemtl p\n{SQUARE_OBJ}{FACE}", "material p"),
    "library gone": (f"mtllib gone.mtl\nusemtl p\n{SQUARE_OBJ}{FACE}", "gone.mtl is not there"),
    "other name": (f"mtllib a.mtl\nusemtl body\n{SQUARE_OBJ}{FACE}", "material body .*a.mtl"),
    "which one": (f"mtllib a.mtl\n{SQUARE_OBJ}{FACE}", "faces without usemtl"),
    "free form": (f"{SQUARE_OBJ}cstype bezier\nsurf 0 1 0 1 1 2 3 4\n", "free-form"),
    "no such vertex": (f"{SQUARE_OBJ}f 1 2 9\n", "cannot be read"),
    "before the first": (f"{SQUARE_OBJ}f 1 2 -9\n", "cannot be read"),
    "number 0": (f"{SQUARE_OBJ}f 0 1 2\n", "not finite"),
}


@pytest.mark.parametrize("kind", BAD_OBJ)
def test_objs_that_are_refused(tmp_path, kind):
    text, reason = BAD_OBJ[kind]
    path = obj(tmp_path / "a.obj", text, a__mtl="newmtl p\nnewmtl q\n")
    with pytest.raises(InputError, match=f"a.obj: .*{reason}"):
        load_mesh(path, "y")


# --- PLY and STL ------------------------------------------------------------------------------------------------------


def header(kind: str, *lines: str) -> bytes:
    return "\n".join(["ply", f"format {kind} 1.0", *lines, "end_header\n"]).encode()


def ascii_ply(path: Path, lines: list[str], rows: list[str]) -> PaintedMesh:
    path.write_bytes(header("ascii", *lines) + "\n".join(rows).encode())
    return load_mesh(path, "y")


XYZ = ("property float x", "property float y", "property float z")


@pytest.mark.parametrize(("kind", "order"), [("binary_little_endian", "<"), ("binary_big_endian", ">")])
def test_a_binary_ply_of_triangles_and_larger_polygons(tmp_path, kind, order):
    """An L and a triangle beside it, in different colours."""
    lines = ["element vertex 9", *XYZ, "element face 2", "property list uchar int vertex_indices"]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    vertices = np.concatenate([L_SHAPE, [[1, 1, 0], [2, 1, 0], [2, 2, 0]]])
    body = vertices.astype(order + "f4").tobytes()
    body += struct.pack(f"{order}B6i3B", 6, 1, 2, 3, 4, 5, 0, 255, 0, 0) + struct.pack(
        f"{order}B3i3B", 3, 6, 7, 8, 0, 255, 0
    )
    (tmp_path / "a.ply").write_bytes(header(kind, *lines) + body)
    model = load_mesh(tmp_path / "a.ply", "z")
    assert area(model) == pytest.approx((2.04 + 0.5) / 8, rel=1e-5)
    red = np.linalg.norm(model.face_normals, axis=1)[colors_of(model)[:, 0] > 254].sum() / 2
    assert red == pytest.approx(2.04 / 8, rel=1e-5)
    for left in (len(body) - 1, 50):
        (tmp_path / "b.ply").write_bytes(header(kind, *lines) + body[:left])
        with pytest.raises(InputError, match="b.ply: cannot be read"):
            load_mesh(tmp_path / "b.ply", "z")


@pytest.mark.parametrize("of_faces", [False, True])
def test_a_textured_ply(tmp_path, of_faces):
    four_colors().save(tmp_path / "t.png")
    uv = [(0, 0), (1, 0), (1, 1), (0, 1)]
    lines = ["comment TextureFile t.png", "element vertex 4", *XYZ]
    rows = [f"{x} {y} 0" for x, y in SQUARE[:, :2]]
    if of_faces:
        lines += ["element face 1", "property list uchar int vertex_index", "property list uchar float texcoord"]
        face = "4 0 1 2 3 8 " + " ".join(f"{u} {v}" for u, v in uv)
    else:
        lines += ["property float s", "property float t", "element face 1", "property list uchar int vertex_index"]
        rows, face = [f"{row} {u} {v}" for row, (u, v) in zip(rows, uv, strict=True)], "4 0 1 2 3"
    assert_four_colors(ascii_ply(tmp_path / "a.ply", lines, [*rows, face]), BEHIND)


def test_a_ply_of_several_textures_says_which_a_face_has(tmp_path):
    lines = ["comment TextureFile a.png", "comment TextureFile b.png", "element vertex 4", *XYZ]
    lines += ["property float s", "property float t", "element face 1", "property list uchar int vertex_index"]
    rows = [f"{x} {y} 0 0 0" for x, y in SQUARE[:, :2]]
    for name, color in (("a", (200, 0, 0)), ("b", (0, 200, 0))):
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="a.ply: has 2 textures, but no texnumber"):
        ascii_ply(tmp_path / "a.ply", lines, [*rows, "4 0 1 2 3"])
    lines.append("property int texnumber")
    assert_allclose_all(ascii_ply(tmp_path / "a.ply", lines, [*rows, "4 0 1 2 3 1"]), [0, 200, 0])


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_of_a_plys_header(tmp_path, line_end):
    lines = ["element vertex 4", *XYZ, "element face 1", "property list uchar int vertex_indices"]
    head = header("binary_little_endian", *lines).replace(b"\n", line_end)
    (tmp_path / "a.ply").write_bytes(head + SQUARE.tobytes() + struct.pack("<B4i", 4, 0, 1, 2, 3))
    assert area(load_mesh(tmp_path / "a.ply", "y")) == pytest.approx(0.5)


PLY_COLORS = {
    "a texture, but no coordinates": ("red green blue", "uchar", "255 128 0", "comment TextureFile gone.png"),
    "short names": ("r g b", "uchar", "255 128 0", "comment"),
    "floats up to 255": ("red green blue", "float", "255 128 0", "comment"),
    "whole numbers of four bytes": ("red green blue", "int", "255 128 0", "comment"),
    "floats up to 1": ("Red Green Blue", "float", "1 0.5 0", "comment"),
}


@pytest.mark.parametrize("kind", PLY_COLORS)
def test_a_plys_colours(tmp_path, kind):
    names, number, color, comment = PLY_COLORS[kind]
    lines = [comment, "element vertex 4", *XYZ, *(f"property {number} {name}" for name in names.split())]
    lines += ["element face 1", "property list uchar int vertex_index"]
    rows = [f"{x} {y} 0 {color}" for x, y in SQUARE[:, :2]]
    assert_allclose_all(ascii_ply(tmp_path / "a.ply", lines, [*rows, "4 0 1 2 3"]), [255, 128, 0])
    with pytest.raises(InputError, match="a.ply: cannot be read .*negative"):
        ascii_ply(tmp_path / "a.ply", lines, [*rows, "4 0 1 2 -1"])


def test_stl_as_text_and_binary(tmp_path):
    triangles = CUBE[CUBE_FACES]
    facets = [f"facet normal 0 0 0\nouter loop\n{vs}endloop\nendfacet\n" for vs in map(stl_vertices, triangles)]
    (tmp_path / "a.stl").write_text(f"solid cube\n{''.join(facets)}endsolid cube\n")
    dtype = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    records = np.zeros(len(triangles), dtype=dtype)
    records["corners"] = triangles
    (tmp_path / "b.stl").write_bytes(bytes(80) + struct.pack("<I", len(triangles)) + records.tobytes())
    for name in ("a.stl", "b.stl"):
        assert area(load_mesh(tmp_path / name, "z")) == pytest.approx(6 / 3, rel=1e-5)
    (tmp_path / "c.stl").write_bytes((tmp_path / "b.stl").read_bytes()[:-1])
    with pytest.raises(InputError, match="c.stl: cannot be read .*too soon"):
        load_mesh(tmp_path / "c.stl", "z")


@pytest.mark.parametrize(
    ("head", "facets", "expected"),
    [
        (b"", [1 << 15 | 31 << 10, 0], [(255, 0, 0), (153, 153, 153)]),  # VisCAM's
        (b"COLOR=\0\xff\0\xff", [31, 1 << 15], [(255, 0, 0), (0, 255, 0)]),  # Magics'
        (b"COLOR=\0\xff\0\xff", [0, 0], [(153, 153, 153)] * 2),
        (b"solid of numbers without a meaning", [7, 7], [(153, 153, 153)] * 2),
    ],
)
def test_colours_of_a_binary_stl(tmp_path, head, facets, expected):
    records = np.zeros(2, dtype=[("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    records["corners"], records["attribute"] = CUBE[CUBE_FACES[:2]], facets
    (tmp_path / "a.stl").write_bytes(head.ljust(80) + struct.pack("<I", 2) + records.tobytes())
    np.testing.assert_allclose(colors_of(load_mesh(tmp_path / "a.stl", "z")), expected, atol=1)


def stl_vertices(triangle: np.ndarray) -> str:
    return "".join(f"vertex {x} {y} {z}\n" for x, y, z in triangle)
