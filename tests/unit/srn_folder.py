"""Writes small datasets in SRN's layout, for tests."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genvs.data.stored import StoredScenes
from genvs.errors import InputError
from genvs.geometry.trajectories import spherical_c2w
from tests.conftest import counted

REFUSED = "bad inputs refused by one line that names the file"
DEPTH_SCALE = 2 / 65535
INTRINSICS = "32.8125 16.0 16.0 0.\n0. 0. 0.\n1.\n32 32\n"


def c2w_text(c2w: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in np.asarray(c2w).ravel()) + "\n"


def some_c2w(num_views: int, radius: float = 1.3) -> np.ndarray:
    """Cameras `[num_views, 4, 4]` at different places around the origin, looking at it."""
    view = torch.arange(num_views, dtype=torch.float64)
    return spherical_c2w(0.3 + 1.1 * view, 0.2 + 0.9 * torch.sin(view), radius).numpy()


def write_scene(scene: Path, num_views: int = 6, *, size: int = 32, seed: int = 0, radius: float = 1.3) -> Path:
    """A scene whose views are named 1, 2, ...; view k has noise with a red mean of about 10 k."""
    rng = np.random.default_rng(seed)
    for folder in ("rgb", "pose"):
        (scene / folder).mkdir(parents=True)
    for view, c2w in enumerate(some_c2w(num_views, radius), start=1):
        rgb = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        rgb[..., 0] = 10 * (view % 25) + rgb[..., 0] % 6
        Image.fromarray(rgb).save(scene / "rgb" / f"{view}.png")
        (scene / "pose" / f"{view}.txt").write_text(c2w_text(c2w))
    (scene / "intrinsics.txt").write_text(INTRINSICS)
    return scene


def write_split(split: Path, num_scenes: int = 3, num_views: int = 6, seed: int = 0, **options) -> Path:
    for scene in range(1, num_scenes + 1):
        write_scene(split / f"car{scene}", num_views, seed=100 * seed + scene, **options)
    return split


def add_sensors(scene: Path, folders: Sequence[str] = ("depth", "sar", "sonar"), seed: int = 0) -> Path:
    """Gray noise of the scene's views in these folders; depths from 0.8 to 1.8 in every second column, in 16 bits."""
    rng = np.random.default_rng(seed)
    for folder in folders:
        (scene / folder).mkdir()
        for image in (scene / "rgb").iterdir():
            gray = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            if folder == "depth":
                gray = (rng.uniform(0.8, 1.8, (32, 32)) / DEPTH_SCALE).round().astype(np.uint16)
                gray[:, ::2] = 0
            Image.fromarray(gray).save(scene / folder / image.name)
    (scene / "scene.json").write_text(json.dumps({"depth_scale": DEPTH_SCALE}))
    return scene


def zip_of(folder: Path) -> Path:
    """FOLDER.zip, with the folder itself at its top."""
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


def refused(file: str, act: Callable[[], object]) -> str:
    """The message with which `act` refuses; asserts that it is one line that names `file`."""
    counted(REFUSED, 0, 1)
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert file in message and message.isprintable() and len(message) < 1200, message
    counted(REFUSED, 1, 0)
    return message


def read_everything(split: Path) -> None:
    dataset = StoredScenes(split, resolution=32)
    for scene in range(len(dataset)):
        dataset.load(scene, range(dataset.num_views(scene)))


def opened(path: Path, **options) -> StoredScenes:
    """The training split of a dataset."""
    return StoredScenes(StoredScenes.find_splits(path).train, **{"resolution": 32, **options})


def flip_bit(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
