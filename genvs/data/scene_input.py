"""What to draw from, for inference: input views of one scene, in any layout that training reads, and target cameras."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from genvs.config import GeNVSConfig
from genvs.data.camera_checks import Placement
from genvs.data.scenes import SceneDataset
from genvs.data.splits import dataset_class as class_of_split
from genvs.data.splits import find_train
from genvs.data.storage import counted, printable
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras

MAX_INPUTS = 3  # views that are taken as inputs where neither the files nor the caller say which


@dataclass(frozen=True)
class SceneInput:
    """Input views and target cameras of one scene.

    inputs: `[1, V]`, images uint8. names: of the input views. target_cameras: `[1, K]`, None without targets.
    target_names: fit for files. target_images: uint8 `[1, K, 3, R, R]` where the targets are views of the scene, else
    None. placement: how the scene was moved and scaled, None where it was not.
    """

    inputs: Views
    names: list[str]
    target_cameras: Cameras | None
    target_names: list[str]
    target_images: Tensor | None = None
    placement: Placement | None = None


def read_scene(
    path: str | os.PathLike[str],
    config: GeNVSConfig,
    *,
    dataset_class: type[SceneDataset] | None = None,
    scene: str | None = None,
    convention: str | None = None,
    normalize: bool = False,
    inputs: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
) -> SceneInput:
    """Read a scene for a network of this config: at its resolution, with its depth planes.

    path: a scene, or a dataset that is read as for training. dataset_class: what reads it; by default the class of its
    layout. scene: its name in the dataset, or its number from 0 up; by default the first, with a warning if there are
    more. convention: as in SceneDataset. normalize: move and scale the scene to where the network's training scenes
    were. inputs, targets: the numbers of views, from 0 up, in natural order of their names.

    Without `targets`, cameras are those that the files ask for (`Scene.read_targets`), with all views as inputs unless
    `inputs` says which. Where the files ask for none, the first MAX_INPUTS views are the inputs unless `inputs` says
    otherwise, and all others are targets. With no targets (`[]`), all views are inputs.

    Raises InputError for whatever is missing, damaged or does not pair; warns of what looks wrong with the cameras.
    """
    split = dataset_class.find_splits(path).train if dataset_class else find_train(path)
    dataset = (dataset_class or class_of_split(split))(
        split,
        resolution=config.resolution,
        near=config.scene.near,
        far=config.scene.far,
        convention=convention,
        normalize=config.scene.radius if normalize else False,
    )
    number = _find_scene(dataset, scene)
    asked_for = dataset.target_cameras(number) if targets is None else None
    all_are_inputs = asked_for is not None or targets is not None and not targets
    given, drawn = _choose_views(dataset, number, inputs, targets, None if all_are_inputs else MAX_INPUTS)
    names, placement = dataset.view_names(number), dataset.placement(number)
    input_views, input_names = dataset.load(number, np.array([given])), [names[view] for view in given]
    if asked_for is not None:
        return SceneInput(input_views, input_names, asked_for[1][None], asked_for[0], None, placement)
    if not drawn:
        return SceneInput(input_views, input_names, None, [], None, placement)
    views = dataset.load(number, np.array([drawn]))
    return SceneInput(input_views, input_names, views.cameras, [names[view] for view in drawn], views.images, placement)


def _find_scene(dataset: SceneDataset, scene: str | None) -> int:
    """The place of the scene of this name or number; the first for None."""
    names = dataset.scene_names
    if scene is None:
        if len(names) > 1:
            warnings.warn(
                f"{printable(dataset.path)}: has {counted(len(names), 'scene')}, of which the first, "
                f"{printable(names[0])}, is taken; choose another by `scene`",
                stacklevel=3,
            )
        return 0
    if scene in names:
        return names.index(scene)
    if scene.isdecimal() and int(scene) < len(names):
        return int(scene)
    raise InputError(
        f"{printable(dataset.path)}: has no scene {printable(scene)!r}; give `scene` the name of one, such as "
        f"{printable(names[0])}, or a number from 0 to {len(names) - 1}"
    )


def _choose_views(
    dataset: SceneDataset,
    scene: int,
    inputs: Sequence[int] | None,
    targets: Sequence[int] | None,
    max_inputs: int | None,
) -> tuple[list[int], list[int]]:
    """The numbers of input and of target views. max_inputs: where `inputs` does not say, None for no limit."""
    views = range(dataset.num_views(scene))
    for name, chosen in (("inputs", inputs), ("targets", targets)):
        for view in chosen or []:
            if view not in views:
                shown = printable(dataset.path)
                raise InputError(f"{shown}: the scene has no view {view}; choose `{name}` from 0 to {len(views) - 1}")
    if inputs is None:
        inputs = [view for view in views if view not in (targets or [])][:max_inputs]
    if not inputs:
        raise InputError(f"{printable(dataset.path)}: no view is left to be an input; choose `inputs`")
    if targets is None:
        targets = [view for view in views if view not in inputs]
    return list(inputs), list(targets)
