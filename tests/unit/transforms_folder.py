"""Writes scenes with a `transforms.json`, for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.unit.srn_folder import some_c2w

OPENGL = np.array([1, -1, -1, 1])  # times the columns of a pose: from OpenCV axes to OpenGL's, and back


def frame(file_path: str, c2w: np.ndarray, **settings) -> dict[str, Any]:
    """An entry of `frames`. c2w: `[4, 4]`, OpenCV axes."""
    return {"file_path": file_path, "transform_matrix": (c2w * OPENGL).tolist(), **settings}


def write_transforms(path: Path, frames: list[dict[str, Any]], **shared) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**shared, "frames": frames}))
    return path


def write_capture(
    folder: Path,
    num_views: int = 6,
    *,
    file: str = "transforms.json",
    seed: int = 0,
    size: int = 32,
    c2w: np.ndarray | None = None,
) -> Path:
    """A scene of noise as NeRF-synthetic has it: `images/r_1`, ..., without suffixes; returns its folder."""
    rng = np.random.default_rng(seed)
    images = folder / file.removesuffix(".json").replace("transforms", "images")
    images.mkdir(parents=True)
    frames = []
    for view, pose in enumerate(some_c2w(num_views) if c2w is None else c2w, start=1):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(images / f"r_{view}.png")
        frames.append(frame(f"./{images.name}/r_{view}", pose))
    write_transforms(folder / file, frames, camera_angle_x=0.9)
    return folder
