"""What glTF files mean: each test writes one and looks at the triangles and colours that are read."""

import base64
import io
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.data.mesh.model import load_mesh
from genvs.data.synthetic.shading import render
from genvs.errors import InputError
from genvs.geometry.trajectories import spherical_c2w
from tests.unit.mesh_files import (
    CUBE,
    CUBE_FACES,
    GLTF_UV,
    LOW_LEFT,
    LOW_RIGHT,
    SQUARE,
    TOP_LEFT,
    TOP_RIGHT,
    area,
    assert_four_colors,
    color_at,
    colors_of,
    corners_seen,
    data_uri,
    finish_seen,
    four_colors,
    read_gltf,
    write_gltf,
)


def test_sparse_accessors(tmp_path):
    def lift(record, add):
        lifted = CUBE[CUBE[:, 1] > 0] + np.array([0, 2, 0], dtype=np.float32)
        index, values = add(np.flatnonzero(CUBE[:, 1] > 0).astype(np.uint16)), add(lifted.astype(np.float32))
        indices = {"bufferView": index, "componentType": 5123}
        record["accessors"][0]["sparse"] = {"count": 4, "indices": indices, "values": {"bufferView": values}}

    model = read_gltf(tmp_path / "a.gltf", CUBE, CUBE_FACES, change=lift)
    np.testing.assert_allclose(model.bounds[1] * 2 * np.sqrt(11), [1, 1, 3], atol=1e-5)


@pytest.mark.parametrize(("mode", "index"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3]), (6, None)])
def test_strips_and_fans(tmp_path, mode, index):
    def change(record, add):
        primitive = record["meshes"][0]["primitives"][0]
        primitive |= {"mode": mode, "indices": add(np.array(index or [], dtype=np.uint16))}
        if index is None:
            del primitive["indices"]

    model = read_gltf(tmp_path / "a.glb", change=change)
    assert len(model.corners) == 2 and area(model) == pytest.approx(0.5, abs=1e-5)
    assert (model.face_normals[:, 1] > 0).all(), "both face the front"


def test_instances_and_nodes_below_nodes(tmp_path):
    """Two squares side by side, one of them mirrored, in a node that is half as high."""

    def change(record, add):
        places = {"TRANSLATION": add(np.array([[2, 0, 0], [0, 0, 0]], dtype=np.float32))}
        places["SCALE"] = add(np.array([[-1, 1, 1], [1, 1, 1]], dtype=np.float32))
        instancing = {"EXT_mesh_gpu_instancing": {"attributes": places}}
        record["nodes"] = [{"children": [1], "scale": [1, 0.5, 1]}, {"mesh": 0, "extensions": instancing}]
        record["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]

    model = read_gltf(tmp_path / "a.gltf", image=four_colors(), change=change)
    np.testing.assert_allclose(model.bounds[1] * 2 * np.sqrt(17), [4, 0, 1], atol=1e-5)
    assert (model.face_normals[:, 1] > 0).all() and (model.normals[..., 1] > 0).all()
    halves = [[color_at(model, x, 0.5) for x in half] for half in ((-0.75, -0.25), (0.25, 0.75))]
    np.testing.assert_allclose(halves, [[TOP_LEFT, TOP_RIGHT], [TOP_RIGHT, TOP_LEFT]], atol=2)


def test_wrap_modes(tmp_path):
    """Texture coordinates from 0 to 2: seen are four copies, mirrored ones, or the last texels at the border."""
    seen = {}
    for name, mode in (("repeat", 10497), ("mirror", 33648), ("clamp", 33071)):

        def change(record, add, mode=mode):
            record["samplers"] = [{"wrapS": mode, "wrapT": mode}]
            record["textures"][0]["sampler"] = 0

        uv = {"TEXCOORD_0": GLTF_UV * 2}
        model = read_gltf(tmp_path / "a.gltf", image=four_colors(), attributes=uv, change=change)
        seen[name] = [color_at(model, x, 0.75) for x in (-0.75, -0.25, 0.25, 0.75)]
    left, right = TOP_LEFT, TOP_RIGHT
    np.testing.assert_allclose(seen["repeat"], [left, right, left, right], atol=2)
    np.testing.assert_allclose(seen["mirror"], [left, right, right, left], atol=2)
    np.testing.assert_allclose(seen["clamp"], [left, right, right, right], atol=2)


def test_texture_transforms_and_other_sets_of_coordinates(tmp_path):
    def change(record, add, moved=None, channel=0):
        texture = record["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
        texture |= {"texCoord": channel, "extensions": {"KHR_texture_transform": moved or {}}}
        record["extensionsRequired"] = ["KHR_texture_transform"]

    def read(**options):
        given = {"image": four_colors(), "change": lambda record, add: change(record, add, **options)}
        given["attributes"] = {"TEXCOORD_0": np.zeros((4, 2), np.float32)}
        given["attributes"]["TEXCOORD_1"] = (GLTF_UV * 65535).astype(np.uint16)
        return read_gltf(tmp_path / "a.gltf", **given)

    np.testing.assert_allclose(corners_seen(read(moved={"offset": [0.75, 0.25]})), [TOP_RIGHT] * 4, atol=2)
    assert_four_colors(read(channel=1))
    assert_four_colors(read(moved={"texCoord": 1}))
    shifted = read(channel=1, moved={"offset": [0.5, 0]})
    assert_four_colors(shifted, (TOP_RIGHT, TOP_LEFT, LOW_RIGHT, LOW_LEFT))
    corner = read(channel=1, moved={"scale": [0.5, 0.5], "offset": [0.5, 0.5]})
    np.testing.assert_allclose(corners_seen(corner), [LOW_RIGHT] * 4, atol=2)
    # The coordinates turn counterclockwise around the image's upper left corner; the repeated image turns clockwise.
    turned = read(channel=1, moved={"rotation": np.pi / 2})
    assert_four_colors(turned, (LOW_LEFT, TOP_LEFT, LOW_RIGHT, TOP_RIGHT))


def test_emission_and_unlit_materials(tmp_path):
    """Emission is added to what light does; an unlit material is black and shines."""
    black = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}, "emissiveFactor": [0.5, 0, 0]}
    strong = {**black, "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 2}}}
    unlit = {"pbrMetallicRoughness": {"baseColorFactor": [0, 0.5, 0, 1]}, "extensions": {"KHR_materials_unlit": {}}}
    for material, emitted in ((black, [188, 0, 0]), (strong, [255, 0, 0]), (unlit, [0, 188, 0])):
        finish = finish_seen(read_gltf(tmp_path / "a.gltf", material=material), 0.3, 0.3)
        np.testing.assert_allclose(255 * finish[[0, 1, 2, 5, 6, 7]], [0, 0, 0, *emitted], atol=1)


def test_holes_and_glass(tmp_path):
    """A texture with a transparent right half before a green square: MASK cuts it out, BLEND mixes, OPAQUE covers."""
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    image.paste((255, 0, 0, 102), (8, 0, 16, 16))

    def change(record, add):
        behind = add((SQUARE * 1.1 - [0, 0, 0.2]).astype(np.float32))
        record["meshes"][0]["primitives"].append({"attributes": {"POSITION": behind}, "mode": 6, "material": 1})
        record["materials"].append({"emissiveFactor": [0, 1, 0], "extensions": {"KHR_materials_unlit": {}}})
        record["materials"][1]["pbrMetallicRoughness"] = {"baseColorFactor": [0, 1, 0, 1]}

    depths, colors = [], []
    for mode in ("OPAQUE", "MASK", "BLEND"):
        unlit = {"alphaMode": mode, "extensions": {"KHR_materials_unlit": {}}, "pbrMetallicRoughness": {}}
        path = write_gltf(tmp_path / "a.glb", material=unlit, image=image, change=change)
        c2w = spherical_c2w(torch.tensor([np.pi / 2]).double(), torch.zeros(1).double(), 1.3).numpy()
        picture, depth = next(iter(render(load_mesh(path, "y"), c2w, 64.0, 33)))
        colors.append(picture[16, [12, 20]].astype(int))
        depths.append(depth[16, 20])
    highlight = 25
    np.testing.assert_allclose(colors[0], [[255, 0, 0], [255, 0, 0]], atol=highlight)
    np.testing.assert_allclose(colors[1], [[255, 0, 0], [0, 255, 0]], atol=highlight)
    np.testing.assert_allclose(colors[2], [[255, 0, 0], [102, 153, 0]], atol=highlight)
    assert depths[0] < depths[1] == depths[2], "the depth of what is mostly seen"


@pytest.mark.parametrize("gap", [0.0, 1e-5, 3e-4, 0.03])
def test_a_decal_is_on_its_wall(tmp_path, gap):
    """A disc in a transparent square, before a green wall, however near: the wall has no holes around it."""
    disc = Image.fromarray((np.hypot(*np.indices((64, 64)) - 32) < 20).astype(np.uint8) * 255)
    image = Image.merge("RGBA", [*Image.new("RGB", disc.size, "red").split(), disc])

    def change(record, add):
        wall = {"POSITION": add((SQUARE - [0, 0, gap]).astype(np.float32))}
        record["meshes"][0]["primitives"].insert(0, {"attributes": wall, "mode": 6, "material": 1})
        record["materials"].append({"pbrMetallicRoughness": {"baseColorFactor": [0, 1, 0, 1]}})

    for mode in ("MASK", "BLEND"):
        path = write_gltf(tmp_path / "a.glb", material={"alphaMode": mode}, image=image, change=change)
        c2w = spherical_c2w(torch.tensor([np.pi / 2, 1.2]).double(), torch.tensor([0, 0.4]).double(), 1.3).numpy()
        for picture, _ in render(load_mesh(path, "y"), c2w, 40.0, 33):
            red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
            assert red[16, 16] > 100 > green[16, 16]
            square = np.flatnonzero(blue[16] < 100)  # the columns of all but the background
            assert len(square) > 14 and (np.diff(square) == 1).all() and green[16, square[2]] > 100


def as_joints(record, add, joints):
    """Makes the mesh follow `joints`, one for each vertex."""
    attributes = record["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = add(np.pad(np.array(joints, dtype=np.uint8)[:, None], [(0, 0), (0, 3)]))
    del record["accessors"][attributes["JOINTS_0"]]["normalized"]
    attributes["WEIGHTS_0"] = add(np.tile(np.eye(4, dtype=np.float32)[0], (len(joints), 1)))


def test_skins_and_morph_targets_move_vertices(tmp_path):
    """The upper two corners follow a joint that lifts them by 2 and was at (5, 0, 0) when they were bound to it."""

    def skin(record, add):
        as_joints(record, add, [0, 0, 1, 1])
        bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
        bind[1, 3, 0] = -5  # column by column
        record["skins"] = [{"joints": [2, 3], "inverseBindMatrices": add(bind)}]
        record["nodes"] = [{"mesh": 0, "skin": 0, "scale": [9, 1, 1]}, {"children": [2]}, {"children": [3]}]
        record["nodes"].append({"translation": [5, 2, 0]})
        record["scenes"][0]["nodes"] = [0, 1]

    def morph(record, add):
        lifted = np.array([[0, 0, 0]] * 2 + [[0, 4, 0]] * 2, dtype=np.float32)
        record["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": add(lifted)}] * 2
        record["meshes"][0]["weights"] = [0.5, 0]

    def morph_uv(record, add):
        place = record["meshes"][0]["primitives"][0]
        place["targets"], record["nodes"][0]["weights"] = [{"TEXCOORD_0": add(GLTF_UV), "TANGENT": add(SQUARE)}], [1]
        place["attributes"]["TANGENT"] = add(np.ones((4, 4), np.float32))

    nowhere = {"TEXCOORD_0": np.zeros((4, 2), np.float32)}
    assert_four_colors(read_gltf(tmp_path / "a.glb", image=four_colors(), attributes=nowhere, change=morph_uv))
    for change in (skin, morph):
        model = read_gltf(tmp_path / "a.glb", change=change)
        np.testing.assert_allclose(np.ptp(model.bounds, axis=0) * np.sqrt(20), [2, 0, 4], atol=1e-5)


def test_vertices_without_weights_follow_the_first_joint(tmp_path):
    def skin(record, add):
        as_joints(record, add, [0, 0, 1, 1])
        weights = np.zeros((4, 4), np.float32)
        weights[2:, 0] = 1
        record["meshes"][0]["primitives"][0]["attributes"]["WEIGHTS_0"] = add(weights)
        record["skins"] = [{"joints": [1, 2]}]
        record["nodes"] = [{"mesh": 0, "skin": 0}, {}, {"translation": [0, 2, 0]}]  # joints may be outside of the scene

    model = read_gltf(tmp_path / "a.glb", change=skin)
    np.testing.assert_allclose(np.ptp(model.bounds, axis=0) * np.sqrt(20), [2, 0, 4], atol=1e-5)


def test_hidden_nodes_are_left_out(tmp_path):
    def change(record, add):
        hidden = {"extensions": {"KHR_node_visibility": {"visible": False}}, "children": [2]}
        record["nodes"] += [hidden, {"mesh": 0, "translation": [9, 0, 0]}]
        record["scenes"][0]["nodes"] = [0, 1]
        record["extensionsRequired"] = ["KHR_node_visibility"]

    assert len(read_gltf(tmp_path / "a.glb", change=change).corners) == 2


def test_what_exporters_write_beside_the_specification(tmp_path):
    """Zeros after the JSON, lights that they require, colours in bytes that are not said to be fractions."""

    def change(record, add):
        number = add(np.array([[255, 0, 0, 255]] * 4, dtype=np.uint8))
        del record["accessors"][number]["normalized"]
        record["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"] = number
        record["extensionsRequired"] = ["KHR_lights_punctual"]
        record["asset"]["generator"] = "x" * (-len(json.dumps(record)) % 4)  # then one more space is needed

    path = write_gltf(tmp_path / "a.glb", change=change)
    data = path.read_bytes()
    json_end = 20 + int.from_bytes(data[12:16], "little")
    text = data[20:json_end].rstrip()
    path.write_bytes(data[:20] + text + bytes(json_end - 20 - len(text)) + data[json_end:])
    np.testing.assert_allclose(colors_of(load_mesh(path, "y")), [[255, 0, 0]] * 2, atol=1)


def test_arrays_that_only_an_extension_could_read_are_refused(tmp_path):
    def compressed(record, add):
        for accessor in record["accessors"]:
            del accessor["bufferView"]
        record["extensionsUsed"] = ["KHR_draco_mesh_compression"]

    with pytest.raises(InputError, match="a.gltf: .*Draco"):
        read_gltf(tmp_path / "a.gltf", change=compressed)


def test_buffers_that_only_an_extension_could_fill_are_refused(tmp_path):
    """As meshopt's, of which a .glb has none inside."""
    record = json.loads(write_gltf(tmp_path / "a.gltf").read_text())
    for view in record["bufferViews"]:
        view["buffer"] = 1
    record["buffers"].append({"byteLength": record["buffers"][0]["byteLength"]})
    inside = base64.b64decode(record["buffers"][0].pop("uri").partition(",")[2])
    text = json.dumps(record).encode()
    parts = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(inside), b"BIN\0") + inside
    (tmp_path / "a.glb").write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(parts)) + parts)
    with pytest.raises(InputError, match="a.glb: .*meshopt"):
        load_mesh(tmp_path / "a.glb", "y")


def test_a_mask_that_cuts_out_nothing(tmp_path):
    material = {"alphaMode": "MASK", "alphaCutoff": 0.0}
    clear = Image.new("RGBA", (8, 8), (200, 40, 40, 0))
    model = read_gltf(tmp_path / "a.glb", material=material, image=clear)
    assert not model.paint.may_be_clear.any()
    np.testing.assert_allclose(colors_of(model), [[200, 40, 40]] * 2, atol=1)


@pytest.mark.parametrize("name", ["EXT_texture_webp", "EXT_texture_avif", "MSFT_texture_dds"])
def test_images_that_extensions_name(tmp_path, name):
    def change(record, add):
        file, kind = io.BytesIO(), name.rpartition("_")[2]
        four_colors().save(file, kind, **{} if kind == "dds" else {"quality": 100})
        record["images"] = [{"uri": data_uri(file.getvalue(), kind).rstrip("=")}]  # not padded
        record["textures"] = [{"extensions": {name: {"source": 0}}}]
        record["extensionsRequired"] = [name]

    uv = {"TEXCOORD_0": GLTF_UV}
    model = read_gltf(tmp_path / "a.gltf", image=four_colors(), attributes=uv, change=change)
    np.testing.assert_allclose(corners_seen(model), [TOP_LEFT, TOP_RIGHT, LOW_LEFT, LOW_RIGHT], atol=4)


def test_a_texture_without_an_image_is_refused(tmp_path):
    """Blender writes such, for images that it does not find."""

    def change(record, add):
        record["textures"] = [{"sampler": 0}]

    path = write_gltf(tmp_path / "a.glb", image=four_colors(), change=change)
    with pytest.raises(InputError, match="a.glb: a texture has no image"):
        load_mesh(path, "y")


def test_glass_lets_light_through(tmp_path):
    glass = {"extensions": {"KHR_materials_transmission": {"transmissionFactor": 1}}}
    assert finish_seen(read_gltf(tmp_path / "a.gltf", material=glass), 0.3, 0.3)[8] == 0.25


def test_specular_glossiness_has_its_diffuse_colour(tmp_path):
    glossy = {"diffuseFactor": [1, 1, 1, 1], "diffuseTexture": {"index": 0}}
    material = {"extensions": {"KHR_materials_pbrSpecularGlossiness": glossy}}
    assert_four_colors(read_gltf(tmp_path / "a.glb", material=material, image=four_colors()))


def test_integers_that_stand_for_fractions(tmp_path):
    """KHR_mesh_quantization: positions, normals, texture coordinates and colours in small integers."""
    attributes = {
        "NORMAL": np.array([[0, 76, 102]] * 4, dtype=np.int8),
        "TEXCOORD_0": (GLTF_UV * 255).astype(np.uint8),
        "COLOR_0": np.full((4, 4), 65535, dtype=np.uint16),
    }
    square = (SQUARE * 32767).astype(np.int16)
    model = read_gltf(tmp_path / "a.glb", square, image=four_colors(), attributes=attributes)
    assert_four_colors(model)
    np.testing.assert_allclose(model.normals.reshape(-1, 3), [[0, 0.8, 0.6]] * 6, atol=0.01)
