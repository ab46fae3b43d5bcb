"""Lens distortion: where a photo shows what an ideal pinhole camera sees.

Points are on the plane z = 1 in front of a camera with OpenCV axes, as (x, y).
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.polynomial.polynomial import polyval

# COLMAP's camera models in the order of their numbers, each with the names of its parameters in order. Models without
# names are not supported.
CAMERA_MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "",
    "RAD_TAN_THIN_PRISM_FISHEYE": "",
    "SIMPLE_DIVISION": "",
    "DIVISION": "",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
}
COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
BORDER_POINTS, STEPS = 33, 256  # on each side of a photo, and between its principal point and each of them
SLACK = 1e-3  # a corrected photo may reach this far beyond the photo, in sides of the photo
SMALLEST_FRAME = 0.25  # in sides of the photo; if less is left, the coefficients make no sense


class Distortion(NamedTuple):
    """OpenCV's lens models, `initUndistortRectifyMap` of its modules calib3d and fisheye.

    radial: coefficients of r^2, r^4, ...; for a fisheye lens, of powers of the angle from the axis (radians) instead of
    r. divisor: coefficients of r^2, r^4, ... in the denominator. tangential: p1 and p2.
    """

    radial: tuple[float, ...]
    divisor: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    def distort(self, points: np.ndarray) -> np.ndarray:
        """Where the photo shows the points `[..., 2]`."""
        squared = np.square(points).sum(axis=-1, keepdims=True)
        if self.fisheye:
            radius = np.sqrt(squared).clip(min=1e-12)
            angle = np.arctan(radius)
            return points * (angle / radius * polyval(angle**2, (1.0, *self.radial)))
        factor = polyval(squared, (1.0, *self.radial)) / polyval(squared, (1.0, *self.divisor))
        p1, p2 = self.tangential
        product = 2 * points[..., :1] * points[..., 1:]
        return points * factor + product * [p1, p2] + (squared + 2 * points**2) * [p2, p1]


def distortion_of(model: str, coefficients: Mapping[str, float]) -> Distortion | None:
    """The lens of a camera model in CAMERA_MODELS with these COEFFICIENTS; None for one that does not distort.

    k4 is the coefficient of r^8, as in nerfstudio, except in FULL_OPENCV, which divides by a polynomial of k4 to k6.
    """
    k = [float(coefficients.get(name, 0)) for name in COEFFICIENTS[:6]]
    tangential = float(coefficients.get("p1", 0)), float(coefficients.get("p2", 0))
    if model.endswith("FISHEYE"):
        return Distortion(tuple(k[:4]), fisheye=True)
    if not any((*k, *tangential)):
        return None
    if model == "FULL_OPENCV" or any(k[4:]):
        return Distortion(tuple(k[:3]), tuple(k[3:]), tangential)
    return Distortion(tuple(k[:4]), (), tangential)


def photo_positions(uv: np.ndarray, distortion: Distortion, intrinsics: np.ndarray) -> np.ndarray:
    """Where a photo shows what a pinhole camera of the same intrinsics shows at `uv` `[..., 2]`.

    intrinsics: `[3, 3]`, normalised, as `uv` and the result are: from 0 to 1 in the image.
    """
    focal, centre = intrinsics[:2, :2], intrinsics[:2, 2]
    points = (uv - centre) @ np.linalg.inv(focal).T
    return distortion.distort(points) @ focal.T + centre


@functools.lru_cache(maxsize=1024)
def corrected_frame(distortion: Distortion, matrix: tuple[float, ...]) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of the corrected photo, normalised: the part that the photo covers.

    matrix: the 9 numbers of the photo's intrinsics, normalised. The frame is that of a pinhole camera with these
    intrinsics, (0, 0, 1, 1), shrunk towards the principal point until all of it is in the photo and the distortion is
    monotonic in it. None if that leaves less than SMALLEST_FRAME.
    """
    intrinsics = np.array(matrix).reshape(3, 3)
    side = np.linspace(0, 1, BORDER_POINTS)
    border = np.concatenate([np.stack([side, 0 * side + edge], axis=-1) for edge in (0, 1)])
    border, centre = np.concatenate([border, border[:, ::-1]]), intrinsics[:2, 2]
    shares = np.linspace(0, 1, STEPS + 1)
    places = centre + shares[:, None, None] * (border - centre)  # [shares, border, 2]
    found = photo_positions(places, distortion, intrinsics)
    inside = (np.abs(found - 0.5) <= 0.5 + SLACK).all(axis=(1, 2))
    away = np.linalg.norm(found - centre, axis=-1)
    usable = inside & np.concatenate([[True], (np.diff(away, axis=0) > 0).all(axis=1)])
    kept = shares[STEPS if usable.all() else usable.argmin() - 1]
    if not usable[0] or kept < SMALLEST_FRAME:
        return None
    (left, top), (right, bottom) = (centre + kept * (corner - centre) for corner in (np.zeros(2), np.ones(2)))
    return float(left), float(top), float(right), float(bottom)
