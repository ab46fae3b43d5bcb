"""Lens distortion: OpenCV's published formulas, their inverse, and straight lines in photos."""

import math

import numpy as np
import pytest
from PIL import Image

from genvs.data.framing import WHOLE_ON_WHITE, Lens, square_photo
from genvs.data.images import to_square
from genvs.geometry.distortion import Distortion, corrected_frame, distortion_of, photo_positions

MODELS = {
    "SIMPLE_RADIAL": {"k1": -0.12},
    "RADIAL": {"k1": 0.1, "k2": -0.03},
    "OPENCV": {"k1": -0.2, "k2": 0.05, "p1": 0.003, "p2": -0.002},
    "OPENCV of four": {"k1": -0.2, "k2": 0.05, "k3": 0.01, "k4": -0.004, "p1": 0.003, "p2": -0.002},
    "FULL_OPENCV": {"k1": 0.3, "k2": 0.02, "p1": 0.001, "p2": 0.002, "k3": 0.01, "k4": 0.4, "k5": 0.05, "k6": 0.01},
    "OPENCV_FISHEYE": {"k1": 0.04, "k2": -0.01, "k3": 0.003, "k4": -0.001},
    "FISHEYE": {},
}
INTRINSICS = np.array([[0.8, 0.01, 0.52], [0, 1.05, 0.47], [0, 0, 1]])


def distortion(name: str) -> Distortion:
    found = distortion_of(name.split()[0], MODELS[name])
    assert found is not None
    return found


def ideal_positions(photo: np.ndarray, lens: Distortion, intrinsics: np.ndarray) -> np.ndarray:
    """The inverse of `photo_positions`, by fixed-point iteration."""
    ideal = photo
    for _ in range(60):
        ideal = ideal + photo - photo_positions(ideal, lens, intrinsics)
    return ideal


@pytest.mark.parametrize("name", MODELS)
def test_the_formulas(name):
    """OpenCV's, written for one point, as its documentation has them: x'' of calib3d, theta_d of fisheye."""
    k1, k2, k3, k4, k5, k6, p1, p2 = (MODELS[name].get(c, 0.0) for c in "k1 k2 k3 k4 k5 k6 p1 p2".split())
    for x, y in ((0.0, 0.0), (0.3, 0.0), (-0.25, 0.4), (0.6, -0.45)):
        r2 = x * x + y * y
        if "FISHEYE" in name:
            theta = math.atan(math.sqrt(r2))
            theta_d = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
            scale = theta_d / math.sqrt(r2) if r2 else 1.0
            expected = x * scale, y * scale
        else:
            radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
            radial = radial / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3) if k5 else radial + k4 * r2**4
            expected = (
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            )
        assert distortion(name).distort(np.array([x, y])) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", MODELS)
def test_the_numeric_inverse_of_a_photos_positions_brings_the_points_back(name):
    """Every place in the corrected frame is found again from where the photo shows it."""
    lens = distortion(name)
    left, top, right, bottom = corrected_frame(lens, tuple(INTRINSICS.ravel()))
    uv = np.stack(np.meshgrid(np.linspace(left, right, 7), np.linspace(top, bottom, 7)), axis=-1).reshape(-1, 2)
    photo = photo_positions(uv, lens, INTRINSICS)
    assert np.abs(photo - 0.5).max() <= 0.5 + 2e-3, "inside the photo"
    np.testing.assert_allclose(ideal_positions(photo, lens, INTRINSICS), uv, rtol=0, atol=1e-12)


def test_cameras_without_distortion_have_none():
    assert distortion_of("OPENCV", {"k1": 0.0, "p1": 0}) is None and distortion_of("PINHOLE", {}) is None


def test_the_corrected_frame_ends_where_the_photo_does():
    """Barrel distortion keeps the camera's frame, pincushion distortion shrinks it, and nonsense is refused."""
    matrix = (0.8, 0.0, 0.5, 0.0, 0.8, 0.5, 0.0, 0.0, 1.0)
    assert corrected_frame(Distortion((-0.1,)), matrix) == (0, 0, 1, 1)
    left, top, right, bottom = corrected_frame(Distortion((0.2,)), matrix)
    assert left == pytest.approx(top) == pytest.approx(1 - right) == pytest.approx(1 - bottom)
    corner = photo_positions(np.array([right, bottom]), Distortion((0.2,)), np.reshape(matrix, (3, 3)))
    assert corner == pytest.approx([1, 1], abs=5e-3)
    folded = corrected_frame(Distortion((-1.0,)), matrix)  # r - r^3 grows until r = 1 / sqrt(3)
    assert 0.8 * math.hypot(*(0.5 - np.array(folded[:2])) / 0.8) == pytest.approx(0.8 / math.sqrt(3), abs=0.01)
    assert corrected_frame(Distortion((-80.0,)), matrix) is None


def test_a_fisheye_photo_of_a_half_space_shows_what_a_pinhole_camera_can():
    equidistant = distortion_of("OPENCV_FISHEYE", {})
    assert corrected_frame(equidistant, (1 / math.pi, 0, 0.5, 0, 1 / math.pi, 0.5, 0, 0, 1)) == (0, 0, 1, 1)


def stripes(uv: np.ndarray) -> np.ndarray:
    """Three straight bands across the image, as gray values from 0 to 255 with soft edges. uv: `[..., 2]`."""
    gray = np.zeros(uv.shape[:-1])
    for angle, offset in ((0.3, -0.28), (-0.2, 0.05), (1.3, 0.3)):
        distance = (uv - 0.5) @ [-math.sin(angle), math.cos(angle)] - offset
        gray = np.maximum(gray, 255 / (1 + np.exp((np.abs(distance) - 0.03) / 0.002)))
    return gray


def settings(matrix: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """Normalised intrinsics as a file states them."""
    pixels = matrix * [[size[0]], [size[1]], [1]]
    return dict(zip(("fl_x", "skew", "cx", "fl_y", "cy"), (*pixels[0], *pixels[1, 1:]), strict=True))


def rendered(uv: np.ndarray) -> np.ndarray:
    return np.repeat(stripes(uv).round().astype(np.uint8)[..., None], 3, axis=-1)


def grid(width: int, height: int) -> np.ndarray:
    """The pixel centres of an image, normalised: `[height, width, 2]`."""
    return np.stack(np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height), axis=-1)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("OPENCV", (96, 96)),
        ("OPENCV", (500, 350)),
        ("OPENCV_FISHEYE", (96, 96)),
        ("OPENCV_FISHEYE", (300, 200)),
        ("FULL_OPENCV", (300, 200)),
    ],
)
def test_straight_lines_of_a_distorted_photo_become_straight(name, size):
    """A photo of straight bands, rendered through the lens by its numeric inverse, against the same without lens."""
    lens, matrix = distortion(name), np.array([[0.9, 0, 0.51], [0, 0.9 * size[0] / size[1], 0.48], [0, 0, 1]])
    stated = Lens(settings(matrix, size) | MODELS[name], "", name)
    photo = rendered(ideal_positions(grid(*size), lens, matrix))
    image, intrinsics = square_photo(photo, stated, 64, WHOLE_ON_WHITE)
    # What a pinhole camera of these intrinsics sees: its pixels on the plane z = 1, in the bands' image.
    seen = (grid(512, 512) - intrinsics[:2, 2]) @ np.linalg.inv(intrinsics[:2, :2]).T @ matrix[:2, :2].T + matrix[:2, 2]
    expected = to_square(rendered(seen), 64)
    error = np.abs(image.astype(float) - expected)
    assert error.mean() < 1.5 and error.max() < 40
    uncorrected = np.abs(to_square(photo, 64).astype(float) - expected)
    assert uncorrected.mean() > 4 * error.mean(), "the distortion is to be seen"


@pytest.mark.parametrize("size", [(64, 64), (80, 80), (100, 100), (200, 160), (800, 400)])
def test_the_remap_filters_as_well_as_the_plain_resize(size):
    """A lens that moves hardly anything, against area means of what the photo shows."""
    rng = np.random.default_rng(0)
    world = Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)).resize((1600, 1600))
    photo, ideal = (np.asarray(world.resize(shape, Image.Resampling.BOX)) for shape in (size, (64, 64)))
    remapped, intrinsics = square_photo(photo, Lens(settings(INTRINSICS, size) | {"k1": 1e-9}, ""), 64, WHOLE_ON_WHITE)
    errors = [np.square(image.transpose(1, 2, 0) - ideal.astype(float)).mean() ** 0.5
              for image in (remapped, to_square(photo, 64))]  # fmt: skip
    assert errors[0] <= errors[1] + 0.3
    np.testing.assert_allclose(intrinsics, INTRINSICS, rtol=0, atol=1e-12)
