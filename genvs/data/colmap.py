"""COLMAP's sparse models: photos with their cameras, and the points that they see.

Reads the binary and the text files that COLMAP documents (colmap.github.io/format.html), from where COLMAP, its
undistorter or nerfstudio puts them. Poses in them are world-to-camera, with OpenCV axes.
"""

import struct
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np

from genvs.data.camera_checks import checked_pose
from genvs.data.frames import Frame, StoredScene
from genvs.data.framing import Lens
from genvs.data.image_files import image_folders, view_names, without_missing
from genvs.data.storage import Storage, natural_key, printable
from genvs.errors import InputError
from genvs.geometry.distortion import CAMERA_MODELS

PLACES = ("sparse/", "colmap/sparse/", "")  # of a model, or of several in numbered folders, from the scene's folder
NAMES = {"f": "fl_x", "fx": "fl_x", "fy": "fl_y"}  # COLMAP's names of parameters, and those of a Lens
POINT = np.dtype([("id", "<i8"), ("position", "<f8", 3)])
POINT_OF_IMAGE = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
FEWEST_POINTS = 8  # a camera that sees fewer does not get its depth planes from them
MARGIN = 1.1  # beyond the depths of all but the nearest and the farthest percent of the points


class Photo(NamedTuple):
    """A registered photo. name: its path in the folder of images. points: the ids of the points that it sees."""

    name: str
    frame: Frame
    points: np.ndarray


class ColmapScene(StoredScene):
    """The photos of a model, in natural order. Warns of photos without an image file, and of several models.

    models: as `find_models` gives them; the first one is read. Raises InputError if it is damaged, or if there is no
    folder of images beside it.
    """

    certain = True
    as_stored = True  # COLMAP does not look at EXIF orientations

    def __init__(self, storage: Storage, folder: str, models: list[str]) -> None:
        super().__init__(storage, folder)
        if len(models) > 1:
            largest = models[0].removeprefix(folder)
            fault = f"has {len(models)} models, of which {largest}, the largest, is read"
            warnings.warn(f"{self.shown}: {fault}; keep only the right one", stacklevel=2)
        files = model_files(storage, models[0])
        photos = sorted(read_photos(storage, files), key=lambda photo: natural_key(photo.name))
        there = image_folders(storage, folder)
        if not photos:
            raise InputError(f"{self.shown}: has no registered photo; export the model again")
        if not there:
            raise InputError(f"{self.shown}: has a model, but no images/; give a folder with images/ and sparse/0/")
        images = without_missing(storage, folder + there[0], [photo.name for photo in photos], self.shown)
        photos = [photo for photo in photos if photo.name in images]
        self.images, self.other_files = list(images.values()), list(files.values())
        self.view_names = view_names(self.images, folder + there[0])
        self.frames, self._depths = [photo.frame for photo in photos], read_depths(storage, files, photos)
        self.find_masks()
        if "points3D" not in files:  # others need only its copy for viewers, points3D.ply
            fault = f"{storage.shown(models[0])}: has no points3D.bin or .txt, which tell depths"
            warnings.warn(f"{fault}; add it, or give `near` and `far`", stacklevel=2)

    def read_depths(self) -> np.ndarray | None:
        return self._depths


def find_models(storage: Storage, folder: str) -> list[str]:
    """The models of the scene in `folder` ('' or 'a/'), as folders of `storage`, the one with the most photos first.

    COLMAP writes several, in numbered folders, if it cannot join all photos. The first of them may be a small one.
    """
    there = storage.names(folder)
    for place in (folder + place for place in PLACES if not place or f"{place.partition('/')[0]}/" in there):
        names = storage.names(place) if place != folder else []
        numbered = sorted((name for name in names if name[:-1].isdecimal()), key=natural_key)
        models = [model for model in (*(place + name for name in numbered), place) if _images_file(storage, model)]
        if len(models) > 1:
            models.sort(key=lambda model: -len(storage.read(_images_file(storage, model))))
        if models:
            return models
    return []


def _images_file(storage: Storage, model: str) -> str:
    names = storage.names(model)
    return next((model + name for name in ("images.bin", "images.txt") if name in names), "")


def model_files(storage: Storage, model: str) -> dict[str, str]:
    """The files of a model, binary or text; there may be none of points. Raises InputError if another is missing."""
    there = storage.names(model)
    suffix = "bin" if "images.bin" in there else "txt"
    files = {kind: f"{kind}.{suffix}" for kind in ("cameras", "images", "points3D")}
    if files["cameras"] not in there:
        shown = storage.shown(model + files["cameras"])
        raise InputError(f"{shown}: is missing; copy the whole model, or export it again")
    return {kind: model + name for kind, name in files.items() if name in there}


def read_photos(storage: Storage, files: dict[str, str]) -> list[Photo]:
    """The photos of a model (`model_files`). Raises InputError for files that are damaged."""
    cameras: dict[int, Lens] = {}
    for number, model, size, parameters in _records(storage, files["cameras"], _binary_cameras, _text_cameras):
        lens = _lens(model, size, parameters, f"{storage.shown(files['cameras'])}: camera {number}")
        if cameras.setdefault(number, lens) != lens:
            raise InputError(f"{lens.shown} is listed twice, with other values; give one of them another number")
    shown, photos = storage.shown(files["images"]), []
    for name, pose, camera, points in _records(storage, files["images"], _binary_images, _text_images):
        if camera not in cameras:
            raise InputError(f"{shown}: the camera of {printable(name)} is not in cameras; export the model again")
        c2w = checked_pose(_camera_to_world(pose), f"{shown}: {printable(name)}")
        photos.append(Photo(name, Frame(c2w, cameras[camera]), points))
    return photos


def read_depths(storage: Storage, files: dict[str, str], photos: list[Photo]) -> np.ndarray | None:
    """near and far of each photo, world units: `[N, 2]`; None if no photo sees points, or no file has them.

    They enclose the points that the photo sees, or, if the model does not say which these are, all points inside the
    photo. A photo with too few points gets the median of the others' depths.
    """
    if "points3D" not in files:
        return None
    points = np.sort(np.fromiter(_records(storage, files["points3D"], _binary_points, _text_points), POINT), order="id")
    if not len(points):
        return None
    depths = np.full((len(photos), 2), np.nan)
    for row, photo in zip(depths, photos, strict=True):
        c2w, lens = photo.frame.c2w, photo.frame.lens
        places = np.searchsorted(points["id"], photo.points).clip(max=len(points) - 1)
        seen = points[places[points["id"][places] == photo.points]]
        in_camera = ((seen if len(seen) else points)["position"] - c2w[:3, 3]) @ c2w[:3, :3]
        in_camera = in_camera[in_camera[:, 2] > 0]
        if not len(seen):
            uv = (in_camera / in_camera[:, 2:]) @ lens.intrinsics(cast(tuple, lens.size))[:2].T
            in_camera = in_camera[((uv > 0) & (uv < 1)).all(axis=1)]
        if len(in_camera) >= FEWEST_POINTS:
            row[:] = np.percentile(in_camera[:, 2], (1, 99)) * [1 / MARGIN, MARGIN]
    found = ~np.isnan(depths[:, 0])
    if not found.any():
        return None
    depths[~found] = np.median(depths[found], axis=0)
    return depths


def _lens(model: str, size: tuple[int, int], parameters: tuple[float, ...], shown: str) -> Lens:
    names = CAMERA_MODELS.get(model, "").split()
    if not names:
        raise InputError(
            f"{shown}: the camera model {printable(model)} is not supported; undistort the photos (colmap "
            "image_undistorter), and use what that writes"
        )
    if len(parameters) != len(names):
        fault = f"has {len(parameters)} parameters, but those of {model} are {' '.join(names)}"
        raise InputError(f"{shown}: {fault}; export the model again")
    values = zip((NAMES.get(name, name) for name in names), parameters, strict=True)
    return Lens(dict(values) | dict(zip("wh", size, strict=True)), shown, model)


def _camera_to_world(pose: tuple[float, ...]) -> np.ndarray:
    """`[4, 4]`, from a quaternion, w first, and a translation, world-to-camera. nan for a quaternion of length 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        w, x, y, z = np.array(pose[:4]) / np.linalg.norm(pose[:4])
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation.T, -rotation.T @ pose[4:]
    return c2w


def _records(storage: Storage, file: str, binary: Any, text: Any) -> Iterator[Any]:
    """What the file holds, read by `binary` or by `text`. Raises InputError if it is damaged."""
    data = storage.read(file)
    try:
        if file.endswith(".bin"):
            yield from binary(_Cursor(data))
        else:
            yield from text(
                line for line in data.decode("utf-8-sig", "surrogateescape").splitlines() if not line.startswith("#")
            )
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        reason = printable(str(error)[:100])
        raise InputError(f"{storage.shown(file)}: is damaged or cut short ({reason}); export the model again") from None


class _Cursor:
    """Reads values from a binary file's content, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def take(self, layout: str) -> tuple:
        values = struct.unpack_from(f"<{layout}", self.data, self.place)
        self.place += struct.calcsize(f"<{layout}")
        return values

    def name(self) -> str:
        end = self.data.index(b"\0", self.place)
        start, self.place = self.place, end + 1
        return self.data[start:end].decode(errors="surrogateescape")  # as file systems do

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        start = self.place
        self.place += count * dtype.itemsize
        return np.frombuffer(self.data, dtype, count, start) if count else np.empty(0, dtype)


def _binary_cameras(file: _Cursor) -> Iterator[tuple]:
    for _ in range(*file.take("Q")):
        number, model, *size = file.take("IiQQ")
        name = list(CAMERA_MODELS)[model] if 0 <= model < len(CAMERA_MODELS) else f"number {model}"
        yield number, name, tuple(size), file.take(f"{len(CAMERA_MODELS.get(name, '').split())}d")


def _text_cameras(lines: Iterator[str]) -> Iterator[tuple]:
    for number, model, width, height, *parameters in map(str.split, filter(str.strip, lines)):
        yield int(number), model, (int(width), int(height)), tuple(map(float, parameters))


def _binary_images(file: _Cursor) -> Iterator[tuple]:
    for _ in range(*file.take("Q")):
        _, *pose, camera = file.take("I7dI")
        name = file.name()
        yield name, tuple(pose), camera, file.array(POINT_OF_IMAGE, *file.take("Q"))["point"]


def _text_images(lines: Iterator[str]) -> Iterator[tuple]:
    """Two lines each: the second one, which may be empty, lists x, y and the point's id for each point."""
    for line in filter(str.strip, lines):
        words = line.split(maxsplit=9)
        pose, (camera, name) = words[1:8], words[8:]
        points = np.array(next(lines, "").split()[2::3], dtype=np.int64)
        yield name.strip(), tuple(map(float, pose)), int(camera), points


def _binary_points(file: _Cursor) -> Iterator[tuple]:
    for _ in range(*file.take("Q")):
        number, x, y, z, _, track = file.take("q3d3xdQ")
        file.place += 8 * track  # the photos that see it
        yield number, (x, y, z)


def _text_points(lines: Iterator[str]) -> Iterator[tuple]:
    for line in filter(str.strip, lines):
        number, x, y, z, *_ = line.split(maxsplit=4)
        yield np.int64(int(number)), (float(x), float(y), float(z))
