"""What all datasets share, whatever their files look like: choosing views, checking cameras, packing.

A dataset is a list of `Scene`s, which know their files. SRN's layout is in genvs.data.srn, `transforms.json` in
genvs.data.transforms. A class of your own has to define the abstract methods of the two classes here (docs/data.md).
"""

from __future__ import annotations

import abc
import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from genvs.config import SceneConfig
from genvs.data.camera_checks import Placement, depth_range, normalizing, settle_convention, warn_of_cameras
from genvs.data.labels import LABELS_FILE, MAX_CLASSES, read_classes
from genvs.data.packed import Pack, PackPlan, ensure_pack
from genvs.data.scene import Scene
from genvs.data.storage import counted, printable
from genvs.data.types import ViewBatch, Views
from genvs.data.view_sampling import SampleRequest, choose_views
from genvs.errors import InputError
from genvs.geometry import Cameras, to_opencv
from genvs.random import Stream, numpy_generator


class Splits(NamedTuple):
    """The parts of a dataset, as paths for a SceneDataset; None where there is no such held-out part."""

    train: Path
    val: Path | None = None
    test: Path | None = None


class SceneDataset(Dataset, abc.ABC):
    """A map from the B SampleRequests of a batch to its ViewBatch.

    path: whatever `list_scenes` understands. resolution: side of the images, pixels. near, far: depth planes in world
    units; by default from `default_depths`, else derived from the first scene's cameras. seed: of the choice of views.
    xflip: mirror every sample with probability 1/2. convention: 'opencv' or 'opengl', the axes of all poses; by default
    those usual for such files, or the other ones, with a warning, if the first scene's cameras face away from it.
    normalize: move and scale each scene so that what its cameras look at is at the origin, at this median distance from
    them (world units); True for SceneConfig's.

    Warns of what looks wrong with the first scene's cameras, and where its first image is smaller than `resolution`:
    then `enlarged_from` is its width and height, pixels, else None.

    A sample is a function of (seed, sample_index, num_inputs, num_targets) and its scene's files.
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
        convention: str | None = None,
        normalize: bool | float = False,
    ) -> None:
        self.path, self.resolution, self.seed, self.xflip = Path(path), resolution, seed, xflip
        self.normalize = normalize
        self._scenes = self.list_scenes(self.path)
        if not self._scenes:
            raise InputError(f"{printable(path)}: {type(self).__name__} finds no scene there; check the path")
        self._placements: dict[int, Placement] = {}
        self._pack: Pack | None = None
        self._examine_first_scene(near, far, convention)

    @classmethod
    def find_splits(cls, path: str | os.PathLike[str]) -> Splits:
        """The parts of the dataset at `path`: for training and, where there are such, for validation and testing."""
        return Splits(Path(path))

    @abc.abstractmethod
    def list_scenes(self, path: Path) -> Sequence[Scene]:
        """The scenes at `path`, in order. Called once."""

    def default_depths(self) -> tuple[float, float] | None:
        """near and far, world units, where something states them."""
        return None

    def pack_path(self) -> Path | None:
        """The file to keep decoded images in; None for no pack, as scenes without `file_states` need."""
        return None

    def classes(self) -> list[int]:
        """The class of each scene, for class-conditional networks. Raises InputError where none is stated."""
        return read_classes(self.path, self.scene_names)

    @property
    def scene_names(self) -> list[str]:
        return [scene.name for scene in self._scenes]

    def __len__(self) -> int:
        return len(self._scenes)

    def num_views(self, scene: int) -> int:
        return len(self._scenes[scene].view_names)

    def view_names(self, scene: int) -> list[str]:
        return list(map(str, self._scenes[scene].view_names))

    def check_views(self, min_views: int) -> None:
        """Raise InputError for the first scene that has fewer views than a sample needs (inputs and targets)."""
        for scene in self._scenes:
            scene.require_views(min_views)

    def checked_classes(self) -> list[int]:
        """As `classes`. Raises InputError where they are not a whole number from 0 up for each scene."""
        found, names = self.classes(), self.scene_names
        labels = list(found) if isinstance(found, Iterable) else []
        wrong = [
            f"scene '{printable(name)}' has {'no class' if label is None else f'the class {label!r}'}"
            for name, label in zip(names, labels, strict=False)
            if isinstance(label, bool) or not isinstance(label, Integral) or not 0 <= label < MAX_CLASSES
        ]
        if len(labels) != len(names):
            wrong = [f"there are {len(labels)} classes for {counted(len(names), 'scene')}"]
        if wrong:
            raise InputError(
                f"{printable(self.path)}: {wrong[0]}; give every scene a whole number from 0 to {MAX_CLASSES - 1} in "
                f"{LABELS_FILE}, or in {type(self).__name__}.classes()"
            )
        return [int(label) for label in labels]

    def scene_config(self) -> SceneConfig:
        """The camera model, for the network's config; focal and radius are those of the first scene."""
        return self._scene_config

    def digest_of_files(self) -> str:
        """Changes with any of the files (`Scene.file_states`), the classes that read them, and how poses are read."""
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in (type(self), *map(type, self._scenes[:1]))]
        digest = hashlib.sha256(repr((self.convention, self.normalize, kinds)).encode())
        for scene in self._scenes:
            for state in scene.file_states():
                digest.update(repr(state).encode())
        return digest.hexdigest()

    def make_pack(self, workers: int, *, verify: bool = False) -> PackPlan | None:
        """From now on take views from the pack at `pack_path`; it is made unless it is there and of today's files.

        workers: processes that decode. verify: compare the pack's checksums too, which reads all of it. Returns the
        plan, with which other processes can `use_pack` without looking at every file again; None for a dataset without
        packs. Raises InputError for any file that cannot be used, OSError where the pack cannot be written.
        """
        path = self.pack_path()
        if path is None:
            return None
        num_views = tuple(self.num_views(scene) for scene in range(len(self)))
        plan = PackPlan(path, self.resolution, num_views, self.digest_of_files())
        self._pack = ensure_pack(plan, self._decode_scene, workers, verify=verify)
        return plan

    def use_pack(self, plan: PackPlan) -> None:
        """From now on take views from the pack that `make_pack` has made or found elsewhere. Raises as `Pack`."""
        self._pack = Pack(plan)

    def load(self, scenes: int | np.ndarray, views: Sequence[int] | np.ndarray) -> Views:
        """Views by their scenes and their places in order: integers that broadcast to `[...]`.

        Images are uint8 `[..., 3, resolution, resolution]`. Raises IndexError for a place that a scene does not have.
        """
        scenes, views = np.broadcast_arrays(scenes, views)
        pairs = list(zip(scenes.flat, views.flat, strict=True))
        if not all(0 <= view < self.num_views(scene) for scene, view in pairs):
            raise IndexError(f"no such views: {views.tolist()} of scenes {scenes.tolist()}")
        if self._pack is None:
            return self._decode(pairs, views.shape)
        images, c2w, intrinsics = self._pack.read(scenes, views)
        return Views(torch.from_numpy(images), self._cameras(c2w, intrinsics))

    def target_cameras(self, scene: int) -> tuple[list[str], Cameras] | None:
        """Names and cameras `[K]` that the scene's files ask to draw from (`Scene.read_targets`), if they do."""
        targets = self._scenes[scene].read_targets()
        if targets is None:
            return None
        return targets.names, self._cameras(self._placed(scene, targets.c2w), targets.intrinsics)

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ViewBatch:
        """inputs `[B, V]`, targets `[B, T]`, sample_index `[B]`. Reads the files of these views and no other.

        All requests must ask for the same numbers of views.
        """
        chosen, flips = [], []
        for request in requests:
            rng = numpy_generator(Stream.VIEWS, self.seed, request.sample_index)
            self._scenes[request.scene].require_views(request.num_inputs + request.num_targets)
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

    def placement(self, scene: int) -> Placement | None:
        """How a scene is moved and scaled; None where it is not."""
        if self.normalize and scene not in self._placements:
            c2w = self._opencv(self._scenes[scene].all_c2w())
            radius = SceneConfig().radius if self.normalize is True else self.normalize
            self._placements[scene] = normalizing(c2w, radius, self._scenes[scene].shown)
        return self._placements.get(scene)

    def _opencv(self, c2w: np.ndarray) -> np.ndarray:
        return to_opencv(torch.from_numpy(c2w), self.convention).numpy()

    def _placed(self, scene: int, c2w: np.ndarray) -> np.ndarray:
        """Poses `[..., 4, 4]` of a scene's files with OpenCV axes, and in their place."""
        placement = self.placement(scene)
        return self._opencv(c2w) if placement is None else placement.of(self._opencv(c2w))

    def _cameras(self, c2w: np.ndarray, intrinsics: np.ndarray) -> Cameras:
        """Placed cameras with OpenCV axes, c2w `[..., 4, 4]` and intrinsics `[..., 3, 3]`, in float32."""
        matrices = (torch.from_numpy(np.array(part, dtype=np.float32)) for part in (c2w, intrinsics))
        config = self._scene_config
        return Cameras(*matrices, *(torch.full(c2w.shape[:-2], depth) for depth in (config.near, config.far)))

    def _decode(self, pairs: Sequence[tuple[int, int]], shape: tuple[int, ...]) -> Views:
        """The views of these (scene, view), from their files, in a leading shape of `shape`."""
        views = [self._scenes[scene].checked_view(view, self.resolution) for scene, view in pairs]
        poses = [self._placed(scene, self._scenes[scene].checked_c2w(view)) for scene, view in pairs]
        images, intrinsics, c2w = (
            np.stack(parts).reshape(*shape, *parts[0].shape) for parts in (*zip(*views, strict=True), poses)
        )
        return Views(torch.from_numpy(images).contiguous(), self._cameras(c2w, intrinsics))

    def _decode_scene(self, scene: int) -> Views:
        views = range(self.num_views(scene))
        return self._decode([(scene, view) for view in views], (len(views),))

    def _examine_first_scene(self, near: float | None, far: float | None, convention: str | None) -> None:
        """Settle convention, near, far, focal and radius; find common mistakes before any expensive work."""
        scene = self._scenes[0]
        scene.require_views(1)
        stated_c2w = scene.all_c2w()
        self.convention = settle_convention(stated_c2w, convention, scene.convention, scene.shown)
        c2w = self._placed(0, stated_c2w)
        intrinsics = scene.checked_view(0, self.resolution)[1]
        near, far = self._settle_depths(near, far, depth_range(c2w, intrinsics[None]))
        warn_of_cameras(c2w, near, far, scene.shown)
        self.enlarged_from = self._enlarged_from(scene)
        radius = float(np.median(np.linalg.norm(c2w[:, :3, 3], axis=1)))
        self._scene_config = SceneConfig(near=near, far=far, focal=float(intrinsics[0, 0]), radius=radius)

    def _enlarged_from(self, scene: Scene) -> tuple[int, int] | None:
        """`image_size` of the scene's first view, with a warning, where that is smaller than what it becomes."""
        size = scene.image_size(0)
        if size is None or min(size) >= self.resolution:
            return None
        warnings.warn(
            f"{scene.shown_view(0)}: is {size[0]}x{size[1]} pixels, enlarged to {self.resolution}x{self.resolution}, "
            "which adds no detail; give larger images, or choose a smaller `resolution`",
            stacklevel=2,
        )
        return size

    def _settle_depths(
        self, near: float | None, far: float | None, derived: tuple[float, float]
    ) -> tuple[float, float]:
        """near and far: as given, else as stated (for scenes that keep their scale), else derived from the cameras."""
        default_near, default_far = (None if self.normalize else self.default_depths()) or derived
        near, far = (default_near if near is None else near), (default_far if far is None else far)
        if not 0 < near < far < math.inf:
            raise InputError(f"{printable(self.path)}: `near`={near:g}, `far`={far:g}; choose 0 < `near` < `far`")
        return float(near), float(far)
