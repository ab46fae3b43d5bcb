"""A data set with OpenGL cameras, whose silhouettes agree only if every convention is right."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genvs.config import PRESETS, SceneConfig
from genvs.data.scene_input import read_scene
from genvs.data.stored import StoredScenes
from genvs.geometry import project


def silhouettes(split: Path, names: list[str], side: int) -> torch.Tensor:
    """Bool `[N, side, side]`: the pixels of NeRF-synthetic's images `names` that show any of the object."""
    masks = []
    for name in names:
        with Image.open(split / f"{name}.png") as image:
            alpha = np.asarray(image.getchannel("A")) > 128
        masks.append(alpha.reshape(side, alpha.shape[0] // side, side, -1).any(axis=(1, 3)))
    return torch.from_numpy(np.stack(masks))


def seen(masks: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """The masks `[N, side, side]` at uv `[N, P, 2]`: bool `[N, P]`, false outside the image."""
    side = masks.shape[-1]
    x, y = (uv * side).floor().long().unbind(dim=-1)
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    return inside & masks[torch.arange(len(masks))[:, None], y.clamp(0, side - 1), x.clamp(0, side - 1)]


def test_the_visual_hull_of_twelve_views_fits_held_out_ones(shared):
    """A chair carved from twelve silhouettes must fill the silhouettes of six other views."""
    chair = shared / "data" / "nerf_synthetic_chair"
    views = [
        StoredScenes(chair / f"transforms_{split}.json", resolution=32).load(0, range(count))
        for split, count in (("train", 12), ("test", 6))
    ]
    scene = read_scene(chair, dataclasses.replace(PRESETS["cpu-demo"], scene=SceneConfig(near=2, far=6)))
    assert torch.equal(scene.inputs.images[0], views[0].images)
    torch.testing.assert_close(scene.target_cameras.c2w[0], views[1].cameras.c2w)
    masks = silhouettes(chair / "train", scene.names, 100)
    held_out = silhouettes(chair / "test", scene.target_names, 50)
    axis = torch.linspace(-1.3, 1.3, 90)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(1, -1, 3)
    for view in range(12):
        points = points[:, seen(masks[view : view + 1], project(points, views[0].cameras[view : view + 1])[0])[0]]
    uv, _ = project(points.expand(6, -1, -1), views[1].cameras)
    drawn = torch.zeros_like(held_out)
    x, y = (uv * 50).floor().long().clamp(0, 49).unbind(dim=-1)
    drawn[torch.arange(6)[:, None], y, x] = True
    covered = (drawn & held_out).sum(dim=(1, 2)) / held_out.sum(dim=(1, 2))
    overlap = (drawn & held_out).sum(dim=(1, 2)) / (drawn | held_out).sum(dim=(1, 2))
    assert covered.min() > 0.97 and overlap.min() > 0.85
