"""Scenes in SRN's layout, `<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}`, in a folder or a `.zip`.

Starting lists names only and examines the first scene; every other file is read, and checked, when a sample uses it.
Or, which is much faster, all are read once, into a pack.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from genvs.config import SceneConfig
from genvs.data.camera_checks import depth_range, warn_if_suspicious
from genvs.data.files import MAX_IMAGE_BYTES, MAX_TEXT_BYTES, Intrinsics, read_intrinsics, read_pose, read_view
from genvs.data.packed import DecodedViews, Pack, PackPlan, ensure_pack
from genvs.data.storage import Storage, find_storage, natural_key, printable
from genvs.data.types import ViewBatch, Views
from genvs.data.view_sampling import SampleRequest, choose_views
from genvs.errors import InputError
from genvs.geometry import Cameras

NEAR_FAR = {"cars": (0.8, 1.8), "chairs": (1.25, 2.75)}  # by the beginning of the split folder's name
IMAGE_SUFFIXES = ("png", "jpg", "jpeg")
LAYOUT = "<split>/<scene>/{rgb/*.png,pose/*.txt,intrinsics.txt}"
MAKE_ONE = "make a dataset with: python -m genvs.data.synthetic --out datasets/cars"


class Splits(NamedTuple):
    """The parts of a dataset, as paths for SRNScenes; held-out ones may be missing."""

    train: Path
    val: Path | None = None
    test: Path | None = None


def open_splits(path: str | os.PathLike[str]) -> Splits:
    """Find the splits of a dataset.

    `path` is one of: the common part of `cars_train`, `cars_val`, `cars_test`; a folder that has one `*_train` folder;
    a split itself (one named `*_train` brings its siblings); a `.zip` of any of these. Paths into a zip are written as
    if it were a folder. Raises InputError where no split is found, or a held-out scene is also a training scene.
    """
    train = _find_train(Path(path))
    splits = Splits(train)
    if train.name.endswith("_train"):
        for split in ("val", "test"):
            sibling = train.with_name(train.name.removesuffix("train") + split)
            if find_storage(sibling):
                _refuse_shared_scenes(train, sibling)
                splits = splits._replace(**{split: sibling})
    return splits


class SRNScenes(Dataset):
    """The scenes of one split, as a map from the B SampleRequests of a batch to the ViewBatch.

    path: a split as `open_splits` gives it. resolution: side of the images, pixels. near, far: depth planes in world
    units; by default from the split's `dataset.json`, else from NEAR_FAR by name, else derived from the cameras.
    seed: of the choice of views. xflip: mirror every sample with probability 1/2.

    A sample is a function of (seed, sample_index, num_inputs, num_targets) and its scene's files alone.
    Raises InputError for anything that is wrong with names, the first scene, near and far; later for a file in use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resolution: int,
        near: float | None = None,
        far: float | None = None,
        seed: int = 0,
        xflip: bool = False,
    ) -> None:
        storage = find_storage(path)
        if storage is None:
            raise InputError(f"{printable(path)}: no such folder; give one of scenes, or {MAKE_ONE}")
        self.storage: Storage = storage
        self.path, self.resolution, self.seed, self.xflip = Path(path), resolution, seed, xflip
        self._scenes = _list_scenes(storage, self.path)
        self._c2w: dict[tuple[int, int], np.ndarray] = {}
        self._intrinsics: dict[str, Intrinsics] = {}
        self._pack: Pack | None = None
        self._examine_first_scene(near, far)

    @property
    def scene_names(self) -> list[str]:
        """In natural order, `car2` before `car10`."""
        return [scene.name for scene in self._scenes]

    def __len__(self) -> int:
        return len(self._scenes)

    def num_views(self, scene: int) -> int:
        return len(self._scenes[scene].images)

    def check_views(self, min_views: int) -> None:
        """Raise InputError for the first scene that has fewer views than a sample needs (inputs and targets)."""
        for scene in self._scenes:
            self._require_views(scene, min_views)

    def scene_config(self) -> SceneConfig:
        """The camera model, for the network's config; focal and radius are those of the first scene."""
        return self._scene_config

    def make_pack(self, workers: int) -> PackPlan:
        """From now on take views from the pack beside the split; it is made unless it is there and of today's files.

        workers: processes that decode. Returns the plan, with which other processes can `use_pack`, without looking at
        every file again. Raises InputError for any file that cannot be used, OSError where the pack cannot be written.
        """
        sources = hashlib.sha256()
        for scene in self._scenes:
            for name in (*scene.images, *scene.poses, *dict.fromkeys(scene.intrinsics)):
                sources.update(repr((name, *self.storage.state(name))).encode())
        plan = PackPlan(
            path=self.storage.beside(f".{self.resolution}px.pack"),
            resolution=self.resolution,
            num_views=tuple(len(scene.images) for scene in self._scenes),
            sources=sources.hexdigest(),
        )
        self._pack = ensure_pack(plan, self._decode_scene, workers)
        return plan

    def use_pack(self, plan: PackPlan) -> None:
        """From now on take views from the pack that `make_pack` has made or found elsewhere. Raises as `Pack`."""
        self._pack = Pack(plan)

    def load(self, scenes: int | np.ndarray, views: Sequence[int] | np.ndarray) -> Views:
        """Views by their scenes and their places in natural order: integers that broadcast to `[...]`.

        Images are uint8 `[..., 3, resolution, resolution]`. Raises IndexError for a place that a scene does not have.
        """
        scenes, views = np.broadcast_arrays(scenes, views)
        pairs = list(zip(scenes.flat, views.flat, strict=True))
        if not all(0 <= view < self.num_views(scene) for scene, view in pairs):
            raise IndexError(f"no such views: {views.tolist()} of scenes {scenes.tolist()}")
        decoded = self._decode(pairs, views.shape) if self._pack is None else self._pack.read(scenes, views)
        images, c2w, intrinsics = map(torch.from_numpy, decoded)
        near, far = (torch.full(views.shape, depth) for depth in (self._scene_config.near, self._scene_config.far))
        return Views(images, Cameras(c2w, intrinsics, near, far))

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ViewBatch:
        """inputs `[B, V]`, targets `[B, T]`, sample_index `[B]`. Reads the files of these views and no other.

        All requests must ask for the same numbers of views.
        """
        chosen, flips = [], []
        for request in requests:
            rng = np.random.default_rng((self.seed, request.sample_index))
            self._require_views(self._scenes[request.scene], request.num_inputs + request.num_targets)
            chosen.append(choose_views(self.num_views(request.scene), request.num_inputs, request.num_targets, rng))
            flips.append(self.xflip and rng.random() < 0.5)
        scenes = np.array([request.scene for request in requests])[:, None]
        inputs, targets = (self.load(scenes, np.stack(views)) for views in zip(*chosen, strict=True))
        if any(flips):
            inputs, targets = (
                Views.stack([views[i].mirrored() if flip else views[i] for i, flip in enumerate(flips)])
                for views in (inputs, targets)
            )
        return ViewBatch(inputs, targets, torch.tensor([request.sample_index for request in requests]))

    def _require_views(self, scene: _Scene, min_views: int) -> None:
        if len(scene.images) < min_views:
            raise InputError(
                f"{self._shown(scene.name)}: has {len(scene.images)} views where {min_views} are needed (inputs and "
                "targets); ask for fewer views, or remove this scene"
            )

    def _shown(self, name: str) -> str:
        return printable(self.path / name)

    def _load_c2w(self, scene: int, view: int) -> np.ndarray:
        if (scene, view) not in self._c2w:
            name = self._scenes[scene].poses[view]
            self._c2w[scene, view] = read_pose(self.storage.read(name, MAX_TEXT_BYTES), self._shown(name))
        return self._c2w[scene, view]

    def _load_intrinsics(self, scene: int, view: int) -> Intrinsics:
        name = self._scenes[scene].intrinsics[view]
        if name not in self._intrinsics:
            self._intrinsics[name] = read_intrinsics(self.storage.read(name, MAX_TEXT_BYTES), self._shown(name))
        return self._intrinsics[name]

    def _load_view(self, scene: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """uint8 image `[3, H, W]` and normalised intrinsics `[3, 3]`."""
        name = self._scenes[scene].images[view]
        data = self.storage.read(name, MAX_IMAGE_BYTES)
        return read_view(data, self._load_intrinsics(scene, view), self.resolution, self._shown(name))

    def _decode(self, pairs: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> DecodedViews:
        """The views of these (scene, view), from their files, in a leading shape of `shape`."""
        loaded = [(*self._load_view(scene, view), self._load_c2w(scene, view)) for scene, view in pairs]
        images, intrinsics, c2w = (np.stack(part).reshape(*shape, *part[0].shape) for part in zip(*loaded, strict=True))
        return DecodedViews(images, c2w.astype(np.float32), intrinsics.astype(np.float32))

    def _decode_scene(self, scene: int) -> DecodedViews:
        views = range(self.num_views(scene))
        return self._decode([(scene, view) for view in views], (len(views),))

    def _examine_first_scene(self, near: float | None, far: float | None) -> None:
        """Meet common mistakes before any expensive work, and settle near, far, focal and radius."""
        shown, views = self._shown(self._scenes[0].name), range(self.num_views(0))
        c2w = np.stack([self._load_c2w(0, view) for view in views])
        if len(c2w) > 1 and np.ptp(c2w, axis=0).max() == 0:
            raise InputError(f"{shown}: all its poses are the same; write each view's own camera-to-world matrix")
        for view in views:
            self._load_intrinsics(0, view)
        intrinsics = self._load_view(0, 0)[1]
        near, far = _settle_depths(self.storage, self.path, near, far, depth_range(c2w, intrinsics[None]))
        warn_if_suspicious(c2w, near, far, shown)
        radius = float(np.median(np.linalg.norm(c2w[:, :3, 3], axis=1)))
        self._scene_config = SceneConfig(near=near, far=far, focal=float(intrinsics[0, 0]), radius=radius)


class _Scene(NamedTuple):
    """A scene's files, one of each kind a view, in natural order; paths within the split."""

    name: str
    images: list[str]
    poses: list[str]
    intrinsics: list[str]


def _list_scenes(storage: Storage, path: Path) -> list[_Scene]:
    folders = sorted((name[:-1] for name in storage.names() if name.endswith("/")), key=natural_key)
    if not folders:
        raise InputError(f"{printable(path)}: holds no scene folders; the layout is {LAYOUT}; or {MAKE_ONE}")
    return [list_scene(storage, path, folder) for folder in folders]


def list_scene(storage: Storage, path: Path, scene: str) -> _Scene:
    """Pair the views of a scene by file name; what does not pair is refused."""
    shown = printable(path / scene)
    there = storage.names(scene)
    for folder in ("rgb", "pose"):
        if folder + "/" not in there:
            raise InputError(f"{shown}: has no folder {folder}; the layout is {LAYOUT}; complete or remove this scene")
    images = files_by_stem(storage, path, f"{scene}/rgb", IMAGE_SUFFIXES)
    poses = files_by_stem(storage, path, f"{scene}/pose", ("txt",))
    if not images:
        raise InputError(f"{shown}/rgb: holds no images (.png or .jpg); add them or remove this scene")
    stems = sorted(images, key=natural_key)
    _refuse_unpaired(shown, images, poses, "pose")
    if "intrinsics/" in there:
        intrinsics = files_by_stem(storage, path, f"{scene}/intrinsics", ("txt",))
        _refuse_unpaired(shown, images, intrinsics, "intrinsics")
        of_views = [intrinsics[stem] for stem in stems]
    elif "intrinsics.txt" in there:
        of_views = [f"{scene}/intrinsics.txt"] * len(stems)
    else:
        raise InputError(f"{shown}/intrinsics.txt: is missing; add it ('f cx cy 0.', '0. 0. 0.', '1.', 'height width')")
    return _Scene(scene, [images[stem] for stem in stems], [poses[stem] for stem in stems], of_views)


def files_by_stem(storage: Storage, path: Path, folder: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    """File name without suffix to path, for the files that have one of `suffixes` (lower case, without the dot)."""
    found: dict[str, str] = {}
    for name in storage.names(folder):
        stem, _, suffix = name.removesuffix("/").rpartition(".")
        if suffix.lower() not in suffixes:
            continue
        if name.endswith("/"):
            raise InputError(f"{printable(path / folder / name)}: is a folder, not a file; remove it")
        if stem in found:
            other = printable(os.path.basename(found[stem]))
            raise InputError(f"{printable(path / folder / name)}: is there twice, also as {other}; keep one")
        found[stem] = f"{folder}/{name}"
    return found


def _refuse_unpaired(shown: str, images: dict[str, str], others: dict[str, str], kind: str) -> None:
    if images.keys() == others.keys():
        return
    unpaired = min(images.keys() ^ others.keys(), key=natural_key)
    there, missing = ("rgb", kind) if unpaired in images else (kind, "rgb")
    raise InputError(
        f"{shown}/{there}: '{printable(unpaired)}' has no file of the same name in {missing}/; "
        f"there are {len(images)} images and {len(others)} {kind} files: add the missing one, or remove this one"
    )


def _settle_depths(
    storage: Storage, path: Path, near: float | None, far: float | None, derived: tuple[float, float]
) -> tuple[float, float]:
    """near and far: as given, else the split's own, else by its name, else as derived from the cameras."""
    by_name = next((depths for name, depths in NEAR_FAR.items() if path.name.startswith(name)), derived)
    default_near, default_far = _recorded_depths(storage, path) or by_name
    near, far = (default_near if near is None else near), (default_far if far is None else far)
    if not 0 < near < far < math.inf:
        raise InputError(f"{printable(path)}: near={near:g}, far={far:g}; choose --near and --far with 0 < near < far")
    return float(near), float(far)


def _recorded_depths(storage: Storage, path: Path) -> tuple[float, float] | None:
    """near and far from the split's `dataset.json`, where it has one that states them."""
    if "dataset.json" not in storage.names():
        return None
    try:
        record = json.loads(storage.read("dataset.json", MAX_TEXT_BYTES))
        return (float(record["near"]), float(record["far"])) if "near" in record or "far" in record else None
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InputError(
            f"{printable(path / 'dataset.json')}: not JSON with numbers near and far; correct or remove it"
        ) from None


def _find_train(path: Path) -> Path:
    """The folder of training scenes that `path` stands for, as described in `open_splits`."""
    beside = path.parent / f"{path.name}_train"
    if path.name and find_storage(beside):
        return beside
    storage = find_storage(path)
    if storage is None:
        if os.path.exists(path):
            raise InputError(f"{printable(path)}: is neither a folder nor a .zip; give one of {LAYOUT}, or {MAKE_ONE}")
        raise InputError(f"{printable(path)}: no such folder or .zip, nor {printable(beside)}; give one, or {MAKE_ONE}")
    folders = [name[:-1] for name in storage.names() if name.endswith("/")]
    trains = sorted(name for name in folders if name.endswith("_train"))
    if len(trains) == 1:
        return path / trains[0]
    if trains:
        raise InputError(f"{printable(path)}: holds {' and '.join(map(printable, trains))}; name one of them")
    if "rgb" in folders:
        raise InputError(f"{printable(path)}: is a single scene; give the folder that holds the scenes")
    if any("rgb/" in storage.names(folder) for folder in folders):
        return path
    if len(folders) == 1:  # an archive's own top folder
        return _find_train(path / folders[0])
    raise InputError(f"{printable(path)}: holds no scenes and no *_train folder; the layout is {LAYOUT}; or {MAKE_ONE}")


def _refuse_shared_scenes(train: Path, held_out: Path) -> None:
    """Scenes may share a name (a counter), but not their first image too: then they are not held out."""
    storages = [storage for storage in map(find_storage, (train, held_out)) if storage]
    common = set.intersection(*(set(storage.names()) for storage in storages))
    for scene in sorted(name for name in common if name.endswith("/")):
        first, second = (_first_image(storage, scene) for storage in storages)
        if first and first == second:
            raise InputError(
                f"{printable(held_out / scene)}: is also in {printable(train)}, and would not be held out; "
                "remove one of the two"
            )


def _first_image(storage: Storage, scene: str) -> bytes | None:
    names = storage.names(f"{scene}rgb") if "rgb/" in storage.names(scene) else []
    first = min((name for name in names if name.lower().endswith(IMAGE_SUFFIXES)), default=None)
    return storage.read(f"{scene}rgb/{first}", MAX_IMAGE_BYTES) if first else None
