"""A split of meshes in SRN's layout, made by the workers of the embedded dataset."""

import itertools
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from genvs.data.mesh.model import READERS, MeshFile
from genvs.data.storage import is_ignored, natural_key, printable
from genvs.data.synthetic.dataset import SPIRAL_VIEWS, Split, ensure_splits, sensors_among, split_settings
from genvs.errors import InputError

NOT_READ = (".3ds", ".3mf", ".abc", ".blend", ".dae", ".fbx", ".off", ".usd", ".usda", ".usdc", ".usdz", ".wrl", ".x3d")
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
    modalities: Iterable[str] = ("rgb",),
    looks: int | None = None,
) -> Split:
    """Draws each mesh (files, or folders of them) that is missing into the split `out`, one scene each.

    cameras: one of CAMERAS. A scene is a function of its file and (seed, its name, views, resolution, cameras, up).
    modalities, looks: as in `ensure_dataset`. Returns the split. Raises InputError for files that are missing, cannot
    be read or told apart, and as `ensure_dataset`.
    """
    out = Path(os.path.abspath(out))
    if cameras == "spiral" and views > SPIRAL_VIEWS:
        raise InputError(f"`views`={views}: SRN's spiral has {SPIRAL_VIEWS} cameras; give at most as many")
    subjects: dict[str, MeshFile] = {}
    files = _files(meshes)
    for name, path in zip(_scene_names(files), files, strict=True):
        if name in subjects:
            raise InputError(
                f"{printable(path)}: would have the same name as {printable(subjects[name].path)}; rename one of them, "
                "or draw it into another folder"
            )
        key = (seed, list(CAMERAS).index(cameras), zlib.crc32(os.fsencode(name)))
        subjects[name] = MeshFile(key, path, up)
    settings = split_settings(seed, resolution, views, cameras=cameras, up=up)
    split = Split(CAMERAS[cameras], out, subjects, settings, sensors_among(modalities), looks)
    ensure_splits(out, [split], workers)
    return split


def _files(meshes: Sequence[Path]) -> list[Path]:
    """The mesh files among `meshes` and at any depth in the folders among them, absolute, without hidden ones.

    Each is there once, even if links lead to it too.
    """
    files: list[Path] = []
    for path in map(Path, map(os.path.abspath, meshes)):
        found = sorted(_inside(path), key=lambda file: natural_key(str(file))) if path.is_dir() else [path]
        other = [file for file in found if file.suffix.lower() in NOT_READ]
        found = [file for file in found if file.suffix.lower() in READERS and file.is_file()]
        if other and not found:
            raise InputError(f"{printable(other[0])}: is of a kind of mesh that is not read; convert to .glb")
        if other:
            line = f"left out {len(other)} of a kind of mesh that is not read, such as {printable(other[0])}"
            warnings.warn(f"{line}; convert to .glb", stacklevel=2)
        if not found:
            raise InputError(f"{printable(path)}: no mesh there; give files of {', '.join(READERS)}, or their folder")
        files += found
    return list({os.path.realpath(file): file for file in reversed(files)}.values())[::-1]


def _inside(path: Path) -> Iterator[Path]:
    """What is not hidden at any depth in a folder, also in folders that are links; in each folder once."""
    seen = set[str]()
    for place, folders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # links may lead back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted((name for name in folders if not is_ignored(name)), key=natural_key)
        yield from (Path(place, name) for name in names if not is_ignored(name))


def _scene_names(files: Sequence[Path]) -> list[str]:
    """The files' names, without suffix. Files of one name have that of the nearest folder that tells them apart, as in
    ShapeNet's SYNSET/MODEL/models/model_normalized.obj; and their own too, where that is not enough.
    """
    names = [path.stem for path in files]
    for stem in [stem for stem, number in Counter(names).items() if number > 1]:
        same = [number for number, path in enumerate(files) if path.stem == stem]
        folders = itertools.zip_longest(*(files[number].parts[-2::-1] for number in same), fillvalue="")
        found = [""] * len(same)
        for level in (level for level in folders if len(set(level)) > 1):
            if len(set(found)) < len(same):
                found = ["-".join(filter(None, pair)) for pair in zip(level, found, strict=True)]
        for number, name in zip(same, found, strict=True):
            names[number] = name or stem
    shared = Counter(names)
    return [name if shared[name] == 1 else f"{name}-{path.stem}" for name, path in zip(names, files, strict=True)]
