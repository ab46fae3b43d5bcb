"""Views of scenes, in files of any format: decoded or from packs, with the cameras as they are used."""

import abc
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from genvs.config import SceneConfig
from genvs.data.camera_checks import (
    Placement,
    checked_position,
    depth_range,
    normalizing,
    settle_convention,
    warn_of_cameras,
    warn_of_center,
)
from genvs.data.framing import Framing
from genvs.data.pack_index import PackIndex, mark
from genvs.data.packed import JoinedPacks, Pack, ensure_pack
from genvs.data.scene import Scene
from genvs.data.storage import printable
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras, to_opencv
from genvs.modalities import MODALITIES, PICTURE_CHANNELS, modality_names


class SceneViews(abc.ABC):
    """What SceneDataset knows about its scenes and their views; it documents the arguments."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        resolution: int,
        near: float | None,
        far: float | None,
        convention: str | None,
        normalize: bool | float,
        framing: Framing,
        modalities: Sequence[str],
    ) -> None:
        self.modalities = modality_names(modalities)
        self.path, self.resolution, self.framing = Path(path), resolution, framing
        self.normalize = SceneConfig().radius if normalize is True else normalize
        self._placements: dict[int, Placement] = {}
        self._packs: dict[int, Pack | JoinedPacks] = {}  # by modality
        self.scenes = self.list_scenes(self.path)
        if not self.scenes:
            raise InputError(f"{printable(path)}: {type(self).__name__} finds no scene there; check the path")
        # In arrays, and few lists: what is kept of each scene is copied into every process that looks at it.
        self._num_views, self._kind = np.empty(len(self.scenes), np.int64), np.empty(len(self.scenes), np.uint8)
        kinds: dict[tuple[str, ...], int] = {}
        for number, scene in enumerate(self.scenes):
            scene.framing = framing
            there = tuple(name for name in self.modalities if name in scene.modalities)
            if not there:
                wanted = " or ".join(f"{name}/" for name in self.modalities)
                raise InputError(f"{scene.shown}: has no {wanted}; add one with pictures, or remove this scene")
            self._num_views[number] = len(scene.view_names)
            self._kind[number] = kinds.setdefault(there, len(kinds))
        self._kinds = list(map(list, kinds))
        self._examine_first_scene(near, far, convention)

    @abc.abstractmethod
    def list_scenes(self, path: Path) -> Sequence[Scene]:
        """The scenes at `path`, in order. Called once."""

    def default_depths(self) -> tuple[float, float] | None:
        """near and far, world units, if the data give them."""
        return None

    def pack_path(self) -> Path | None:
        """The file to keep decoded images in; None for no pack, as for scenes without `file_states`."""
        return None

    @property
    def scene_names(self) -> list[str]:
        return [scene.name for scene in self.scenes]

    def num_views(self, scene: int) -> int:
        return int(self._num_views[scene])

    def modalities_of(self, scene: int) -> list[str]:
        """The modalities that a scene has, of those that were asked for."""
        return self._kinds[self._kind[scene]]

    def scene_config(self) -> SceneConfig:
        """The camera model, for the network's config; focal and radius are those of the first scene."""
        return self._scene_config

    def digest_of_files(self, modality: str | None = None) -> str:
        """Changes with any of the files (`Scene.file_states`), the classes that read them, and how poses are read.

        modality: only of its files; by default of all.
        """
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in (type(self), *map(type, self.scenes[:1]))]
        digest = hashlib.sha256(repr((self.convention, self.normalize, self.framing, kinds)).encode())
        for name in self.modalities if modality is None else [modality]:
            if name == "depth":  # its pictures are coded by them
                digest.update(repr(self._scene_config.planes).encode())
            for scene in (scene for scene in self.scenes if name in scene.modalities):
                for state in scene.file_states() if name == "rgb" else scene.picture_states(name):
                    digest.update(repr(state).encode())
        return digest.hexdigest()

    def make_packs(self, workers: int, *, verify: bool = False) -> list[Pack]:
        """Takes views from the packs at `pack_path` from now on; makes them unless they are there and up to date.

        workers: processes that decode. verify: compare the packs' checksums too, which reads all of them. Returns the
        packs, which other processes can use without examining every file again; none for a dataset without packs.
        Raises InputError for any file that cannot be used, OSError if a pack cannot be written.
        """
        path, packs = self.pack_path(), []
        self._packs = {}
        for name in self.modalities if path is not None else ():
            assert path is not None
            there = np.array([name in kind for kind in self._kinds])[self._kind]
            views = np.where(there, self._num_views, 0)
            index = self._pack_index(name, views).to_bytes()
            file = path if name == "rgb" else path.with_suffix(f".{name}{path.suffix}")
            pack = Pack(file, self.resolution, views, self.digest_of_files(name), mark(index), name)

            def decode(scene: int, modality=MODALITIES[name].index) -> Views:
                return self.load(scene, np.arange(self.num_views(scene)), modality)

            packs.append(ensure_pack(pack, index, decode, workers, verify=verify))
        self.use_packs(packs)
        return packs

    def _pack_index(self, modality: str, views: np.ndarray) -> PackIndex:
        """views: how many of each scene are in the pack of this modality."""
        settings = {
            "normalize": self.normalize,
            "framing": self.framing,
            # Those of the data: views do not depend on those that a user chooses, but for depths.
            "depths": None if self.normalize else self.default_depths(),
            "planes": self._scene_config.planes if modality == "depth" else None,
        }
        depths = [np.empty((0, 2))]
        for scene in np.flatnonzero(views).tolist() if self.scenes[0].read_depths() is not None else ():
            own = self._own_depths(scene)
            depths.append(np.full((views[scene], 2), np.nan) if own is None else own)
        return PackIndex.of(settings, self.scenes, views, np.concatenate(depths))

    def use_packs(self, packs: Sequence[Pack]) -> None:
        """Takes views from now on from packs that `make_packs` has made or found, perhaps in another process."""
        for pack in packs:
            pack.is_current()  # opens it: what replaces the file later makes no difference
            self._packs[MODALITIES[pack.modality].index] = pack

    def load(
        self, scenes: int | np.ndarray, views: Sequence[int] | np.ndarray, modalities: int | np.ndarray | None = None
    ) -> Views:
        """Views by the indices of scenes, of views in them, and of modalities, integers that broadcast to `[...]`.

        modalities: by default the dataset's first. Images are uint8 `[..., 3, resolution, resolution]`. Raises
        InputError for a view that a scene does not have.
        """
        first = MODALITIES[self.modalities[0]].index
        scenes, views, modalities = np.broadcast_arrays(scenes, views, first if modalities is None else modalities)
        places = list(zip(scenes.flat, views.flat, modalities.flat, strict=True))
        for scene, view, _ in places:
            if not 0 <= view < self.num_views(scene):
                last = self.num_views(scene) - 1
                raise InputError(f"{self.scenes[scene].shown}: has no view {view}; choose from 0 to {last}")
        depths = self._depths(scenes, views)
        if not self._packs:
            planes = np.broadcast_to(depths, (*views.shape, 2)).reshape(-1, 2)
            decoded = [self._decoded(*place, near_far) for place, near_far in zip(places, planes, strict=True)]
            parts = map(np.stack, zip(*decoded, strict=True))
            images, intrinsics, c2w = (part.reshape(*views.shape, *part.shape[1:]) for part in parts)
        else:
            images = np.empty((*views.shape, PICTURE_CHANNELS, self.resolution, self.resolution), np.uint8)
            c2w, intrinsics = np.empty((*views.shape, 4, 4)), np.empty((*views.shape, 3, 3))
            for index in np.unique(modalities):
                own = modalities == index
                images[own], c2w[own], intrinsics[own] = self._packs[index].read(scenes[own], views[own])
        return Views(torch.from_numpy(images), self._cameras(c2w, intrinsics, depths, modalities))

    def _decoded(self, scene: int, view: int, modality: int, near_far: np.ndarray) -> tuple[np.ndarray, ...]:
        """A view's picture, intrinsics and c2w."""
        placement = self.placement(scene)
        near, far = near_far if placement is None else near_far / placement.scale
        read = self.scenes[scene].checked_view(view, self.resolution, list(MODALITIES)[modality], (near, far))
        return *read, self._placed_view(scene, view)

    def target_cameras(self, scene: int) -> tuple[list[str], Cameras] | None:
        """Names and cameras `[K]` that the scene's files give to draw from (`Scene.read_targets`), if they do."""
        targets = self.scenes[scene].read_targets()
        if targets is None:
            return None
        names, c2w, intrinsics = targets
        return names, self._cameras(self._placed(scene, c2w), intrinsics, self._depths())

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

    def _cameras(
        self, c2w: np.ndarray, intrinsics: np.ndarray, depths: np.ndarray, modalities: int | np.ndarray = 0
    ) -> Cameras:
        """Cameras in float32, from placed poses `[..., 4, 4]` with OpenCV axes, intrinsics `[..., 3, 3]`, near and far
        `[..., 2]` or `[2]`, and modalities that broadcast to `[...]`.
        """
        near, far = np.moveaxis(np.broadcast_to(depths, (*c2w.shape[:-2], 2)), -1, 0)
        numbers = [np.array(part, dtype=np.float32) for part in (c2w, intrinsics, near, far)]
        return Cameras(*map(torch.from_numpy, [*numbers, np.broadcast_to(modalities, near.shape).astype(np.int64)]))

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
        c2w, intrinsics = self.all_c2w(0), scene.checked_view(0, self.resolution, self.modalities_of(0)[0])[1]
        # A scene that is scaled does not keep the depths that its files give.
        stated = None if self.normalize else self.default_depths()
        self._check_ranges(near, far, stated)
        own = self._own_depths(0) if near is None and far is None else None
        if own is not None:
            near, far = np.median(own, axis=0).tolist()
        elif near is None or far is None:
            default = stated or depth_range(c2w, intrinsics, scene.shown)
            near, far = (usual if given is None else given for given, usual in zip((near, far), default, strict=True))
        radius = float(np.median(np.linalg.norm(c2w[:, :3, 3], axis=1)))
        focal, (fit, background) = float(intrinsics[0, 0]), self.framing
        self._scene_config = SceneConfig(near, far, focal, radius, 0, own is not None, fit, background)
        warn_of_center(intrinsics, scene.shown_view(0))
        warn_of_cameras(c2w, None if own is not None else (near, far), scene.shown)
        width, height = size = scene.image_size(0) or (self.resolution, self.resolution)
        self.enlarged_from = size if min(size) < self.resolution else None
        if self.enlarged_from:
            warnings.warn(
                f"{scene.shown_view(0)}: is {width}x{height} pixels, enlarged to {self.resolution}x{self.resolution}, "
                "which adds no detail; give larger images, or use a network of a smaller `resolution`",
                stacklevel=2,
            )

    def _check_ranges(self, near: float | None, far: float | None, stated: tuple[float, float] | None) -> None:
        """Raises InputError if pictures of a radar or a sonar would not reach from the near plane to the far plane.

        stated: the planes that the data state.
        """
        there = [name for name in self.modalities if any(name in scene.modalities for scene in self.scenes)]
        ranged = next((name for name in there if MODALITIES[name].decibels), None)
        given, usual = (np.array(planes or (None, None), dtype=float) for planes in ((near, far), stated))
        planes = np.where(np.isnan(given), usual, given)
        fault = None
        if ranged and self.normalize:
            fault = "so their scenes cannot be scaled; leave out `normalize`"
        elif ranged and np.isnan(planes).any():
            fault = "which the data do not state; give `near` and `far`, or write them into dataset.json"
        elif ranged and stated and not np.allclose(planes, stated, rtol=1e-3):
            fault = f"{stated[0]:g} and {stated[1]:g} by the data; give no other `near` and `far`"
        if fault:
            raise InputError(f"{printable(self.path)}: pictures of {ranged} reach from near to far, {fault}")
