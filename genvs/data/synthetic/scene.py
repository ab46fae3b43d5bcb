"""One scene: a random car or another subject, drawn by every camera and written in SRN's layout."""

from __future__ import annotations

import abc
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genvs.config import SceneConfig
from genvs.data.synthetic.cars import build_car
from genvs.data.synthetic.parts import Array
from genvs.data.synthetic.shading import Castable, render

CARS = SceneConfig()  # the cameras and depth planes of SRN's cars
DEPTH_SCALE = 2.0 / 65535  # world units per step of a depth image


@dataclass(frozen=True)
class Subject(abc.ABC):
    """What a scene shows. rng_key: seeds everything random about the scene."""

    rng_key: tuple[int, ...]

    @abc.abstractmethod
    def build(self) -> tuple[Castable, dict[str, Any]]:
        """The model, and facts to record about it. Raises InputError if it cannot be built."""


class Car(Subject):
    """A random car."""

    def build(self) -> tuple[Castable, dict[str, Any]]:
        model, info = build_car(np.random.default_rng(self.rng_key))
        return model, {"rng_key": self.rng_key, "car": info}


def write_scene(folder: Path, partial: Path, subject: Subject, c2w: Array, resolution: int) -> None:
    """Draws a scene and writes its folder: rgb/, pose/, depth/, intrinsics.txt and scene.json.

    partial: where it is written first, on the same file system, so that the folder appears whole or not at all.
    c2w: `[V, 4, 4]`, OpenCV axes.
    """
    focal = CARS.focal * resolution
    model, info = subject.build()
    for name in ("rgb", "pose", "depth"):
        (partial / name).mkdir(parents=True)
    for view, (image, depth) in enumerate(render(model, c2w, focal, resolution)):
        Image.fromarray(image).save(partial / f"rgb/{view:06d}.png", compress_level=1)
        steps = np.round(depth / DEPTH_SCALE).astype(np.uint16)
        Image.fromarray(steps).save(partial / f"depth/{view:06d}.png", compress_level=1)
        pose = " ".join(map(repr, c2w[view].reshape(-1).tolist()))
        (partial / f"pose/{view:06d}.txt").write_text(pose)
    center = resolution / 2
    intrinsics = f"{focal:f} {center:f} {center:f} 0.\n0. 0. 0.\n1.\n{resolution} {resolution}\n"
    (partial / "intrinsics.txt").write_text(intrinsics)
    record = {"depth_scale": DEPTH_SCALE, "near": CARS.near, "far": CARS.far, **info}
    (partial / "scene.json").write_text(json.dumps(record, indent=1) + "\n")
    if not folder.exists():  # a worker of an interrupted run may have outlived it and made the folder
        os.replace(partial, folder)
