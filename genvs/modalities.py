"""The sensors that take views, one row each: their pictures, and how these are coded.

A picture is uint8 in files and batches. Networks see levels in [-1, 1], always in PICTURE_CHANNELS channels: those of a
gray picture are equal, so that the weights of a network for colours can start one for any other modality.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from genvs.errors import InputError

PICTURE_CHANNELS = 3
HALF_RANGE = 127.5  # of uint8
ON_WHITE = (1.0, 1.0, 1.0)  # levels of a white background
Values = TypeVar("Values", bound=Any)  # a number, an array or a tensor


@dataclass(frozen=True)
class Modality:
    """A kind of picture.

    name: its folder in a dataset has this name or one of `aliases`. channels: of its files. projection: how space is
    mapped to pixels, a name in genvs.geometry.projections. features: the first and the last channel, exclusive, that a
    feature image has for the picture itself. decibels: the values of the darkest and the brightest pixel, of a radar or
    a sonar. background: where the sensor sees nothing, uint8; None for the dataset's colour.
    """

    name: str
    aliases: tuple[str, ...]
    channels: int
    projection: str
    features: tuple[int, int]
    decibels: tuple[float, float] | None = None
    background: int | None = 0

    @property
    def index(self) -> int:
        """The place in MODALITIES, which stands for the modality in tensors."""
        return list(MODALITIES).index(self.name)


MODALITIES = {
    modality.name: modality
    for modality in (
        Modality("rgb", ("eo",), 3, "pinhole", (0, 3), background=None),
        # Distance along the camera's axis: from 255 at the near plane to 1 at the far plane; 0 without a return.
        Modality("depth", ("lidar_depth",), 1, "pinhole", (3, 4)),
        # 0 dB is a unit echo off a plate at 45 degrees.
        Modality("sar", ("raysar",), 1, "slant", (4, 5), decibels=(-25.0, 15.0)),
        Modality("sonar", (), 1, "fan", (5, 6), decibels=(-20.0, 12.0)),
    )
}
BY_NAME = {name: modality.name for modality in MODALITIES.values() for name in (modality.name, *modality.aliases)}


def modality_names(names: Iterable[str], parameter: str = "modalities") -> tuple[str, ...]:
    """The names of modalities, which may be aliases, in the order of MODALITIES.

    Raises InputError, naming the `parameter`, for other names, for one given twice, and for none.
    """
    found: dict[str, str] = {}
    for given in names:
        name = given.strip()
        if name not in BY_NAME:
            similar = difflib.get_close_matches(name.lower(), BY_NAME, n=1)
            meant = f" (did you mean {BY_NAME[similar[0]]}?)" if similar else ""
            known = ", ".join(MODALITIES)
            raise InputError(f"`{parameter}`={name}: no modality has this name{meant}: choose from {known}")
        if BY_NAME[name] in found:
            other = found[BY_NAME[name]]
            raise InputError(f"`{parameter}`={other},{name}: both are {BY_NAME[name]}: leave out one")
        found[BY_NAME[name]] = name
    if not found:
        raise InputError(f"`{parameter}` is empty: choose from {', '.join(MODALITIES)}")
    return tuple(name for name in MODALITIES if name in found)


def to_levels(picture: Values) -> Values:
    """Pictures from 0 to 255 as levels in [-1, 1]."""
    return picture / HALF_RANGE - 1


def from_levels(levels: Values) -> Values:
    """The inverse of `to_levels`, neither rounded nor clipped."""
    return (levels + 1) * HALF_RANGE


def coded(values: Values, darkest: float | Values, brightest: float | Values, first: int = 0) -> Values:
    """Values as numbers from `first` to 255, linear from `darkest` to `brightest`; neither rounded nor clipped."""
    return first + (255 - first) * (values - darkest) / (brightest - darkest)


def depth_coded(depth: Values, near: float | Values, far: float | Values) -> Values:
    """Depths, world units, as numbers from 255 (near) to 1 (far)."""
    return coded(depth, far, near, first=1)


def depth_decoded(picture: Values, near: float | Values, far: float | Values) -> Values:
    """The inverse of `depth_coded`, for pixels with a return."""
    return far + (picture - 1) * ((near - far) / 254)
