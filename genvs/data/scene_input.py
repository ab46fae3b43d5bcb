"""What to draw from, for inference: input views of one scene, in any layout that training reads, and target cameras."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from genvs.config import GeNVSConfig
from genvs.data.camera_checks import Placement
from genvs.data.framing import Framing, framing_of
from genvs.data.scenes import SceneDataset
from genvs.data.storage import counted, printable
from genvs.data.stored import StoredScenes
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.modalities import MODALITIES

MAX_INPUTS = 3  # views that are inputs if neither the files nor the caller choose them


@dataclass(frozen=True)
class SceneInput:
    """Input views and target cameras of one scene.

    inputs: `[1, V]`, images uint8, of every modality that the network and the scene have. names: theirs.
    target_cameras: `[1, K]`, None without targets. target_names: usable as file names. target_images: uint8
    `[1, K, 3, R, R]` if the targets are views of the scene, else None. placement: how the scene was moved and scaled,
    None if it was not.
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
    dataset_class: type[SceneDataset] = StoredScenes,
    scene: str | None = None,
    convention: str | None = None,
    normalize: bool = False,
    framing: Framing | None = None,
    inputs: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
    target: str | None = None,
) -> SceneInput:
    """Read a scene for a network of this config: at its resolution, with its depth planes.

    path: a scene, or a dataset that is read as for training. scene: its name in the dataset, or its number from 0 up;
    by default the first, with a warning if there are more. convention: as in SceneDataset. normalize: move and scale
    the scene to where the network's training scenes were. framing: by default as in its training. inputs, targets: the
    numbers of views, from 0 up, in natural order of their names. target: the modality of the targets, by default the
    network's first.

    Without `targets`, the cameras are those that the files give (`Scene.read_targets`), and all views are inputs unless
    `inputs` chooses some. If the files give none, the first MAX_INPUTS views are the inputs unless `inputs` chooses
    others, and all other views are targets. With no targets (`[]`), all views are inputs.

    Raises InputError for anything missing, damaged or unpaired; warns of what looks wrong with the cameras.
    """
    dataset = dataset_class(
        dataset_class.find_splits(path).train,
        resolution=config.resolution,
        **config.scene.planes,
        convention=convention,
        normalize=normalize and config.scene.radius,
        framing=framing or framing_of(config.scene),
        modalities=config.modalities,
    )
    number = _find_scene(dataset, scene)
    names, placement = dataset.view_names(number), dataset.placement(number)
    stated = dataset.target_cameras(number) if targets is None else None
    if inputs is None:
        others = [view for view in range(len(names)) if view not in (targets or [])]
        inputs = others if stated or (targets is not None and not targets) else others[:MAX_INPUTS]
    if not inputs:
        raise InputError(f"{printable(path)}: no view is left to be an input; choose `inputs`")
    there, target = dataset.modalities_of(number), target or config.modalities[0]
    kinds = np.repeat([MODALITIES[name].index for name in there], len(inputs))
    given = dataset.load(number, np.array([list(inputs) * len(there)]), kinds)
    given_names = [names[view] + (f" {name}" if len(there) > 1 else "") for name in there for view in inputs]
    if stated:
        return SceneInput(given, given_names, stated[1][None], stated[0], None, placement)
    if targets is None:
        targets = [view for view in range(len(names)) if view not in inputs]
    if not targets:
        return SceneInput(given, given_names, None, [], None, placement)
    shown = MODALITIES[target if target in there else there[0]].index
    views, target_names = dataset.load(number, np.array([targets]), shown), [names[view] for view in targets]
    images = views.images if target in there else None
    return SceneInput(given, given_names, views.cameras, target_names, images, placement)


def _find_scene(dataset: SceneDataset, scene: str | None) -> int:
    """The index of the scene with this name or number; the first for None."""
    names, shown = dataset.scene_names, printable(dataset.path)
    if scene in names:
        return names.index(scene)
    if scene is not None and not (scene.isdecimal() and int(scene) < len(names)):
        raise InputError(
            f"{shown}: has no scene {printable(scene)!r}; give `scene` the name of one, such as {printable(names[0])}, "
            f"or a number from 0 to {len(names) - 1}"
        )
    if scene is None and len(names) > 1:
        found = f"has {counted(len(names), 'scene')}; the first, {printable(names[0])}, is taken"
        warnings.warn(f"{shown}: {found}; choose another by `scene`", stacklevel=3)
    return int(scene or 0)
