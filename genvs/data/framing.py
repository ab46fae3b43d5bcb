"""Turns a photo into the square image that networks take: lens distortion, cropping and resizing in one step."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from genvs.config import SceneConfig
from genvs.data.camera_checks import checked_intrinsics
from genvs.data.images import MAX_SIDE, MIN_SIDE, WHITE_RGB, to_square
from genvs.data.storage import printable
from genvs.errors import InputError
from genvs.geometry.distortion import Distortion, corrected_frame, distortion_of, photo_positions

Box = tuple[float, float, float, float]  # left, top, right and bottom, pixels of the photo


class Framing(NamedTuple):
    """How photos become square images.

    fit: what is done to an image that is not square: "squeeze", "crop" to the central square, or "pad". background:
    RGB, from 0 to 255, behind padding, transparent parts and what masks leave out.
    """

    fit: str = "squeeze"
    background: tuple[int, ...] = WHITE_RGB


WHOLE_ON_WHITE = Framing()


def framing_of(scene: SceneConfig, fit: str | None = None, background: tuple[int, ...] | None = None) -> Framing:
    """The framing of a network's training images, or `fit` and `background` where they are given."""
    return Framing(fit or scene.fit, background or scene.background)


@dataclass(frozen=True)
class Lens:
    """Intrinsics as files state them. Raises InputError for impossible values.

    settings: `fl_x`, `fl_y` (one is enough for square pixels), `cx`, `cy` and `skew` in pixels of a `w` x `h` image, or
    `camera_angle_x`, `camera_angle_y`, the field of view, in radians; and the distortion's COEFFICIENTS. shown: where
    they are written, for messages. model: one of CAMERA_MODELS (genvs.geometry.distortion).
    """

    settings: Mapping[str, float]
    shown: str
    model: str = "OPENCV"

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if not isinstance(value, (int, float)) or not abs(value) < 1e30:  # nor is nan
                raise InputError(f"{self.shown}: {name} is {printable(repr(value)[:20])}; give a finite number")
            if name.startswith("camera_angle") and not 0 < value < math.pi:
                raise InputError(f"{self.shown}: {name} is {value:g}; give radians, between 0 and pi")
            if name in ("w", "h") and not (value == int(value) and MIN_SIDE <= value <= MAX_SIDE):
                raise InputError(f"{self.shown}: {name} is {value:g}; give the image's side in pixels")
        if not self.settings.keys() & {"fl_x", "fl_y", "camera_angle_x", "camera_angle_y"}:
            raise InputError(f"{self.shown}: has no focal length; add camera_angle_x (radians) or fl_x (pixels)")

    @property
    def size(self) -> tuple[int, int] | None:
        """The width and height that the settings are for, if they are stated."""
        return (int(self.settings["w"]), int(self.settings["h"])) if {"w", "h"} <= self.settings.keys() else None

    @property
    def distortion(self) -> Distortion | None:
        return distortion_of(self.model, self.settings)

    def intrinsics(self, size: tuple[int, int]) -> np.ndarray:
        """Normalised `[3, 3]` float64. size: of the image. Raises InputError for unusable values."""
        sides = dict(zip("wh", size, strict=True))
        scale = next((self.settings[name] / side for name, side in sides.items() if name in self.settings), 1)
        width, height = (self.settings.get(name, scale * side) for name, side in sides.items())
        focal = [self._focal("x", width), self._focal("y", height)]
        focal_x, focal_y = (one if one is not None else other for one, other in zip(focal, focal[::-1], strict=True))
        center_x, center_y = self.settings.get("cx", width / 2), self.settings.get("cy", height / 2)
        matrix = np.array([[focal_x, self.settings.get("skew", 0), center_x], [0, focal_y, center_y], [0, 0, 1]])
        return checked_intrinsics(matrix / [[width], [height], [1]], self.shown, "write both in pixels")

    def _focal(self, axis: str, side: float) -> float | None:
        """The focal length in pixels along an axis (x or y), on which the image has `side` pixels."""
        if f"fl_{axis}" in self.settings:
            return self.settings[f"fl_{axis}"]
        angle = self.settings.get(f"camera_angle_{axis}")
        return None if angle is None else 0.5 * side / math.tan(angle / 2)


def square_photo(rgb: np.ndarray, lens: Lens, resolution: int, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """A photo uint8 `[H, W, 3]` as `[3, resolution, resolution]`, and the intrinsics of a pinhole camera for it.

    Raises what `framed` raises.
    """
    frame, box, intrinsics = framed((rgb.shape[1], rgb.shape[0]), lens, framing.fit)
    if lens.distortion is not None:
        return _through_lens(rgb, lens, frame, box, resolution, framing.background), intrinsics
    if box != frame:
        left, top, right, bottom = map(int, box)
        part = Image.new("RGB", (right - left, bottom - top), framing.background)
        part.paste(Image.fromarray(rgb), (-left, -top))
        rgb = np.asarray(part)
    return to_square(rgb, resolution), intrinsics


def framed(size: tuple[int, int], lens: Lens, fit: str) -> tuple[Box, Box, np.ndarray]:
    """The frame of the corrected photo, the box that becomes the square image, and that image's intrinsics.

    size: the photo's width and height. The box may reach beyond the frame. The intrinsics are normalised, `[3, 3]`.
    Raises InputError for a distortion that cannot be corrected, and for unusable intrinsics.
    """
    (width, height), intrinsics = size, lens.intrinsics(size)
    frame: Box = (0, 0, width, height)
    if lens.distortion is not None:
        shares = corrected_frame(lens.distortion, tuple(intrinsics.ravel()))
        if shares is None:
            fault = "its lens distortion leaves less than a quarter of the photo"
            raise InputError(f"{lens.shown}: {fault}; correct its coefficients")
        frame = shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height
    box = left, top, right, bottom = frame if fit == "squeeze" else _square_box(frame, fit)
    scale_x, scale_y = width / (right - left), height / (bottom - top)
    zoom = np.array([[scale_x, 0, -left / width * scale_x], [0, scale_y, -top / height * scale_y], [0, 0, 1]])
    return frame, box, zoom @ intrinsics


def _square_box(frame: Box, fit: str) -> Box:
    left, top, right, bottom = frame
    width, height = right - left, bottom - top
    side = min(width, height) if fit == "crop" else max(width, height)
    left, top = left + (width - side) // 2, top + (height - side) // 2
    return left, top, left + side, top + side


def _through_lens(
    rgb: np.ndarray, lens: Lens, frame: Box, box: Box, resolution: int, background: tuple[int, ...]
) -> np.ndarray:
    """The part `box` of the corrected photo, as uint8 `[3, resolution, resolution]`; background outside `frame`.

    A pixel is the mean of up to 4 x 4 samples of the photo. If more photo pixels fall into it, they are averaged first.
    """
    height, width = rgb.shape[:2]
    left, top, right, bottom = box
    distortion, intrinsics = cast(Distortion, lens.distortion), lens.intrinsics((width, height))
    merged, cell, uv = [], [], []  # photo pixels averaged first, samples per pixel, their positions
    for start, end, side in ((left, right, width), (top, bottom, height)):
        ratio = (end - start) / resolution
        merged.append(max(1, int(ratio / 3)))
        cell.append(math.ceil(ratio / merged[-1]))
        count = resolution * cell[-1]
        uv.append((start + (np.arange(count) + 0.5) / count * (end - start)) / side)
    places = np.stack(np.meshgrid(*uv), axis=-1)
    photo = Image.fromarray(rgb).reduce((merged[0], merged[1]))
    covered = np.multiply(photo.size, merged) / (width, height)  # its last pixels may reach beyond the photo
    grid = torch.from_numpy(2 * photo_positions(places, distortion, intrinsics) / covered - 1).float()
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float()
    samples = F.grid_sample(pixels[None], grid[None], "bicubic", padding_mode="border", align_corners=False)[0]
    near_corner, far_corner = np.reshape(frame, (2, 2)) / (width, height)
    beyond = torch.from_numpy(((places < near_corner) | (places > far_corner)).any(axis=-1))
    samples = torch.where(beyond, torch.tensor(background, dtype=samples.dtype)[:, None, None], samples)
    return F.avg_pool2d(samples, (cell[1], cell[0])).clamp(0, 255).round().to(torch.uint8).numpy()
