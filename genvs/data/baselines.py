"""Baselines: views and images without a model, which a model has to beat."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genvs.data.scenes import SceneDataset
from genvs.data.types import Views
from genvs.geometry import Cameras
from genvs.modalities import MODALITIES, to_levels


def nearest_input(inputs: Views, targets: Cameras) -> Tensor:
    """A copy, for each target, of the input view with the nearest camera centre: `[B, T, 3, H, W]`.

    If a target's modality is among the inputs', only these inputs are compared. inputs: `[B, V]`. targets: `[B, T]`.
    """
    distances = torch.cdist(targets.centers, inputs.cameras.centers)
    other = targets.modality[..., None] != inputs.modality[:, None]
    nearest = (distances + other * (1 + distances.max())).argmin(dim=-1)
    return torch.stack([images[index] for images, index in zip(inputs.images, nearest, strict=True)])


def mean_training_image(
    dataset: SceneDataset, scenes: Sequence[int], modality: str | None = None, min_scenes: int = 128, min_views: int = 4
) -> Tensor:
    """The mean of evenly chosen training images of a modality: `[3, H, W]` in [-1, 1].

    modality: by default the dataset's first; some of `scenes` have it. At least `min_scenes` scenes, and `min_views`
    views of each, are used, but fewer than twice as many.
    """
    modality = modality or dataset.modalities[0]
    having = [scene for scene in scenes if modality in dataset.modalities_of(scene)]
    chosen = having[:: max(1, len(having) // min_scenes)]
    total = torch.zeros(3, dataset.resolution, dataset.resolution, dtype=torch.float64)
    count = 0
    for scene in chosen:
        views = dataset.sampled_views(scene)
        images = dataset.load(scene, views[:: max(1, len(views) // min_views)], MODALITIES[modality].index).images
        total += images.double().sum(dim=0)
        count += len(images)
    return to_levels(total / count).float()
