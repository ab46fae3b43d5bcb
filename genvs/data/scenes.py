"""What all datasets share, in files of any format: choosing views, checking cameras, packing.

A dataset is a list of `Scene`s, which know their files. genvs.data.stored reads the layouts on disk (SRN's,
`transforms.json`, COLMAP). Your own class has to define the abstract methods of the two classes (docs/data.md).
"""

from __future__ import annotations

import abc
import hashlib
import itertools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from genvs.config import SceneConfig
from genvs.data.camera_checks import (
    Placement,
    checked_position,
    depth_range,
    normalizing,
    settle_convention,
    warn_of_cameras,
)
from genvs.data.framing import WHOLE_ON_WHITE, Framing
from genvs.data.packed import Pack, ensure_pack
from genvs.data.scene import Scene
from genvs.data.storage import open_split, printable
from genvs.data.types import ViewBatch, Views
from genvs.errors import InputError
from genvs.geometry import Cameras, to_opencv
from genvs.random import Stream, numpy_generator

LABELS_FILE = "labels.json"
MAX_CLASSES = 10_000


class SampleRequest(NamedTuple):
    """What a sampler asks a dataset for.

    scene: index of the scene. sample_index: the number of scenes drawn before, over all ranks, since training began; it
    seeds everything random about the sample. num_inputs, num_targets: the numbers of views.
    """

    scene: int
    sample_index: int
    num_inputs: int
    num_targets: int


class Splits(NamedTuple):
    """The parts of a dataset, as paths for a SceneDataset; None for a held-out part that does not exist."""

    train: Path
    val: Path | None = None
    test: Path | None = None


class SceneDataset(Dataset, abc.ABC):
    """A map from the B SampleRequests of a batch to its ViewBatch.

    path: what `list_scenes` takes. resolution: side of the images, pixels. near, far: depth planes, world units; by
    default each view's own (`Scene.read_depths`), else those of `default_depths`, else derived from the first scene's
    cameras. seed: of the choice of views. xflip: mirror every sample with probability 1/2. convention: 'opencv' or
    'opengl', the axes of all poses; by default see `settle_convention`. normalize: move and scale each scene, so that
    what its cameras look at is at the origin, at this median distance from them (world units), for True
    SceneConfig's. framing: how images become square, and their background.

    Warns of what looks wrong with the first scene's cameras, and if its first image is smaller than `resolution`: then
    `enlarged_from` is its width and height, pixels, else None.

    A sample is a function of (seed, sample_index, num_inputs, num_targets) and its scene's files. Raises InputError for
    anything wrong with names, the first scene, near and far; for any other file when it is used.
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
        framing: Framing = WHOLE_ON_WHITE,
    ) -> None:
        self.path, self.resolution, self.seed, self.xflip = Path(path), resolution, seed, xflip
        self.normalize = SceneConfig().radius if normalize is True else normalize
        self.scenes = self.list_scenes(self.path)
        if not self.scenes:
            raise InputError(f"{printable(path)}: {type(self).__name__} finds no scene there; check the path")
        for scene in self.scenes:
            scene.framing = framing
        self.framing = framing
        self._placements: dict[int, Placement] = {}
        self.hold_out_every = 0  # if not 0, the views 0, n, 2n, ... of a scene are in no sample
        self._pack: Pack | None = None
        self.one_hot: torch.Tensor | None = None  # classes of the scenes, for batches: float32 `[scenes, K]`
        self._examine_first_scene(near, far, convention)

    @classmethod
    def find_splits(cls, path: str | os.PathLike[str]) -> Splits:
        """The parts of the dataset at `path`: for training and, if there are such, for validation and testing."""
        return Splits(Path(path))

    @abc.abstractmethod
    def list_scenes(self, path: Path) -> Sequence[Scene]:
        """The scenes at `path`, in order. Called once."""

    def default_depths(self) -> tuple[float, float] | None:
        """near and far, world units, if the data give them."""
        return None

    def pack_path(self) -> Path | None:
        """The file to keep decoded images in; None for no pack, as for scenes without `file_states`."""
        return None

    def classes(self) -> Sequence[Any]:
        """The class of each scene, for class-conditional networks: by default that in `labels.json`, or None.

        The file lies in the split's folder or archive: {"car_0001": 0, "bus_0001": 1}. Raises InputError if it is
        missing or damaged.
        """
        storage, file = open_split(self.path)
        classes = storage.read_json(LABELS_FILE) if storage and LABELS_FILE in storage.names() else None
        if not isinstance(classes, dict):
            raise InputError(
                f"{printable((self.path.parent if file else self.path) / LABELS_FILE)}: is missing or no JSON object, "
                'and class-conditional networks (`cond`) need it; write {"<scene>": <class, from 0 up>, ...}'
            )
        return [classes.get(name) for name in self.scene_names]

    @property
    def scene_names(self) -> list[str]:
        return [scene.name for scene in self.scenes]

    def __len__(self) -> int:
        return len(self.scenes)

    def num_views(self, scene: int) -> int:
        return len(self.scenes[scene].view_names)

    def held_out_views(self, scene: int) -> np.ndarray:
        """The views that no sample has (`hold_out_every`), for evaluation."""
        views = np.arange(self.num_views(scene))
        return views[:: self.hold_out_every] if self.hold_out_every else views[:0]

    def sampled_views(self, scene: int) -> np.ndarray:
        """The views that samples have: all but those held out."""
        return np.setdiff1d(np.arange(self.num_views(scene)), self.held_out_views(scene))

    def view_names(self, scene: int) -> list[str]:
        return list(map(str, self.scenes[scene].view_names))

    def check_views(self, min_views: int) -> None:
        """Raises InputError for the first scene that has fewer views than a sample needs (inputs and targets)."""
        for scene in self.scenes:
            scene.require_views(min_views)

    def checked_classes(self, num_classes: int = MAX_CLASSES) -> list[int]:
        """`classes`. Raises InputError unless they are a whole number below `num_classes` for each scene."""
        classes = self.classes()
        for name, label in itertools.zip_longest(self.scene_names, classes):
            if name is None or isinstance(label, bool) or label not in range(num_classes):
                found = f"scene '{printable(str(name))}' has the class {label!r}"
                remedy = (
                    f"give every scene a whole number from 0 to {num_classes - 1} in {LABELS_FILE}, or in classes()"
                )
                raise InputError(f"{printable(self.path)}: {found}; {remedy}")
        return list(map(int, classes))

    def scene_config(self) -> SceneConfig:
        """The camera model, for the network's config; focal and radius are those of the first scene."""
        return self._scene_config

    def digest_of_files(self) -> str:
        """Changes with any of the files (`Scene.file_states`), the classes that read them, and how poses are read."""
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in (type(self), *map(type, self.scenes[:1]))]
        digest = hashlib.sha256(repr((self.convention, self.normalize, self.framing, kinds)).encode())
        for scene in self.scenes:
            for state in scene.file_states():
                digest.update(repr(state).encode())
        return digest.hexdigest()

    def make_pack(self, workers: int, *, verify: bool = False) -> Pack | None:
        """Takes views from the pack at `pack_path` from now on; makes it unless it is there and up to date.

        workers: processes that decode. verify: compare the pack's checksums too, which reads all of it. Returns the
        pack, which other processes can use without examining every file again; None for a dataset without packs.
        Raises InputError for any file that cannot be used, OSError if the pack cannot be written.
        """
        path = self.pack_path()
        if path is None:
            return None
        views = [range(self.num_views(scene)) for scene in range(len(self))]
        pack = Pack(path, self.resolution, tuple(map(len, views)), self.digest_of_files())
        self._pack = None
        self.use_pack(ensure_pack(pack, lambda scene: self.load(scene, views[scene]), workers, verify=verify))
        return pack

    def use_pack(self, pack: Pack) -> None:
        """Takes views from now on from a pack that `make_pack` has made or found, perhaps in another process."""
        pack.is_current()  # opens it: what replaces the file later makes no difference
        self._pack = pack

    def load(self, scenes: int | np.ndarray, views: Sequence[int] | np.ndarray) -> Views:
        """Views by the indices of scenes and of views in them, integers that broadcast to `[...]`.

        Images are uint8 `[..., 3, resolution, resolution]`. Raises InputError for a view that a scene does not have.
        """
        scenes, views = np.broadcast_arrays(scenes, views)
        pairs = list(zip(scenes.flat, views.flat, strict=True))
        for scene, view in pairs:
            if not 0 <= view < self.num_views(scene):
                last = self.num_views(scene) - 1
                raise InputError(f"{self.scenes[scene].shown}: has no view {view}; choose from 0 to {last}")
        if self._pack is None:
            decoded = [self.scenes[scene].checked_view(view, self.resolution) for scene, view in pairs]
            poses = [self._placed_view(scene, view) for scene, view in pairs]
            parts = (np.stack(part) for part in (*zip(*decoded, strict=True), poses))
            images, intrinsics, c2w = (part.reshape(*views.shape, *part.shape[1:]) for part in parts)
        else:
            images, c2w, intrinsics = self._pack.read(scenes, views)
        return Views(torch.from_numpy(images), self._cameras(c2w, intrinsics, self._depths(scenes, views)))

    def target_cameras(self, scene: int) -> tuple[list[str], Cameras] | None:
        """Names and cameras `[K]` that the scene's files give to draw from (`Scene.read_targets`), if they do."""
        targets = self.scenes[scene].read_targets()
        if targets is None:
            return None
        names, c2w, intrinsics = targets
        return names, self._cameras(self._placed(scene, c2w), intrinsics, self._depths())

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ViewBatch:
        """inputs `[B, V]`, targets `[B, T]`, sample_index `[B]`. Reads the images of these views and no others.

        All requests must ask for the same numbers of views.
        """
        chosen, flips = [], []
        for request in requests:
            rng = numpy_generator(Stream.VIEWS, self.seed, request.sample_index)
            self.scenes[request.scene].require_views(request.num_inputs + request.num_targets)
            views = self.sampled_views(request.scene)
            parts = choose_views(len(views), request.num_inputs, request.num_targets, rng)
            chosen.append([views[part] for part in parts])
            flips.append(self.xflip and rng.random() < 0.5)
        scenes = np.array([request.scene for request in requests])[:, None]
        inputs, targets = (self.load(scenes, np.stack(views)) for views in zip(*chosen, strict=True))
        if any(flips):
            inputs, targets = (
                Views.stack([views[i].mirrored() if flip else views[i] for i, flip in enumerate(flips)])
                for views in (inputs, targets)
            )
        classes = None if self.one_hot is None else self.one_hot[scenes[:, 0]]
        return ViewBatch(inputs, targets, torch.tensor([request.sample_index for request in requests]), classes)

    def placement(self, scene: int) -> Placement | None:
        """How a scene is moved and scaled; None if it is not."""
        if self.normalize and scene not in self._placements:
            c2w = self._opencv(self.scenes[scene].all_c2w())
            self._placements[scene] = normalizing(c2w, self.normalize, self.scenes[scene].shown)
        return self._placements.get(scene)

    def all_c2w(self, scene: int) -> np.ndarray:
        """The poses of a scene's views, `[N, 4, 4]` float64: OpenCV axes, moved and scaled."""
        return np.stack([self._placed_view(scene, view) for view in range(self.num_views(scene))])

    def _opencv(self, c2w: np.ndarray) -> np.ndarray:
        return to_opencv(torch.from_numpy(c2w), self.convention).numpy()

    def _placed(self, scene: int, c2w: np.ndarray) -> np.ndarray:
        """Poses `[..., 4, 4]` from a scene's files, converted to OpenCV axes, moved and scaled."""
        placement = self.placement(scene)
        return self._opencv(c2w) if placement is None else placement.of(self._opencv(c2w))

    def _placed_view(self, scene: int, view: int) -> np.ndarray:
        """The pose `[4, 4]` of a view as it is used. Raises InputError, naming the view, if it cannot be used."""
        c2w = self._placed(scene, self.scenes[scene].checked_c2w(view))
        return checked_position(c2w, self.scenes[scene].shown_view(view))

    def _cameras(self, c2w: np.ndarray, intrinsics: np.ndarray, depths: np.ndarray) -> Cameras:
        """In float32, from placed poses `[..., 4, 4]` with OpenCV axes, intrinsics `[..., 3, 3]`, and near and far
        `[..., 2]` or `[2]`.
        """
        near, far = np.moveaxis(np.broadcast_to(depths, (*c2w.shape[:-2], 2)), -1, 0)
        return Cameras(*(torch.from_numpy(np.array(part, dtype=np.float32)) for part in (c2w, intrinsics, near, far)))

    def _own_depths(self, scene: int) -> np.ndarray | None:
        """near and far of each view of a scene as it is placed, `[N, 2]`; None if the files do not tell them."""
        depths, placement = self.scenes[scene].read_depths(), self.placement(scene)
        return depths if depths is None or placement is None else placement.scale * depths

    def _depths(self, scenes: np.ndarray | None = None, views: np.ndarray | None = None) -> np.ndarray:
        """near and far `[..., 2]` of views `[...]` that have planes of their own, else `[2]`, those of all."""
        usual = np.array([self._scene_config.near, self._scene_config.far])
        if scenes is None or views is None or not self._scene_config.own_depths:
            return usual
        own = {scene: self._own_depths(scene) for scene in set(scenes.flat)}
        pairs = [(own[scene], view) for scene, view in zip(scenes.flat, views.flat, strict=True)]
        return np.reshape([usual if planes is None else planes[view] for planes, view in pairs], (*views.shape, 2))

    def _examine_first_scene(self, near: float | None, far: float | None, convention: str | None) -> None:
        """Sets convention, near, far, focal and radius; finds common mistakes before any expensive work."""
        scene = self.scenes[0]
        scene.require_views(1)
        poses = scene.all_c2w()
        self.convention = settle_convention(poses, convention, scene.convention, scene.certain, scene.shown)
        c2w, intrinsics = self.all_c2w(0), scene.checked_view(0, self.resolution)[1]
        own = self._own_depths(0) if near is None and far is None else None
        if own is not None:
            near, far = np.median(own, axis=0).tolist()
        elif near is None or far is None:
            # A scene that is scaled does not keep the depths that its files give.
            default = None if self.normalize else self.default_depths()
            default = default or depth_range(c2w, intrinsics, scene.shown)
            near, far = (usual if given is None else given for given, usual in zip((near, far), default, strict=True))
        radius = float(np.median(np.linalg.norm(c2w[:, :3, 3], axis=1)))
        focal, (fit, background) = float(intrinsics[0, 0]), self.framing
        self._scene_config = SceneConfig(near, far, focal, radius, 0, own is not None, fit, background)
        warn_of_cameras(c2w, None if own is not None else (near, far), scene.shown)
        width, height = size = scene.image_size(0) or (self.resolution, self.resolution)
        self.enlarged_from = size if min(size) < self.resolution else None
        if self.enlarged_from:
            warnings.warn(
                f"{scene.shown_view(0)}: is {width}x{height} pixels, enlarged to {self.resolution}x{self.resolution}, "
                "which adds no detail; give larger images, or choose a smaller `resolution`",
                stacklevel=2,
            )


def choose_views(
    num_views: int, num_inputs: int, num_targets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of input views `[num_inputs]` and of target views `[num_targets]`, no view twice.

    Asking for more views extends the choice and uses the same random numbers.
    """
    order = rng.permutation(num_views)
    return order[:num_inputs], order[num_inputs : num_inputs + num_targets]
