"""Dataset classes that were written for the unofficial implementation of GeNVS, used unchanged.

Such a class is built as `Class(path, distr="train")`, or "val" or "test". Its items are the scenes, each a dict of
`images`, float `[N, 3, H, W]` in [-1, 1]; `poses`, camera-to-world `[N, 4, 4]` with OpenGL axes; `focal`, in half image
widths; and `z_near` and `z_far`, depth planes in world units over `focal`. All scenes have the same number of views.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genvs.data.images import to_square
from genvs.data.scene import Scene
from genvs.data.scenes import SceneDataset, Splits
from genvs.errors import InputError
from genvs.modalities import from_levels

KEYS = ("images", "poses", "focal", "z_near", "z_far")
CACHED_SCENES = 32  # in each loader process: an item holds all of a scene's images, and a sample uses few of them


class MapStyleScene(Scene):
    """An item of such a dataset, which is read when a view is first used."""

    convention = "opengl"

    def __init__(self, index: int, shown: str, num_views: int, read_item: Callable[[int], dict]) -> None:
        self.name, self.shown, self.view_names = f"{index:06d}", shown, list(map(str, range(num_views)))
        self.index, self.read_item = index, read_item

    def item(self) -> dict[str, Any]:
        item, expected = self.read_item(self.index), len(self.view_names)
        if (found := len(item["images"])) != expected:
            raise InputError(f"{self.shown}: has {found} views, the first scene {expected}: give all the same number")
        return item

    def read_c2w(self, view: int) -> np.ndarray:
        return self.item()["poses"][view]

    def read_view(self, view: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        focal, (width, height) = float(self.item()["focal"]) / 2, self.image_size(view)
        intrinsics = np.array([[focal, 0, 0.5], [0, focal * width / height, 0.5], [0, 0, 1]])
        return to_square(self.item()["images"][view], resolution), intrinsics

    def image_size(self, view: int) -> tuple[int, int]:
        height, width = self.item()["images"].shape[1:3]
        return width, height

    def file_states(self) -> Iterable[tuple]:
        item = self.item()
        yield self.name, *(hashlib.sha256(item[key].tobytes()).hexdigest() for key in KEYS)


class MapStyleScenes(SceneDataset):
    """The scenes of `dataset_class`. path: what that class takes, joined with the split: 'train', 'val' or 'test'."""

    dataset_class: type
    _first: dict[str, np.ndarray]  # item

    @classmethod
    def find_splits(cls, path: str | os.PathLike[str]) -> Splits:
        """A held-out split that the class cannot open, or finds empty, counts as missing."""
        held_out: dict[str, Path] = {}
        for split in ("val", "test"):
            with contextlib.suppress(OSError, LookupError, ValueError, NotImplementedError):
                if len(cls.dataset_class(str(path), distr=split)):
                    held_out[split] = Path(path, split)
        return Splits(Path(path, "train"), **held_out)

    def list_scenes(self, path: Path) -> list[MapStyleScene]:
        items = self.dataset_class(str(path.parent), distr=path.name)
        shown = [f"{path.parent} ({path.name}): scene {index}" for index in range(len(items))]
        read_item = functools.lru_cache(CACHED_SCENES)(lambda index: checked_item(items[index], shown[index]))
        if not shown:
            return []
        self._first = read_item(0)
        num_views = len(self._first["images"])
        return [MapStyleScene(index, shown[index], num_views, read_item) for index in range(len(items))]

    def default_depths(self) -> tuple[float, float]:
        return float(self._first["z_near"] * self._first["focal"]), float(self._first["z_far"] * self._first["focal"])


def adapted(dataset_class: type) -> type[SceneDataset]:
    """A SceneDataset of the same name that reads through a class written for the unofficial implementation."""
    names = {"__module__": dataset_class.__module__, "__qualname__": dataset_class.__qualname__}
    return type(dataset_class.__name__, (MapStyleScenes,), {"dataset_class": dataset_class, **names})


def checked_item(item: Any, shown: str) -> dict[str, np.ndarray]:
    """The parts of an item, images as uint8 `[N, H, W, 3]`. Raises InputError for one that is no such dict."""
    try:
        parts = {key: torch.as_tensor(item[key]).detach().cpu().double().numpy() for key in KEYS}
        images, poses = parts["images"], parts["poses"]
        if images.ndim != 4 or images.shape[1] != 3 or poses.shape != (len(images), 4, 4):
            raise ValueError(f"images {list(images.shape)} and poses {list(poses.shape)}")
        lens = {key: parts[key].reshape(()) for key in KEYS[2:]}
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{shown}: its item is not a dict of {', '.join(KEYS)} ({type(error).__name__}: {error}): see docs/data.md"
        ) from None
    rgb = from_levels(images).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return {"images": rgb, "poses": poses, **lens}
