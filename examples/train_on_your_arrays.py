"""Fine-tune a network on numpy images and poses, from a clone's root:

    python -m examples.train_on_your_arrays ARRAYS.npz models/demo.pkl OUT

ARRAYS.npz has `images`, `c2w` and `focal`, as `fine_tune` takes them. In a program of your own, call `fine_tune`. The
demo network needs a GPU for it; on a CPU, start from a snapshot of the preset cpu-demo.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genvs import GeNVS
from genvs.data.scenes import Scene, SceneDataset
from torch_utils import distributed
from training.data import RunData
from training.state import create_state, start_from
from training.training_loop import training_loop


class ArrayScene(Scene):
    def __init__(self, name: str, images: np.ndarray, c2w: np.ndarray, focal: float) -> None:
        self.name = self.shown = name
        self.images, self.c2w, self.focal = images, c2w.astype(np.float64), focal
        self.view_names = [str(view) for view in range(len(images))]

    def read_c2w(self, view: int) -> np.ndarray:
        return self.c2w[view]

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        image = Image.fromarray(self.images[view])
        pixels = np.asarray(image.resize((resolution, resolution), Image.Resampling.BICUBIC))
        focal_y = self.focal * image.width / image.height
        return pixels.transpose(2, 0, 1), np.array([[self.focal, 0, 0.5], [0, focal_y, 0.5], [0, 0, 1]])


class ArrayScenes(SceneDataset):
    def __init__(self, images: np.ndarray, c2w: np.ndarray, focal: float, **options: Any) -> None:
        self.arrays, self.focal = list(zip(images, c2w, strict=True)), focal
        super().__init__("arrays", **options)

    def list_scenes(self, path: Path) -> list[ArrayScene]:
        return [ArrayScene(f"scene {number}", *pair, self.focal) for number, pair in enumerate(self.arrays)]


def fine_tune(images: np.ndarray, c2w: np.ndarray, focal: float, snapshot: str, out: Path, **settings: Any) -> GeNVS:
    """A network for inference. Snapshots, pictures of the last scene, which is held out, and numbers are in `out`.

    images: uint8 `[S, V, H, W, 3]`, V views of each of S scenes. c2w: `[S, V, 4, 4]`, camera-to-world, OpenCV axes;
    cameras look at the object, and their distances give the depth planes. focal: in image widths. settings: others of
    `training.config.TrainConfig`, such as duration_kimg, batch_size and lr.
    """
    config = dataclasses.replace(start_from(snapshot), transfer=snapshot, **settings)
    scenes = ArrayScenes(images, c2w, focal, resolution=config.net.resolution, seed=config.seed)
    kept = max(1, len(scenes) - 1)
    data = RunData(scenes, range(kept), scenes, range(kept, len(scenes)), scenes.scene_config())
    device = distributed.init("cuda" if torch.cuda.is_available() else "cpu")
    state = create_state(config, data.scene, device)
    state.data = data.facts()
    out.mkdir(parents=True)
    training_loop(config, out, data, state, device)
    return state.ema


if __name__ == "__main__":
    arrays, snapshot, out = sys.argv[1:]
    with np.load(arrays) as given:
        focal = float(given["focal"])
        fine_tune(given["images"], given["c2w"], focal, snapshot, Path(out), duration_kimg=20.0, batch_size=32)
