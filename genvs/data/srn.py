"""Scenes in SRN's layout, `<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}`."""

import os
import unicodedata
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TypeVar

import numpy as np

from genvs.config import SceneConfig
from genvs.data.camera_checks import checked_pose
from genvs.data.frames import Frame, StoredScene
from genvs.data.framing import Lens
from genvs.data.images import read_gray, size_of, square_depths, to_square
from genvs.data.storage import IMAGE_SUFFIXES, Storage, natural_key, printable
from genvs.errors import InputError
from genvs.modalities import MODALITIES, PICTURE_CHANNELS, depth_coded

CARS = SceneConfig()
NEAR_FAR = {"cars": (CARS.near, CARS.far), "chairs": (1.25, 2.75)}  # by the beginning of the split folder's name
TARGET_FOLDER = "target_pose/"
SCENE_FILE, SPLIT_FILE = "scene.json", "dataset.json"
T = TypeVar("T")


class SRNScene(StoredScene):
    """Files of a view have one name; views are in natural order. Files other than images are read when they are used.

    Each modality has a folder, and `images` are those of the first one: photos, if there are any. Raises InputError for
    files that are missing or do not pair.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        super().__init__(storage, folder)
        self.folders = self._folders(set(storage.names(folder)))
        self.modalities = list(self.folders) or ["rgb"]
        kind = self.folders.get(self.modalities[0], "rgb")
        images = _files_by_stem(storage, f"{folder}{kind}/", IMAGE_SUFFIXES)
        if not images:
            raise InputError(
                f"{self.shown}/{kind}: holds no images (.png, .jpg or .webp); add them, or remove this scene (all "
                "scenes of a dataset have one layout)"
            )
        self.view_names, self.images = list(images), list(images.values())
        self.pictures: dict[str, list[str]] = {}  # of other modalities, as far as they have been used
        self.poses = self._of_views("pose")
        if "intrinsics/" in storage.names(folder):
            self.intrinsics = self._of_views("intrinsics")
        else:
            self.intrinsics = [f"{folder}intrinsics.txt"] * len(images)
        self.other_files = list(dict.fromkeys(self.poses + self.intrinsics))
        self.find_masks()

    def read_picture(
        self, view: int, resolution: int, modality: str, planes: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `Scene`. Depths of 16 bits are multiples of the scene's `depth_scale`; other pictures are coded already.

        Only rgb is framed: other pictures have to be square, except depths of photos that are squeezed.
        """
        file = self.pictures_of(modality)[view]
        shown = self.storage.shown(file)
        values = read_gray(self.storage.read(file), shown)
        height, width = values.shape
        if height != width and (modality != "depth" or self.framing.fit != "squeeze"):
            raise InputError(f"{shown}: is {width}x{height}; pictures of {modality} have to be square here")
        if modality == "depth":
            picture = square_depths(values, resolution)
            if values.dtype == np.uint16:
                coded = depth_coded(picture * self.depth_scale, *planes).round().clip(1, 255)
                picture = np.where(picture > 0, coded, 0)
            picture = np.repeat(picture.round().astype(np.uint8)[None], PICTURE_CHANNELS, axis=0)
        elif values.dtype == np.uint16:
            raise InputError(f"{shown}: has 16 bits; save decibels as 8, as docs/modalities.md says")
        else:
            picture = to_square(np.repeat(values[..., None], PICTURE_CHANNELS, axis=2), resolution)
        return picture, self.frames[view].lens.intrinsics((width, height))

    def picture_size(self, view: int, modality: str) -> tuple[int, int]:
        return size_of(self.storage.read(self.pictures_of(modality)[view]))

    def picture_states(self, modality: str) -> Iterable[tuple]:
        record = f"{self.folder}{SCENE_FILE}"
        scaled = modality == "depth" and SCENE_FILE in self.storage.names(self.folder)
        for name in (*self.pictures_of(modality), *self.other_files, *([record] if scaled else [])):
            yield name, *self.storage.state(name)

    def pictures_of(self, modality: str) -> list[str]:
        """The files of a modality, one for each view. Raises InputError if they do not pair with the poses."""
        if modality not in self.pictures:
            self.pictures[modality] = self._of_views(self.folders[modality], IMAGE_SUFFIXES)
        return self.pictures[modality]

    @cached_property
    def depth_scale(self) -> float:
        """World units of a step in depth images of 16 bits."""
        record = f"{self.folder}{SCENE_FILE}"
        try:
            return float(self.storage.read_json(record)["depth_scale"])
        except (InputError, LookupError, TypeError, ValueError):
            raise InputError(
                f"{self.storage.shown(record)}: has no depth_scale, which depth images of 16 bits need; write "
                '{"depth_scale": <world units per step>}'
            ) from None

    @cached_property
    def frames(self) -> list[Frame]:  # type: ignore[override]
        lenses = {name: self._parse(read_lens, name) for name in dict.fromkeys(self.intrinsics)}
        cameras = zip(self.poses, self.intrinsics, strict=True)
        return [Frame(self._parse(read_pose, pose), lenses[lens]) for pose, lens in cameras]

    def target_frames(self) -> dict[str, Frame] | None:
        """The poses in `target_pose/*.txt`, with the first view's intrinsics."""
        if TARGET_FOLDER not in self.storage.names(self.folder):
            return None
        poses = _files_by_stem(self.storage, self.folder + TARGET_FOLDER, ("txt",))
        if not poses:
            raise InputError(f"{self.shown}/{TARGET_FOLDER}: holds no .txt; add poses to draw, or remove the folder")
        lens = self.frames[0].lens
        return {name: Frame(self._parse(read_pose, file), lens) for name, file in poses.items()}

    def _folders(self, there: set[str]) -> dict[str, str]:
        """The folder of each modality. there: the names in the scene's. Raises InputError for a modality with two."""
        found = {}
        for modality in MODALITIES.values():
            folders = [name for name in (modality.name, *modality.aliases) if f"{name}/" in there]
            if len(folders) > 1:
                raise InputError(f"{self.shown}: has both {'/ and '.join(folders)}/; remove one of them")
            if folders:
                found[modality.name] = folders[0]
        return found

    def _parse(self, parse: Callable[[bytes, str], T], name: str) -> T:
        return parse(self.storage.read(name), self.storage.shown(name))

    def _of_views(self, kind: str, suffixes: tuple[str, ...] = ("txt",)) -> list[str]:
        """The files in the folder `kind`, one for each view. Raises InputError if they do not pair with `images`."""
        files = _files_by_stem(self.storage, f"{self.folder}{kind}/", suffixes)
        if files.keys() != set(self.view_names):
            unpaired = min(files.keys() ^ set(self.view_names), key=natural_key)
            images = self.folders[self.modalities[0]]
            there, missing = (kind, images) if unpaired in files else (images, kind)
            fault = f"'{printable(unpaired)}' has no file of the same name in {missing}/"
            raise InputError(f"{self.shown}/{there}: {fault}; add the missing one, or remove this one")
        return list(files.values())


def read_pose(data: bytes, shown: str) -> np.ndarray:
    """Camera-to-world `[4, 4]` float64, axes as in the file, from 16 numbers, row-major, on one line or on four.

    The last four may be left out, as in a `transforms.json`.
    """
    values = [value for row in _read_rows(data, shown) for value in row]
    if len(values) not in (12, 16):
        raise InputError(f"{shown}: has {len(values)} numbers; a pose is 16, a 4x4 camera-to-world matrix row by row")
    return checked_pose(np.reshape(values, (-1, 4)), shown)


def read_lens(data: bytes, shown: str) -> Lens:
    """Intrinsics in pixels, in either of two forms.

    SRN's: `f cx cy 0.` / three numbers / one number / `height width`; DeepVoxels' have one more number before the size,
    perhaps a 0 after it. Or the 3x3 matrix, row by row, with or without a fourth line `height width`; it may be part of
    a 3x4 or 4x4 matrix, as NSVF's data have it.
    """
    rows = _read_rows(data, shown)
    if len(rows) > 2 and {len(row) for row in rows} == {4}:
        rows = [row[:3] for row in rows[:3]]
    lengths = [len(row) for row in rows]
    if lengths[4:] == [2, 1] and rows[5] != [0]:
        raise InputError(f"{shown}: its last line says that poses are world-to-camera; invert them, and write 0 there")
    if lengths[:1] in ([3], [4]) and lengths[1:] in ([3, 1, 2], [3, 1, 1, 2], [3, 1, 1, 2, 1]):
        settings = dict(zip(("fl_x", "cx", "cy"), rows[0], strict=False))
    elif lengths in ([3, 3, 3], [3, 3, 3, 2]):
        focal_x, skew, center_x, zero, focal_y, center_y, *last = sum(rows[:3], [])
        if not np.allclose([zero, *last], [0, 0, 0, 1], rtol=0, atol=1e-6):
            raise InputError(f"{shown}: not an intrinsics matrix; write fx s cx / 0 fy cy / 0 0 1, in pixels")
        settings = {"fl_x": focal_x, "fl_y": focal_y, "cx": center_x, "cy": center_y, "skew": skew}
    else:
        found = ", ".join(map(str, lengths[:8]))
        raise InputError(
            f"{shown}: its lines hold {found} numbers; expected SRN's 'f cx cy 0.', '0. 0. 0.', '1.', 'height width', "
            "or a 3x3 matrix"
        )
    size = next((row for row in rows if len(row) == 2), [])
    return Lens(settings | dict(zip("hw", size, strict=False)), shown)


def _read_rows(data: bytes, shown: str) -> list[list[float]]:
    """The numbers of a text file, by line, without empty lines."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
        return [[float(word) for word in line.split()] for line in lines if line.strip()]
    except ValueError as error:
        reason = printable(str(error)[:80])
        raise InputError(f"{shown}: {reason}; use plain text, decimal points, and spaces between numbers") from None


def default_depths(storage: Storage) -> tuple[float, float] | None:
    """near and far, world units, from the split's `dataset.json`, else by the split's name, else None."""
    if SPLIT_FILE in storage.names():
        record = storage.read_json(SPLIT_FILE)
        try:
            if "near" in record or "far" in record:
                return float(record["near"]), float(record["far"])
        except (ValueError, TypeError, LookupError):
            fault = "not JSON with numbers near and far"
            raise InputError(f"{storage.shown(SPLIT_FILE)}: {fault}; correct or remove it") from None
    split = os.path.basename(os.path.abspath(storage.root))
    return next((depths for name, depths in NEAR_FAR.items() if split.startswith(name)), None)


def check_windows(storage: Storage, modalities: Iterable[str]) -> None:
    """Raises InputError if the split's `dataset.json` states other decibels of black and white than MODALITIES."""
    record = storage.read_json(SPLIT_FILE) if SPLIT_FILE in storage.names() else None
    for name in modalities:
        window = list(MODALITIES[name].decibels or ())
        stated = record.get(f"{name}_decibels") if isinstance(record, dict) and window else None
        if stated is not None and stated != window:
            fault = f"{name}_decibels is {printable(str(stated)[:40])}, but its pictures show {window}"
            raise InputError(f"{storage.shown(SPLIT_FILE)}: {fault} here; draw them again")


def _files_by_stem(storage: Storage, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """The files in `folder` with one of these suffixes (lower case), by name without suffix, in natural order."""
    found: dict[str, str] = {}
    for name in storage.names(folder):
        stem, _, suffix = name.rstrip("/").rpartition(".")
        stem = unicodedata.normalize("NFC", stem)  # macOS writes letters and their accents apart
        if suffix.lower() in suffixes:
            if stem in found:
                other = printable(found[stem])
                raise InputError(f"{storage.shown(folder + name)}: is there twice, also as {other}; keep one")
            found[stem] = folder + name.rstrip("/")
    return {stem: found[stem] for stem in sorted(found, key=natural_key)}
