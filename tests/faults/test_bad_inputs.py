"""Every bad pose, intrinsics, image, folder and archive is refused by one line that names the file."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from genvs.data.images import read_image
from genvs.data.scenes import SampleRequest
from genvs.data.srn import read_lens, read_pose
from genvs.data.stored import StoredScenes
from genvs.errors import InputError
from tests.conftest import counted
from tests.unit.srn_folder import (
    INTRINSICS,
    c2w_text,
    flip_bit,
    read_everything,
    refused,
    some_c2w,
    write_scene,
    write_split,
)
from tests.unit.test_png_depths import chunk

# --- A. poses ---------------------------------------------------------------------------------------------------------

C2W = some_c2w(4)[1]


def changed(row: int, column: int, value: float) -> bytes:
    c2w = C2W.copy()
    c2w[row, column] = value
    return c2w_text(c2w).encode()


def transformed(matrix: np.ndarray) -> bytes:
    turn = np.eye(4)
    turn[:3, :3] = matrix
    return c2w_text(C2W @ turn).encode()


GOOD_POSE = c2w_text(C2W)
BAD_POSES = {
    "15 numbers": (" ".join(GOOD_POSE.split()[:15]).encode(), "has 15 numbers"),
    "empty": (b"", "has 0 numbers"),
    "nan": (changed(0, 0, np.nan), "finite numbers"),
    "scaled": (transformed(2 * np.eye(3)), "lengths 2, 2, 2"),
    "left-handed": (transformed(np.diag([1, -1, 1])), "left-handed (a mirror image); write a rotation"),
    "sheared": (transformed(np.array([[1, 0.1, 0], [0, 0.995, 0], [0, 0, 1]])), "not at right angles"),
    "bottom row": (changed(3, 3, 2), "last row"),
    "column-major": (c2w_text(C2W.T).encode(), "last row"),
}


@pytest.mark.parametrize("case", BAD_POSES)
def test_bad_pose(scene, case):
    content, reason = BAD_POSES[case]
    (scene / "pose" / "2.txt").write_bytes(content)
    assert reason in refused("car1/pose/2.txt", lambda: read_everything(scene.parent))


@pytest.mark.parametrize(
    ("convert", "options", "warning"),
    [
        (np.linalg.inv, {}, "world-to-camera"),
        (lambda c2w: c2w, {"near": 1.5, "far": 1.8}, "outside near"),
        (lambda c2w: c2w + [[0, 0, 0, 5e5], [0] * 4, [0] * 4, [0] * 4], {}, "exact to a pixel"),
    ],
)
def test_valid_cameras_of_another_convention_are_warned_about(scene, convert, options, warning):
    for view, c2w in enumerate(some_c2w(4), start=1):
        (scene / "pose" / f"{view}.txt").write_text(c2w_text(convert(c2w)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        StoredScenes(scene.parent, resolution=32, **options)
    assert any(warning in str(item.message) and "car1" in str(item.message) for item in caught)


# --- B. intrinsics ----------------------------------------------------------------------------------------------------

BAD_INTRINSICS = {
    "empty": (b"", "lines hold"),
    "nan": (INTRINSICS.replace("32.8125", "nan").encode(), "finite number"),
    "focal 0": (INTRINSICS.replace("32.8125", "0").encode(), "focal length 0"),
    "already normalised": (b"1.025 0.5 0.5 0.\n0. 0. 0.\n1.\n32 32\n", "write both in pixels"),
    "far principal point": (INTRINSICS.replace("16.0 16.0", "16.0 900.0").encode(), "principal point 0.5, 28.12"),
    "another shape": (INTRINSICS.replace("32 32", "32 64").encode(), "32x32"),
    "zero height": (INTRINSICS.replace("32 32", "0 32").encode(), "h is 0"),
    "no size": (INTRINSICS.replace("32 32", "").encode(), "lines hold 4, 3, 1 numbers"),
    "not a matrix": (b"32 0 16\n0 32 16\n0 0 2\n", "not an intrinsics matrix"),
}


@pytest.mark.parametrize("case", BAD_INTRINSICS)
def test_bad_intrinsics(scene, case):
    content, reason = BAD_INTRINSICS[case]
    (scene / "intrinsics.txt").write_bytes(content)
    file = "car1/rgb/1.png" if case == "another shape" else "car1/intrinsics.txt"
    assert reason in refused(file, lambda: StoredScenes(scene.parent, resolution=32))


@pytest.mark.parametrize(("near", "far"), [(0, 1), (-1, 1), (2, 1), (1, 1), (np.nan, 1), (0.5, np.inf)])
def test_bad_near_and_far(scene, near, far):
    refused("far" if far == np.inf else "near", lambda: StoredScenes(scene.parent, resolution=32, near=near, far=far))


@pytest.mark.parametrize("text", ["{", "[1]" * 2, '{"near": 1}', '{"near": "a", "far": 2}', "[" * 60_000, "3"])
def test_bad_dataset_record(scene, text):
    (scene.parent / "dataset.json").write_text(text)
    refused("cars_train/dataset.json", lambda: StoredScenes(scene.parent, resolution=32))


# --- C. images --------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *extra: bytes, rows: bytes = b"") -> bytes:
    """A gray PNG that states a size, whatever `rows` it has."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
PNG, JPEG = encoded(NOISE), encoded(NOISE, "JPEG")
BAD_IMAGES = {
    "zero bytes": (b"", "is empty"),
    "a pointer to it": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 132\n", "Git LFS"),
    "last bytes cut": (PNG[:-13], "cannot be decoded"),
    "wrong checksum": (flip_bit(PNG, len(PNG) - 14), "cannot be decoded"),
    "nothing decodable": (png(32, 32, rows=b"\7" * 33 * 32), "cannot be decoded"),
    "400 megapixels": (png(20_000, 20_000), "pixels; save it smaller"),
    "1x1": (png(1, 1, rows=b"\0\0"), "at least 8x8"),
    "non-square": (png(64, 32, rows=bytes(65 * 32)), "intrinsics are for 32x32"),
    "gif": (encoded(NOISE, "GIF"), "neither PNG, JPEG nor WebP"),
    "animated": (encoded(NOISE, save_all=True, append_images=[NOISE.rotate(90)]), "animated"),
    "animated WebP": (encoded(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)]), "animated"),
    "half a WebP": (encoded(NOISE, "WEBP")[:200], "copy or download it again"),
    "cmyk": (encoded(NOISE.convert("CMYK"), "JPEG"), "print colours"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image(scene, case):
    content, reason = BAD_IMAGES[case]
    (scene / "rgb" / "2.png").write_bytes(content)
    assert reason in refused("car1/rgb/2.png", lambda: read_everything(scene.parent))


@pytest.mark.parametrize("content", [encoded(NOISE, icc_profile=b"not a profile"), JPEG, PNG + b"trailing bytes"])
def test_harmless_oddities_of_images_are_accepted(scene, content):
    (scene / "rgb" / "2.png").write_bytes(content)
    read_everything(scene.parent)


def test_mutated_files_raise_nothing_else(every_fault):
    """Seeded mutations; whatever the parsers make of them, no other exception comes out, and no warning."""
    rng = np.random.default_rng(0)
    palette = encoded(NOISE.convert("P"), transparency=3)
    parsers = [(read_pose, GOOD_POSE.encode()), (read_lens, INTRINSICS.encode())]
    parsers += [(read_image, data) for data in (PNG, JPEG, palette, encoded(NOISE, "WEBP"))]
    mutations = 10_000 if every_fault else 200
    for parser, content in parsers:
        for _ in range(mutations):
            data = bytearray(content)
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(0, 256)
            if rng.random() < 0.2:
                del data[rng.integers(0, len(data)) :]
            try:
                parser(bytes(data), "mutated")
            except InputError as error:
                assert "mutated" in str(error) and str(error).isprintable()
        counted("mutated files that raise nothing but an InputError", mutations, mutations)


# --- D. files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("gone.png"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
        Path.mkdir,
    ],
)
def test_things_that_are_no_files(scene, make):
    path = scene / "rgb" / "2.png"
    path.unlink()
    make(path)
    refused("car1/rgb/2.png", lambda: read_everything(scene.parent))


def test_links_to_files_are_followed(scene, tmp_path):
    (scene / "rgb" / "2.png").rename(tmp_path / "elsewhere.png")
    (scene / "rgb" / "2.png").symlink_to(tmp_path / "elsewhere.png")
    (scene / "loop").symlink_to(scene.parent)
    read_everything(scene.parent)


def test_a_worker_names_the_file_in_the_last_line(scene):
    dataset = StoredScenes(scene.parent, resolution=32)
    for view in range(1, 5):
        (scene / "rgb" / f"{view}.png").write_bytes(b"")
    loader = DataLoader(dataset, batch_size=None, sampler=[[SampleRequest(0, 0, 2, 1)]], num_workers=1)
    with pytest.raises(InputError) as caught:
        next(iter(loader))
    assert "car1/rgb/" in str(caught.value).splitlines()[-1]


def same_poses(scene: Path) -> None:
    for path in scene.glob("pose/*"):
        path.write_text(GOOD_POSE)


def one_of_the_views(scene: Path) -> None:
    (scene / "intrinsics").mkdir()
    (scene / "intrinsics" / "1.txt").write_text(INTRINSICS)


BAD_SCENES = {  # what is done to a scene, the file that is named, and what else is said
    "missing pose": (lambda scene: (scene / "pose/3.txt").unlink(), "rgb", "'3'"),
    "same poses": (same_poses, "", "the same"),
    "no intrinsics": (lambda scene: (scene / "intrinsics.txt").unlink(), "intrinsics.txt", "No such file"),
    "intrinsics of one view": (one_of_the_views, "rgb", "'2'"),
    "two images": (lambda scene: (scene / "rgb/2.PNG").write_bytes(PNG), "rgb/2.", "twice"),
    "newline": (lambda scene: (scene / "pose/a\nb\x1b.txt").write_text(GOOD_POSE), "pose", "a\\nb\\x1b"),
    "no rgb": (lambda scene: (scene / "rgb").rename(scene / "images"), "rgb", "no images"),
    "no views": (lambda scene: [path.unlink() for path in scene.glob("rgb/*")], "rgb", "no images"),
    "empty first image": (lambda scene: (scene / "rgb/1.png").write_bytes(b""), "rgb/1.png", "empty"),
}


@pytest.mark.parametrize("case", BAD_SCENES)
def test_bad_scenes_are_refused_when_they_are_opened(scene, case):
    spoil, file, said = BAD_SCENES[case]
    spoil(scene)
    assert said in refused(f"cars_train/car1/{file}".rstrip("/"), lambda: StoredScenes(scene.parent, resolution=32))


def test_too_few_views(scene):
    write_scene(scene.parent / "car2", num_views=1)
    dataset = StoredScenes(scene.parent, resolution=32)
    dataset.check_views(1)
    assert "1 view where 4" in refused("car2", lambda: dataset.check_views(4))
    refused("car2", lambda: dataset[[SampleRequest(1, 0, 1, 1)]])


def test_missing_and_empty_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.tar").write_text("")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "readme.txt").write_text("")
    for name in ("absent", "empty", "file.tar", "loose", "x" * 300):
        assert "give a folder" in refused(name, lambda name=name: StoredScenes.find_splits(tmp_path / name))


def test_ambiguous_paths(scene, tmp_path):
    assert StoredScenes.find_splits(scene).train == scene
    write_split(tmp_path / "chairs_train", num_scenes=1)
    assert "cars_train and chairs_train" in refused(str(tmp_path), lambda: StoredScenes.find_splits(tmp_path))


def test_a_held_out_scene_that_is_trained_on(tmp_path):
    for seed, split in enumerate(("train", "val")):
        write_split(tmp_path / f"cars_{split}", seed=seed)
    write_scene(tmp_path / "cars_test" / "car2", seed=2)
    refused("cars_test/car2", lambda: StoredScenes.find_splits(tmp_path / "cars"))
