"""Which mesh files there are in folders, and how their scenes are named."""

import pytest

from genvs.data.mesh.dataset import ensure_meshes
from genvs.errors import InputError
from tests.unit.mesh_files import SQUARE, SQUARE_FACES, write_obj, write_ply


def test_meshes_that_are_not_there_or_of_one_name(tmp_path):
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "no.glb", tmp_path / "a"):
        with pytest.raises(InputError, match=f"{path.name}: no mesh there; give files of .glb"):
            ensure_meshes(tmp_path / "out", [path], views=1, resolution=8)
    meshes = [write_ply(tmp_path / "a" / "car.ply", SQUARE, SQUARE_FACES), write_obj(tmp_path / "a" / "car.obj")]
    (tmp_path / "a" / "van.FBX").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "van.dae").touch()
    for path, named in ((tmp_path / "a" / "van.FBX", "van.FBX"), (tmp_path / "b", "van.dae")):
        with pytest.raises(InputError, match=f"{named}: .*not read; convert"):
            ensure_meshes(tmp_path / "out", [path], views=1, resolution=8)
    with pytest.warns(UserWarning, match="^left out 1 .*not read.*van.FBX; convert"), pytest.raises(InputError):
        ensure_meshes(tmp_path / "out", [tmp_path / "a"], views=1, resolution=8)
    with pytest.raises(InputError, match="car.obj.*same name as .*car.ply"):
        ensure_meshes(tmp_path / "out", meshes, views=1, resolution=8)


def test_meshes_of_one_name_in_a_tree(tmp_path):
    """ShapeNetCore.v2 as it unpacks, copied by a Mac; two models have the same number in two categories."""
    for folder in ("02958343/1a0b/models", "02958343/1a1d/models", "03790512/1a0b/models", "single"):
        (tmp_path / folder).mkdir(parents=True)
        write_ply(tmp_path / folder / "model_normalized.ply", SQUARE, SQUARE_FACES)
        (tmp_path / folder / "._model_normalized.ply").write_bytes(b"\0\5\x16\7")
    write_ply(tmp_path / "single" / "bike.ply", SQUARE, SQUARE_FACES)

    def drawn(*meshes):
        split = ensure_meshes(tmp_path / "out", [tmp_path / mesh for mesh in meshes], views=1, resolution=8)
        return sorted(split.subjects)

    assert drawn("02958343") == ["1a0b", "1a1d"]
    assert drawn("02958343", "single/bike.ply") == ["1a0b", "1a1d", "bike"]
    assert drawn("02958343", "03790512") == ["02958343-1a0b", "02958343-1a1d", "03790512-1a0b"]
    assert drawn("single", "single/bike.ply") == ["bike", "model_normalized"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "car").symlink_to(tmp_path / "02958343" / "1a0b")
    assert drawn("links") == ["model_normalized"]
    for folder in ("GLB", "OBJ"):  # a pack in two formats
        (tmp_path / "pack" / folder).mkdir(parents=True)
        for name in ("bus.ply", "van.ply"):
            write_ply(tmp_path / "pack" / folder / name, SQUARE, SQUARE_FACES)
    for link in ("again", "and again"):  # a search that follows both would not end
        (tmp_path / "pack" / link).symlink_to(tmp_path / "pack")
    assert drawn("pack") == ["GLB-bus", "GLB-van", "OBJ-bus", "OBJ-van"]
