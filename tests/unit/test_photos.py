"""Photos: lens distortion, masks, backgrounds, shapes, EXIF rotations; and unusual cameras."""

import io
import json
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from genvs.data.framing import Framing
from genvs.data.images import read_image
from genvs.geometry.distortion import Distortion
from tests.numerics.test_distortion import MODELS, distortion, grid, ideal_positions, rendered, settings
from tests.unit.srn_folder import opened, refused, some_c2w, write_scene, write_split
from tests.unit.transforms_folder import frame, write_capture, write_transforms

GRAY, BLACK = (90, 90, 90), (0, 0, 0)


def change(folder: Path, **settings) -> Path:
    """The capture with other settings in its file; `frame_...` are those of the second frame."""
    path = folder / "transforms.json"
    record = json.loads(path.read_text())
    record["frames"][1].update({k.removeprefix("frame_"): v for k, v in settings.items() if k.startswith("frame_")})
    record.update({name: value for name, value in settings.items() if not name.startswith("frame_")})
    path.write_text(json.dumps(record))
    return folder


# --- files as programs write them -------------------------------------------------------------------------------------


def test_the_fox_of_instant_ngp(tmp_path):
    """67 frames of which 17 have no image, with distortion, and settings that are not read."""
    numbers = [number for number in range(1, 68) if number % 4 and number < 67]
    (tmp_path / "images").mkdir(parents=True)
    for number in numbers:
        Image.new("RGB", (36, 64), GRAY).save(tmp_path / "images" / f"{number:04d}.jpg")
    frames = [
        frame(f"images/{number:04d}.jpg", c2w, sharpness=50.1)
        for number, c2w in enumerate(some_c2w(67, radius=4), start=1)
    ]
    distortion = {"k1": 0.0578, "k2": -0.0805, "p1": -0.00098, "p2": 0.00016, "cx": 18.2, "cy": 32.4, "w": 36, "h": 64}
    write_transforms(
        tmp_path / "transforms.json", frames, fl_x=46, fl_y=46, camera_angle_x=0.7, aabb_scale=4, **distortion
    )
    with pytest.warns(UserWarning, match=r"17 of 67 images .* images/0004.jpg, images/0008.jpg, .*, \.\.\.; add them$"):
        dataset = opened(tmp_path)
        lens = dataset.scenes[0].frames[0].lens
    views = dataset.load(0, range(dataset.num_views(0)))
    assert views.shape == (50,) and dataset.view_names(0)[3] == "0005"
    assert (views.images == 90).all() and lens.distortion.radial[:2] == (0.0578, -0.0805)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"camera_model": "opencv", "k1": 0.1, "p2": 0.01}, Distortion((0.1, 0, 0, 0), (), (0, 0.01))),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1}, Distortion((0.1, 0, 0, 0), fisheye=True)),
        ({"is_fisheye": True, "k2": 0.1}, Distortion((0, 0.1, 0, 0), fisheye=True)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.1, "k2": 0.0}, Distortion((0.1, 0, 0, 0))),
        ({"k1": 0.1, "k6": 0.2}, Distortion((0.1, 0, 0), (0, 0, 0.2))),
        ({"k1": 0.1, "frame_k1": 0.2}, Distortion((0.2, 0, 0, 0))),
        ({"distortion_params": [0.1, 0, 0, 0, 0.01, 0.02]}, Distortion((0.1, 0, 0, 0), (), (0.01, 0.02))),
        ({"camera_model": "Pinhole", "k1": 0.0, "is_fisheye": False}, None),
    ],
)
def test_distortion_of_all_frames_or_of_one(tmp_path, settings, expected):
    frames = opened(change(write_capture(tmp_path), **settings)).scenes[0].frames
    assert frames[1].lens.distortion == expected


@pytest.mark.parametrize("fit", ["squeeze", "crop"])
@pytest.mark.parametrize("name", ["OPENCV", "OPENCV_FISHEYE"])
def test_photos_through_a_lens_train_as_photos_without_it(tmp_path, name, fit):
    """The same world in two captures, one of them distorted: the same cameras, and images within 2 of 255."""
    size, matrix = (180, 120), np.array([[0.7, 0, 0.51], [0, 1.05, 0.48], [0, 0, 1]])
    places = {"plain": grid(*size), "distorted": ideal_positions(grid(*size), distortion(name), matrix)}
    views = {}
    for kind, coefficients in (("plain", {}), ("distorted", MODELS[name])):
        folder = write_capture(tmp_path / kind, 2)
        for view in (1, 2):
            Image.fromarray(rendered(places[kind])).save(folder / "images" / f"r_{view}.png")
        lens = {name: value for name, value in settings(matrix, size).items() if name != "skew"}
        change(folder, camera_model=name if coefficients else "PINHOLE", **lens, **coefficients)
        views[kind] = opened(folder, framing=Framing(fit)).load(0, [0, 1])
    torch.testing.assert_close(views["plain"].cameras.intrinsics, views["distorted"].cameras.intrinsics)
    assert (views["plain"].images.float() - views["distorted"].images.float()).abs().mean() < 2


def test_accents_of_file_names_are_written_in_two_ways(tmp_path):
    """As macOS stores them, and as other systems do."""
    folder = write_capture(tmp_path, 2)
    (folder / "images" / "r_2.png").rename(folder / "images" / unicodedata.normalize("NFD", "é.png"))
    assert opened(change(folder, frame_file_path="images/é.png")).num_views(0) == 2


@pytest.mark.parametrize("name", ["@eaDir", "lost+found", "System Volume Information", "$RECYCLE.BIN", "~snapshot"])
def test_what_systems_put_beside_scenes_is_ignored(tmp_path, name):
    split = write_split(tmp_path / "cars_train", 2)
    (split / name).mkdir()
    (split / "car1" / "rgb" / name).mkdir()
    assert opened(split).scene_names == ["car1", "car2"]


def test_a_transforms_json_whose_images_are_in_rgb(tmp_path):
    folder = write_capture(tmp_path / "scene", 3)
    (folder / "images").rename(folder / "rgb")
    record = json.loads((folder / "transforms.json").read_text().replace("./images", "rgb"))
    (folder / "transforms.json").write_text(json.dumps(record))
    assert opened(folder).num_views(0) == 3


# --- rotations and small copies in photos -----------------------------------------------------------------------------


def photo(orientation: int | None, size: tuple[int, int] = (24, 16)) -> bytes:
    """A JPEG whose left half is dark."""
    gray = np.full((size[1], size[0], 3), 220, np.uint8)
    gray[:, : size[0] // 2] = 30
    exif = Image.Exif()
    exif[0x010F] = "LGE"
    if orientation is not None:
        exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [None, 0, 1, 9, 255])
def test_orientations_that_ask_for_nothing(orientation):
    assert read_image(photo(orientation), "a.jpg").shape == (16, 24, 3)


def test_a_quarter_turn_is_done_if_the_camera_is_stated_for_it():
    stored = read_image(photo(6), "a.jpg", size=(48, 32))
    turned = read_image(photo(6), "a.jpg", size=(32, 48))
    assert stored.shape == (16, 24, 3) and turned.shape == (24, 16, 3)
    assert stored[8, 0, 0] < 60 < 200 < stored[8, -1, 0] and turned[0, 8, 0] < 60 < 200 < turned[-1, 8, 0]


@pytest.mark.parametrize(("orientation", "size"), [(6, None), (8, None), (3, (24, 16)), (2, (24, 16))])
def test_rotations_that_leave_a_doubt_are_refused(orientation, size):
    assert "EXIF" in refused("a.jpg", lambda: read_image(photo(orientation), "a.jpg", size=size))
    square = photo(6, (16, 16))
    assert "EXIF" in refused("a.jpg", lambda: read_image(square, "a.jpg", size=(16, 16)))


@pytest.mark.parametrize("layout", ["transforms.json", "SRN"])
def test_webp_is_as_good_as_png(tmp_path, layout):
    write = write_capture if layout == "transforms.json" else write_scene
    scenes = [write(tmp_path / name, 3) for name in ("png", "webp")]
    for path in list(scenes[1].glob("*/*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    first, second = (opened(scene).load(0, range(3)).images for scene in scenes)
    assert torch.equal(first, second)


def test_a_photo_with_a_small_copy_in_it_is_no_animation():
    file = io.BytesIO()
    large, small = (Image.new("RGB", size, GRAY) for size in ((32, 16), (16, 8)))
    large.save(file, "MPO", save_all=True, append_images=[small])
    assert read_image(file.getvalue(), "a.jpg").shape == (16, 32, 3)


# --- masks and backgrounds --------------------------------------------------------------------------------------------


def mask(path: Path, value: int = 255, size: tuple[int, int] = (32, 32), mode: str = "L") -> None:
    """The right half is the object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = np.zeros((size[1], size[0]), np.uint8)
    gray[:, size[0] // 2 :] = value
    image, black = Image.fromarray(gray), Image.new("L", size)
    (Image.merge("LA", [black, image]) if mode == "LA" else image.convert(mode)).save(path)


MASKS: dict[str, Any] = {  # how they are written
    "beside images": lambda folder, view: mask(folder / "masks" / f"r_{view}.png"),
    "of COLMAP": lambda folder, view: mask(folder / "masks" / f"r_{view}.png.png"),
    "other suffix, larger": lambda folder, view: mask(folder / "masks" / f"r_{view}.jpg", size=(64, 64)),
    "zeros and ones": lambda folder, view: mask(folder / "masks" / f"r_{view}.png", value=1),
    "zeros and labels": lambda folder, view: mask(folder / "masks" / f"r_{view}.png", value=15),
    "half as bright, as palettes are": lambda folder, view: mask(folder / "masks" / f"r_{view}.png", value=128),
    "one bit": lambda folder, view: mask(folder / "masks" / f"r_{view}.png", mode="1"),
    "labels of 16 bits": lambda folder, view: mask(folder / "masks" / f"r_{view}.png", value=1, mode="I;16"),
    "another folder": lambda folder, view: mask(folder / "Mask" / f"r_{view}.png"),
    "opacity of black": lambda folder, view: mask(folder / "masks" / f"r_{view}.png", mode="LA"),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("layout", ["transforms.json", "SRN"])
def test_masks_become_background(tmp_path, kind, layout):
    write = write_capture if layout == "transforms.json" else write_scene
    for name in ("plain", "masked"):
        write(tmp_path / name, num_views=3)
    images = "images" if layout == "transforms.json" else "rgb"
    for view in (1, 2, 3):
        file = next((tmp_path / "masked" / images).glob(f"*{view}.png"))
        MASKS[kind](tmp_path / "masked", file.stem.removeprefix("r_"))
        for written in (tmp_path / "masked").glob("[Mm]ask*/*"):
            if layout == "SRN" and written.name.startswith("r_"):
                written.rename(written.with_name(written.name.removeprefix("r_")))
    plain, masked = (opened(tmp_path / name).load(0, range(3)).images for name in ("plain", "masked"))
    black = opened(tmp_path / "masked", framing=Framing(background=BLACK)).load(0, range(3)).images
    tolerance = 3 if "jpg" in kind or "suffix" in kind else 0
    assert (masked[..., :15].int() - 255).abs().max() <= 8 * tolerance and black[..., :15].max() <= 8 * tolerance
    assert (masked[..., 17:].int() - plain[..., 17:]).abs().max() <= tolerance


def test_masks_that_frames_state_and_masks_that_are_missing(tmp_path):
    folder = write_capture(tmp_path, 3)
    mask(folder / "object" / "one.png")
    change(folder, frame_mask_path="object/one.png")
    with pytest.warns(UserWarning, match="2 of 3 images have no mask, and are used whole: images/r_1.png, images/r_3"):
        images = opened(folder).load(0, range(3)).images
    assert (images[1, :, :, :16] == 255).all() and not (images[0, :, :, :16] == 255).all()
    mask(folder / "object" / "one.png", size=(32, 16))
    with pytest.warns(UserWarning):
        assert "its mask 32x16" in refused("images/r_2.png", lambda: opened(folder).load(0, [1]))


def test_a_changed_mask_and_another_background_make_another_pack(tmp_path):
    folder = write_capture(tmp_path / "scene", 2)
    for view in (1, 2):
        mask(folder / "masks" / f"r_{view}.png")
    digests = {opened(folder).digest_of_files(), opened(folder, framing=Framing("crop", BLACK)).digest_of_files()}
    mask(folder / "masks" / "r_1.png", value=254)
    assert len(digests | {opened(folder).digest_of_files()}) == 3


def test_transparency_on_any_background(tmp_path):
    folder = write_capture(tmp_path, 2)
    Image.new("RGBA", (32, 32), (200, 100, 0, 51)).save(folder / "images" / "r_1.png")
    Image.fromarray(np.full((32, 32), 65535, np.uint16)).save(folder / "images" / "r_2.png", transparency=65535)
    images = opened(folder, framing=Framing(background=(0, 50, 250))).load(0, [0, 1]).images
    assert images[0, :, 0, 0].tolist() == [40, 60, 200] and images[1, :, 0, 0].tolist() == [0, 50, 250]


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_images_are_squeezed_cropped_or_padded_with_their_cameras(tmp_path):
    """A white dot on black is found where its camera projects it to, in each shape."""
    folder, dot = write_capture(tmp_path, 2), (40, 12)
    pixels = np.zeros((48, 72, 3), np.uint8)
    pixels[dot[1] - 3 : dot[1] + 3, dot[0] - 3 : dot[0] + 3] = 255
    for view in (1, 2):
        Image.fromarray(pixels).save(folder / "images" / f"r_{view}.png")
    change(folder, fl_x=60.0, fl_y=58.0, cx=38.0, cy=22.0)
    for extra in ({}, {"k1": 1e-9}):  # with the remap too
        change(folder, **extra)
        for fit, size in (("squeeze", (72, 48)), ("crop", (48, 48)), ("pad", (72, 72))):
            views = opened(folder, resolution=24, framing=Framing(fit, (0, 0, 200))).load(0, [0])
            matrix, image = views.cameras.intrinsics[0], views.images[0, 0].double()
            expected = matrix @ torch.tensor([(40 - 38) / 60, (12 - 22) / 58, 1])
            places = (torch.arange(24) + 0.5) / 24
            found = [float((image.sum(dim=d) * places).sum() / image.sum()) for d in (0, 1)]
            assert found == pytest.approx(expected[:2].tolist(), abs=0.01)
            assert matrix.diagonal().tolist() == pytest.approx([60 / size[0], 58 / size[1], 1])
            assert (views.images[0, 2, 0] == 200).all() == (fit == "pad")


def test_target_cameras_of_other_files_are_fitted_too(tmp_path):
    folder = write_capture(tmp_path, 3, file="transforms_train.json")
    write_transforms(folder / "transforms_test.json", [frame("t", some_c2w(1)[0])], fl_x=40, w=64, h=32)
    squeezed, cropped = (opened(folder, framing=Framing(fit)).target_cameras(0)[1] for fit in ("squeeze", "crop"))
    assert squeezed.intrinsics[0].diagonal().tolist() == pytest.approx([40 / 64, 40 / 32, 1])
    assert cropped.intrinsics[0].diagonal().tolist() == pytest.approx([40 / 32, 40 / 32, 1])


# --- cameras ----------------------------------------------------------------------------------------------------------


def rig(depth: float, turn: float = 0.0) -> np.ndarray:
    """A 4 x 2 grid of parallel cameras at z = `depth`, which look along +z, or along -z with `turn` 1."""
    c2w = np.tile(np.diag([1.0, 1 - 2 * turn, 1 - 2 * turn, 1.0]), (8, 1, 1))
    c2w[:, :2, 3] = [((i % 4 - 1.5) * 0.2, (i // 4 - 0.5) * 0.2) for i in range(8)]
    c2w[:, 2, 3] = depth
    return c2w


def drive() -> np.ndarray:
    """A car that drives forward: cameras along a line, which look along it, nearly."""
    rng, c2w = np.random.default_rng(0), np.tile(np.eye(4), (40, 1, 1))
    for view, (angle, rotation) in enumerate(zip(rng.normal(0, 0.05, 40), c2w[:, :3, :3], strict=True)):
        rotation[[0, 2]] = np.array([[np.cos(angle), 0, np.sin(angle)], [-np.sin(angle), 0, np.cos(angle)]])
        rotation[1, 1], c2w[view, 2, 3] = 1, 0.5 * view
    return c2w


def by_hand(degrees: float) -> np.ndarray:
    """The rig without its tripod: cameras that look nearly along +z."""
    c2w = rig(0)
    angles = np.random.default_rng(1).normal(0, np.radians(degrees), (8, 3))
    c2w[:, :3, :3] = Rotation.from_rotvec(angles).as_matrix()
    return c2w


@pytest.mark.parametrize("c2w", [rig(0), rig(-3), rig(3), rig(3, turn=1), drive(), by_hand(1), by_hand(3), by_hand(10)])
def test_cameras_that_look_at_no_point_ask_for_planes_and_keep_their_axes(tmp_path, c2w):
    folder = write_capture(tmp_path, c2w=c2w, num_views=len(c2w))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "give `near` and `far`" in refused("transforms.json", lambda: opened(folder))
        assert "give `near` and `far`" in refused("transforms.json", lambda: opened(folder, near=1.0))
        assert "`normalize`" in refused("transforms.json", lambda: opened(folder, normalize=True))
        dataset = opened(folder, near=1.0, far=9.0)
    assert dataset.convention == "opengl" and dataset.scene_config().far == 9
    torch.testing.assert_close(dataset.load(0, range(len(c2w))).cameras.c2w, torch.from_numpy(c2w).float())


@pytest.mark.parametrize("layout", ["transforms.json", "SRN"])
def test_georeferenced_cameras_are_brought_home(tmp_path, layout):
    """Coordinates of millions of metres are refused without `normalize`, and lose no precision with it."""
    poses = some_c2w(6)
    poses[:, :3, 3] += (441547.5, 5121946.5, 2345.1)
    if layout == "SRN":
        for view, c2w in enumerate(poses, start=1):
            folder = tmp_path if view > 1 else write_scene(tmp_path, 6)
            (folder / "pose" / f"{view}.txt").write_text(" ".join(map(repr, c2w.ravel().tolist())))
    else:
        write_capture(tmp_path, c2w=poses)
    line = refused("view", lambda: opened(tmp_path))
    assert "5.122e+06" in line and "`normalize`" in line
    centers = opened(tmp_path, normalize=True).load(0, range(6)).cameras.centers
    torch.testing.assert_close(centers, torch.from_numpy(some_c2w(6)[:, :3, 3]).float(), rtol=0, atol=1e-5)


def test_a_damaged_pose_among_others_is_named(tmp_path):
    scene = write_scene(tmp_path, 6)
    poses = some_c2w(6)[1]
    poses[0, 3] = 1e30
    (scene / "pose" / "2.txt").write_text(" ".join(map(repr, poses.ravel().tolist())))
    assert "1e+30" in refused("view 2", lambda: opened(tmp_path))
