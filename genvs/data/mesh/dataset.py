"""A split of meshes in SRN's layout, made by the workers of the embedded dataset."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from genvs.data.mesh.loading import SUFFIXES, MeshFile
from genvs.data.storage import natural_key, printable
from genvs.data.synthetic.dataset import SPIRAL_VIEWS, Split, ensure_splits, split_settings
from genvs.errors import InputError

CAMERAS = {"sphere": "train", "spiral": "test"}  # to the split of the embedded dataset with such cameras


def ensure_meshes(
    out: str | Path,
    meshes: Sequence[Path],
    *,
    views: int,
    resolution: int,
    cameras: str = "sphere",
    up: str = "y",
    seed: int = 0,
    workers: int = 1,
) -> Split:
    """Draws each mesh (files, or folders of them) that is missing into the split `out`, as a scene of the file's name.

    cameras: one of CAMERAS. A scene is a function of its file and (seed, its name, views, resolution, cameras, up).
    Returns the split. Raises InputError for files that are missing, unreadable or have the same name, and as
    `ensure_dataset`.
    """
    out = Path(os.path.abspath(out))
    if cameras == "spiral" and views > SPIRAL_VIEWS:
        raise InputError(f"`views`={views}: SRN's spiral has {SPIRAL_VIEWS} cameras; give at most as many")
    subjects: dict[str, MeshFile] = {}
    for path in _files(meshes):
        name = path.stem
        if name in subjects:
            raise InputError(
                f"{printable(path)}: {printable(subjects[name].path)} has the same name; rename one of them, "
                "or draw it into another folder"
            )
        key = (seed, list(CAMERAS).index(cameras), zlib.crc32(os.fsencode(name)))
        subjects[name] = MeshFile(key, path, up)
    settings = split_settings(seed, resolution, views, cameras=cameras, up=up)
    split = Split(CAMERAS[cameras], out, subjects, settings)
    ensure_splits(out, [split], workers)
    return split


def _files(meshes: Sequence[Path]) -> list[Path]:
    """The mesh files among `meshes` and in the folders among them, absolute."""
    files: list[Path] = []
    for path in map(Path, map(os.path.abspath, meshes)):
        inside = sorted(path.iterdir(), key=lambda file: natural_key(file.name)) if path.is_dir() else [path]
        found = [file for file in inside if file.is_file() and file.suffix.lower() in SUFFIXES]
        if not found:
            raise InputError(f"{printable(path)}: no mesh there; give files of {', '.join(SUFFIXES)}, or their folder")
        files += found
    return files
