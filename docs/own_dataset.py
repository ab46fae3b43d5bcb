"""An example of a dataset class of your own: each scene is a NumPy file.

    ./train.sh --data DIR --data-class docs.own_dataset.NpzScenes

DIR/*.npz hold `images` `[N, H, W, 3]` uint8, `c2w` `[N, 4, 4]` with OpenCV axes, and `focal` in pixels.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from genvs.data.scenes import Scene, SceneDataset


class NpzScene(Scene):
    """Every scene has `name`, `shown`, `view_names`, `read_c2w` and `read_view`."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.c2w, self.focal = arrays["c2w"].astype(np.float64), float(arrays["focal"])
        self.path, self.name, self.shown = path, path.stem, str(path)
        self.view_names = [str(view) for view in range(len(self.c2w))]

    def read_c2w(self, view: int) -> np.ndarray:
        return self.c2w[view]

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        with np.load(self.path) as arrays:
            image = Image.fromarray(arrays["images"][view])
        rgb = np.asarray(image.resize((resolution, resolution), Image.Resampling.BICUBIC))
        focal_x, focal_y = self.focal / image.width, self.focal / image.height
        return rgb.transpose(2, 0, 1), np.array([[focal_x, 0, 0.5], [0, focal_y, 0.5], [0, 0, 1]])

    def file_states(self) -> Iterable[tuple]:
        """For packs and evaluation: values that change with the file."""
        status = self.path.stat()
        yield self.name, status.st_size, status.st_mtime_ns


class NpzScenes(SceneDataset):
    """Every dataset has `list_scenes`. The rest is optional."""

    def list_scenes(self, path: Path) -> list[NpzScene]:
        return [NpzScene(file) for file in sorted(path.glob("*.npz"))]

    def pack_path(self) -> Path:
        """The file to keep decoded images in, which makes training fast; without this method there is none."""
        return self.path / f"{self.resolution}px.pack"
