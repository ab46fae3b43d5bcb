"""What all datasets share, in files of any format: choosing views, checking cameras, packing.

A dataset is a list of `Scene`s, which know their files. genvs.data.stored reads the layouts on disk (SRN's,
`transforms.json`, COLMAP). Your own class has to define the abstract methods of the two classes (docs/data.md).
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from genvs.data.framing import WHOLE_ON_WHITE, Framing
from genvs.data.scene import Scene as Scene  # for datasets of one's own
from genvs.data.scene_views import SceneViews
from genvs.data.storage import open_split, printable
from genvs.data.types import ViewBatch, Views
from genvs.errors import InputError
from genvs.modalities import MODALITIES
from genvs.random import Stream, numpy_generator

LABELS_FILE = "labels.json"
MAX_CLASSES = 10_000


class SampleRequest(NamedTuple):
    """What a sampler asks a dataset for.

    scene: index of the scene. sample_index: the number of scenes drawn before, over all ranks, since training began; it
    seeds everything random about the sample. num_inputs, num_targets: the numbers of views. inputs, target: modalities
    of the inputs and of all targets, by their places in genvs.modalities.MODALITIES; by default the dataset's first.
    """

    scene: int
    sample_index: int
    num_inputs: int
    num_targets: int
    inputs: tuple[int, ...] = ()
    target: int | None = None


class Splits(NamedTuple):
    """The parts of a dataset, as paths for a SceneDataset; None for a held-out part that does not exist."""

    train: Path
    val: Path | None = None
    test: Path | None = None


class SceneDataset(SceneViews, Dataset):
    """A map from the B SampleRequests of a batch to its ViewBatch.

    path: what `list_scenes` takes. resolution: side of the images, pixels. near, far: depth planes, world units; by
    default each view's own (`Scene.read_depths`), else those of `default_depths`, else derived from the first scene's
    cameras. seed: of the choice of views. xflip: mirror every sample with probability 1/2. convention: 'opencv' or
    'opengl', the axes of all poses; by default see `settle_convention`. normalize: move and scale each scene, so that
    what its cameras look at is at the origin, at this median distance from them (world units), for True
    SceneConfig's. framing: how images become square, and their background. modalities: those that are read, by name; a
    scene may have some of them only.

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
        modalities: Sequence[str] = ("rgb",),
    ) -> None:
        self.seed, self.xflip = seed, xflip
        self.hold_out_every = 0  # if not 0, the views 0, n, 2n, ... of a scene are in no sample
        self.one_hot: torch.Tensor | None = None  # classes of the scenes, for batches: float32 `[scenes, K]`
        super().__init__(path, resolution, near, far, convention, normalize, framing, modalities)

    def at_resolution(self, resolution: int) -> SceneDataset:
        """The same scenes with images of another size, without packs."""
        other = copy.copy(self)
        other.resolution, other._packs = resolution, {}
        return other

    @classmethod
    def find_splits(cls, path: str | os.PathLike[str]) -> Splits:
        """The parts of the dataset at `path`: for training and, if there are such, for validation and testing."""
        return Splits(Path(path))

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

    def __len__(self) -> int:
        return len(self.scenes)

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
        for scene in np.flatnonzero(self._num_views < min_views)[:1]:
            self.scenes[scene].require_views(min_views)

    def checked_classes(self, num_classes: int = MAX_CLASSES) -> list[int]:
        """`classes`. Raises InputError unless they are a whole number below `num_classes` for each scene."""
        classes = self.classes()
        for name, label in itertools.zip_longest(self.scene_names, classes):
            if name is None or isinstance(label, bool) or label not in range(num_classes):
                found = f"scene '{printable(str(name))}' has the class {label!r}"
                remedy = f"give each scene a whole number from 0 to {num_classes - 1}, in {LABELS_FILE} or classes()"
                raise InputError(f"{printable(self.path)}: {found}; {remedy}")
        return list(map(int, classes))

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ViewBatch:
        """inputs `[B, V]`, targets `[B, T]`, sample_index `[B]`. Reads the images of these views and no others.

        All requests must ask for the same numbers of views.
        """
        chosen, flips = [], []
        first = MODALITIES[self.modalities[0]].index
        for request in requests:
            rng = numpy_generator(Stream.VIEWS, self.seed, request.sample_index)
            if self.num_views(request.scene) < (needed := request.num_inputs + request.num_targets):
                self.scenes[request.scene].require_views(needed)
            views = self.sampled_views(request.scene)
            parts = choose_views(len(views), request.num_inputs, request.num_targets, rng)
            chosen.append([views[part] for part in parts])
            flips.append(self.xflip and rng.random() < 0.5)
        scenes = np.array([request.scene for request in requests])[:, None]
        of_inputs = np.array([request.inputs or [first] * request.num_inputs for request in requests])
        of_targets = np.array([[first if request.target is None else request.target] for request in requests])
        inputs, targets = (
            self.load(scenes, np.stack(views), kinds)
            for views, kinds in zip(zip(*chosen, strict=True), (of_inputs, of_targets), strict=True)
        )
        if any(flips):
            inputs, targets = (
                Views.stack([views[i].mirrored() if flip else views[i] for i, flip in enumerate(flips)])
                for views in (inputs, targets)
            )
        classes = None if self.one_hot is None else self.one_hot[scenes[:, 0]]
        return ViewBatch(inputs, targets, torch.tensor([request.sample_index for request in requests]), classes)


def choose_views(
    num_views: int, num_inputs: int, num_targets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of input views `[num_inputs]` and of target views `[num_targets]`, no view twice.

    Asking for more views extends the choice and uses the same random numbers.
    """
    order = rng.permutation(num_views)
    return order[:num_inputs], order[num_inputs : num_inputs + num_targets]
