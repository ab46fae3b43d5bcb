"""Meshes drawn into SRN's layout: colours, textures, axes, normals, and the command."""

import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.config import SceneConfig
from genvs.data.mesh.__main__ import main
from genvs.data.mesh.dataset import ensure_meshes
from genvs.data.mesh.model import PaintedMesh, creased_normals, load_mesh
from genvs.data.mesh.parts import Texture
from genvs.data.stored import StoredScenes
from genvs.data.synthetic.shading import render
from genvs.errors import InputError
from genvs.geometry import project
from genvs.geometry.trajectories import spherical_c2w
from tests.unit.mesh_files import (
    CUBE,
    CUBE_FACES,
    LOW_LEFT,
    LOW_RIGHT,
    SQUARE,
    SQUARE_FACES,
    TOP_LEFT,
    TOP_RIGHT,
    colors_of,
    four_colors,
    read_gltf,
    write_gltf,
    write_obj,
    write_ply,
)

CARS = SceneConfig()
SIDE = 33


def seen_from(model: PaintedMesh, azimuth: float, elevation: float = 0.0) -> np.ndarray:
    """The image of a camera, `[SIDE, SIDE, 3]`."""
    c2w = spherical_c2w(torch.tensor([azimuth]).double(), torch.tensor([elevation]).double(), CARS.radius)
    return next(iter(render(model, c2w.numpy(), CARS.focal * SIDE, SIDE)))[0].astype(int)


def hue(pixel: np.ndarray) -> np.ndarray:
    """A colour whatever its brightness."""
    return pixel / np.linalg.norm(pixel)


# --- colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "front"),
    [
        (lambda folder: write_gltf(folder / "a.gltf", image=four_colors()), 1),
        (lambda folder: write_obj(folder / "a.obj"), -1),
    ],
)
def test_a_texture_is_neither_turned_nor_mirrored(tmp_path, write, front):
    """A square in the plane z = 0 of the file, which faces +z: glTF's front, and the back in ShapeNet's files."""
    image = seen_from(load_mesh(write(tmp_path), "y"), azimuth=front * math.pi / 2)
    middle, step = SIDE // 2, 4
    for row, column, color in [(-1, -1, TOP_LEFT), (-1, 1, TOP_RIGHT), (1, -1, LOW_LEFT), (1, 1, LOW_RIGHT)]:
        np.testing.assert_allclose(hue(image[middle + row * step, middle + column * step]), hue(color), atol=0.03)
    mirrored = seen_from(load_mesh(write(tmp_path), "y"), azimuth=-front * math.pi / 2)
    np.testing.assert_allclose(hue(mirrored[middle - step, middle - step]), hue(TOP_RIGHT), atol=0.03)


def test_a_texture_is_read_between_the_centres_of_its_texels_and_repeats():
    texels = np.array([[[0], [100]], [[50], [250]]], dtype=np.uint8).repeat(3, axis=2)
    at = [((0.25, 0.25), 0), ((0.75, 0.25), 100), ((0.25, 0.75), 50), ((0.5, 0.25), 50), ((0.5, 0.5), 100)]
    at += [((1.75, 1.25), 100), ((-0.75, -2.25), 50), ((0.0, 0.25), 50), ((0.25, 0.0), 25)]
    uv = np.array([uv for uv, _ in at], dtype=np.float32)
    found = 255 * Texture(Image.fromarray(texels)).sample(uv, np.zeros(len(uv)))
    np.testing.assert_allclose(found[:, 0], [value for _, value in at], atol=1e-4)
    nearest = 255 * Texture(Image.fromarray(texels), smooth=False).sample(uv[:4] + 0.2, np.zeros(4))
    np.testing.assert_allclose(nearest[:, 0], [0, 100, 50, 100], atol=1e-4)


def test_a_fine_pattern_is_its_mean_from_afar(tmp_path):
    """A board of 512 x 512 black and white fields on 20 x 20 pixels, from in front and aslant: gray, without specks."""
    fields = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    path = write_gltf(tmp_path / "a.gltf", image=Image.fromarray(fields))
    model = load_mesh(path, "y")
    for azimuth in (math.pi / 2, 1.1, 0.7):
        pixels = seen_from(model, azimuth)[SIDE // 2 - 4 : SIDE // 2 + 5, SIDE // 2 - 2 : SIDE // 2 + 3]
        assert pixels.std() < 3 and 50 < pixels.mean() < 160


def test_gltfs_factors_and_vertex_colors_are_linear_light(tmp_path):
    """0.5 in linear light is displayed as 188 of 255 (IEC 61966-2-1); textures are stored as displayed."""
    half = {"pbrMetallicRoughness": {"baseColorFactor": [0.5, 1.0, 0.0, 1.0]}}
    plain = read_gltf(tmp_path / "a.gltf", material=half)
    np.testing.assert_allclose(colors_of(plain), [[188, 255, 0]] * 2, atol=1)
    vertex = {"COLOR_0": np.full((4, 3), 0.5, dtype=np.float32), "TEXCOORD_0": np.full((4, 2), 0.25, np.float32)}
    both = read_gltf(tmp_path / "b.gltf", material=half, attributes=vertex, image=four_colors())
    linear = (np.array(TOP_LEFT) / 255 + 0.055) / 1.055
    expected = linear**2.4 * [0.25, 0.5, 0.0]
    displayed = [1.055 * value ** (1 / 2.4) - 0.055 if value > 0.0031308 else 12.92 * value for value in expected]
    np.testing.assert_allclose(colors_of(both), 255 * np.array([displayed] * 2), atol=1.5)


def test_vertex_colors_of_a_ply_are_as_displayed_and_blend(tmp_path):
    colors = np.array([[255, 0, 0], [255, 0, 0], [255, 0, 0], [0, 0, 90]], dtype=np.uint8)
    model = load_mesh(write_ply(tmp_path / "a.ply", SQUARE, SQUARE_FACES, colors), "z")
    first, second = colors_of(model)
    np.testing.assert_allclose(first, [255, 0, 0], atol=1)
    assert 200 < second[0] < 230 and 40 < second[2] < 60  # two thirds and one third, in linear light
    gray = colors_of(load_mesh(write_ply(tmp_path / "b.ply", SQUARE, SQUARE_FACES), "z"))
    assert np.ptp(gray) < 1 and 120 < gray[0, 0] < 180


# --- place, axes, normals ---------------------------------------------------------------------------------------------


def test_axes_place_and_size(tmp_path):
    """A box of 2 x 1 x 4, 3 away from its origin; the node that holds it is turned, shifted and scaled."""
    box = (CUBE - 0.5) * [2, 1, 4] + [3, 0, 0]
    model = read_gltf(tmp_path / "a.gltf", box, CUBE_FACES)
    size = np.array([2, 4, 1]) / math.sqrt(21)
    np.testing.assert_allclose(model.bounds, [-size / 2, size / 2], atol=1e-6)
    half_turn = {"rotation": [0, math.sqrt(0.5), 0, math.sqrt(0.5)], "translation": [9, 9, 9], "scale": [2, 2, 4]}
    turned = read_gltf(tmp_path / "b.gltf", box, CUBE_FACES, node=half_turn)
    size = np.array([16, 4, 2]) / math.sqrt(276)
    np.testing.assert_allclose(turned.bounds, [-size / 2, size / 2], atol=1e-6)
    upright = load_mesh(write_ply(tmp_path / "a.ply", box, CUBE_FACES), "z")
    np.testing.assert_allclose(upright.bounds[1] * 2 * math.sqrt(21), [2, 1, 4], atol=1e-5)


def test_normals_are_smooth_but_for_creases():
    cube = creased_normals(CUBE[CUBE_FACES].astype(float))
    assert np.abs(cube).max(-1).min() > 1 - 1e-6, "a cube's faces are flat"
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    low, high = ring, ring + [0, 0, 1]
    following = np.roll(np.arange(24), -1)
    tube = np.concatenate(
        [np.stack([low, low[following], high], 1), np.stack([low[following], high[following], high], 1)]
    )
    normals = creased_normals(tube)
    outwards = tube * [1, 1, 0]
    assert (normals * outwards).sum(-1).min() > 0.995, "a tube is round"


def test_what_is_not_seen_takes_no_place(tmp_path):
    """A face without area and one that is clear, both far away, do not shrink the rest."""
    far = np.concatenate([CUBE, [[900, 0, 0], [900, 900, 900], [1800, 1800, 1800]]])
    line = np.concatenate([CUBE_FACES, [[8, 8, 8], [8, 9, 9], [0, 9, 10]]])

    def change(record, add):
        clear = {"alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0]}}
        record["materials"].append(clear)
        record["meshes"][0]["primitives"].append(
            {"attributes": {"POSITION": add(1e3 * SQUARE)}, "material": 1, "mode": 6}
        )

    model = read_gltf(tmp_path / "a.gltf", far, line, change=change)
    cube = model.corners[:12].reshape(-1, 3)
    np.testing.assert_allclose(np.ptp(cube, axis=0), 3**-0.5, rtol=1e-5)
    np.testing.assert_allclose(model.bounds, [cube.min(0), cube.max(0)])


def test_both_sides_are_lit_as_they_are_seen(tmp_path):
    """The same square, wound the other way, looks the same: what counts is the side that is looked at."""
    images = []
    for name, faces in (("a", SQUARE_FACES), ("b", SQUARE_FACES[:, ::-1])):
        model = read_gltf(tmp_path / f"{name}.gltf", SQUARE, faces.copy())
        images.append([seen_from(model, azimuth) for azimuth in (1.2, -1.2)])
    for one, other in zip(*images, strict=True):
        assert np.array_equal(one, other) and one[SIDE // 2, SIDE // 2, 0] < 250
    assert not np.array_equal(images[0][0], images[0][1])


def test_the_normals_of_a_file_are_used(tmp_path):
    slanted = np.array([[0.0, 0.6, 0.8]] * 4, dtype=np.float32)
    model = read_gltf(tmp_path / "a.gltf", attributes={"NORMAL": slanted})
    np.testing.assert_allclose(model.normals.reshape(-1, 3), [[0, 0.8, 0.6]] * 6, atol=1e-6)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_split_that_trains(tmp_path, capsys):
    write_gltf(tmp_path / "tall box.gltf", CUBE * [1, 3, 1], CUBE_FACES)
    write_obj(tmp_path / "square.obj")
    out = tmp_path / "things_train"
    options = ["--out", str(out), "--views", "3", "--resolution", "32", "--workers", "1"]
    main([*options, str(tmp_path)])
    assert capsys.readouterr().out == f"Finished: 2 scenes in {out}\n"
    dataset = StoredScenes(out, resolution=32)
    assert dataset.scene_names == ["square", "tall box"] and dataset.num_views(0) == 3
    assert (dataset.scene_config().near, dataset.scene_config().far) == (0.8, 1.8)
    record = json.loads((out / "tall box" / "scene.json").read_text())
    assert record["mesh"] == "tall box.gltf" and record["triangles"] == 12
    views = dataset.load(1, range(3))
    corners = torch.from_numpy((CUBE - 0.5) * [1, 1, 3] / math.sqrt(11)).float()  # upright, of diagonal 1
    uv, depth = project(corners.expand(3, -1, -1), views.cameras)
    assert depth.min() > 0.8 and depth.max() < 1.8
    dark = views.images.float().mean(1) < 250
    for view in range(3):
        rows, columns = torch.nonzero(dark[view], as_tuple=True)
        for found, expected in ((columns, uv[view, :, 0]), (rows, uv[view, :, 1])):
            assert abs(int(found.min()) - 32 * float(expected.min())) < 1.5
            assert abs(int(found.max()) + 1 - 32 * float(expected.max())) < 1.5

    write_ply(tmp_path / "more.ply", SQUARE, SQUARE_FACES)
    ensure_meshes(out, [tmp_path], views=3, resolution=32)
    assert (out / "more" / "rgb" / "000002.png").exists()
    with pytest.raises(InputError, match="things_train: made with up y, not z"):
        ensure_meshes(out, [tmp_path], views=3, resolution=32, up="z")


def changed(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def textured(path: Path, old: str = "", new: str = "", **options) -> None:
    """A glTF with a texture, after a change to its text."""
    write_gltf(path, image=four_colors(), **options)
    changed(path, old, new)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 132\n"


PLY = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\n"
LIST = "property list int int vertex_indices\n"


def with_a_file(record, add) -> None:
    record["images"] = [{"uri": "pointer.gltf.png"}]


BAD_MESHES = {
    "empty.ply": (lambda path: path.write_bytes(b""), "cannot be read"),
    "points.ply": (lambda path: write_ply(path, SQUARE, np.zeros((0, 3), dtype=int)), "holds no visible triangles"),
    "nan.ply": (lambda path: write_ply(path, SQUARE * np.nan, SQUARE_FACES), "not finite"),
    "strips.ply": (
        lambda path: path.write_text(f"{PLY}element tristrips 0\n{LIST}end_header\n"),
        "strips of triangles",
    ),
    "nan.gltf": (lambda path: write_gltf(path, material={"emissiveFactor": [1, 0, np.nan]}), "not finite"),
    "line.ply": (lambda path: write_ply(path, SQUARE, SQUARE_FACES[:, [0, 1, 1]]), "area 0"),
    "gone.gltf": (lambda path: textured(path, "data:image/png;base64,", "gone"), "gone.* is not there"),
    "damaged.gltf": (lambda path: textured(path, "iVBORw0KGgo", "iVBORw0KGGG"), "its texture image 0 .*damaged"),
    "ktx2.gltf": (lambda path: textured(path, '{"source": 0}', '{"name": "KTX2"}'), "use PNG"),
    "draco.gltf": (
        lambda path: textured(path, '"scene"', '"extensionsRequired": ["KHR_draco_mesh_compression"], "scene"'),
        "needs KHR_draco_mesh_compression",
    ),
    "old.gltf": (lambda path: textured(path, '"version": "2.0"', '"version": "1.0"'), "glTF 1.0"),
    "older.gltf": (lambda path: path.write_text('{"scene": "s", "meshes": {}}'), "glTF 1.0"),
    "pointer.obj": (lambda path: path.write_bytes(LFS_POINTER), "Git LFS"),
    "pointer.gltf": (
        lambda path: (
            path.with_name("pointer.gltf.png").write_bytes(LFS_POINTER)
            and write_gltf(path, image=four_colors(), change=with_a_file)
        ),
        "gltf.png: is a pointer of Git LFS",
    ),
    "cut.glb": (lambda path: write_gltf(path) and path.write_bytes(path.read_bytes()[:-8]), "cannot be read"),
    "no mtl.obj": (lambda path: write_obj(path).with_suffix(".mtl").unlink(), "no mtl.mtl is not there"),
}


@pytest.mark.parametrize("name", BAD_MESHES)
def test_bad_meshes_are_refused_in_one_line(tmp_path, name):
    write, reason = BAD_MESHES[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=reason) as caught:
        load_mesh(tmp_path / name, "y")
    assert name in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("workers", [0, 2])
def test_good_meshes_are_drawn_before_bad_ones_are_named(tmp_path, workers):
    for name in ("1.ply", "2.ply", "3.ply", "4.ply", "5.ply"):
        write_ply(tmp_path / name, SQUARE, SQUARE_FACES)
    for name in ("1.ply", "3.ply"):
        (tmp_path / name).write_text("no mesh")
    with pytest.warns(UserWarning, match="1.ply: cannot be read"), pytest.raises(InputError, match="3.ply: cannot be"):
        ensure_meshes(tmp_path / "out", [tmp_path], views=1, resolution=8, workers=workers)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2", "4", "5", "dataset.json"]


def test_a_texture_may_lie_in_another_folder_and_an_unused_one_may_be_missing(tmp_path):
    """As in ShapeNet."""
    for folder in ("models", "images"):
        (tmp_path / folder).mkdir()
    mesh = write_obj(tmp_path / "models" / "a.obj")
    mesh.with_suffix(".png").rename(tmp_path / "images" / "a.png")
    changed(mesh.with_suffix(".mtl"), "a.png", "../images/a.png\nnewmtl other\nmap_Kd gone.png")
    assert len(load_mesh(mesh, "y").paint.textures) == 1


def test_a_texture_is_found_where_googles_scanned_objects_have_it(tmp_path):
    for folder in ("meshes", "materials/textures"):
        (tmp_path / folder).mkdir(parents=True)
    mesh = write_obj(tmp_path / "meshes" / "model.obj")
    mesh.with_suffix(".png").rename(tmp_path / "materials" / "textures" / "model.png")
    assert len(load_mesh(mesh, "y").paint.textures) == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])  # macOS writes ü as two characters
def test_a_gltf_may_name_its_files_in_percent_encoding(tmp_path, form):
    mesh = tmp_path / "a.gltf"
    textured(mesh)
    four_colors().save(tmp_path / unicodedata.normalize(form, "grüner Lack.png"))
    changed(mesh, json.loads(mesh.read_text())["images"][0]["uri"], "gr%C3%BCner%20Lack.png")
    assert len(load_mesh(mesh, "y").paint.textures) == 1
