"""Classes of scenes, for class-conditional networks: `labels.json` in a split's folder or archive.

It maps every scene of the split to its class, a whole number from 0 up: {"car_0001": 0, "bus_0001": 1}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genvs.data.storage import counted, open_split, printable
from genvs.errors import InputError

LABELS_FILE = "labels.json"
MAX_CLASSES = 10_000


def read_classes(split: Path, scene_names: Sequence[str]) -> list[Any]:
    """The class of each scene in the split's labels.json; None for a scene that is not in it.

    Raises InputError if the file is missing or damaged.
    """
    storage, file = open_split(split)
    classes = storage.read_json(LABELS_FILE) if storage and LABELS_FILE in storage.names() else None
    if not isinstance(classes, dict):
        raise InputError(
            f"{printable((split.parent if file else split) / LABELS_FILE)}: is missing or no JSON object, and "
            'class-conditional networks (`cond`) need it; write {"<scene>": <class, from 0 up>, ...}'
        )
    return [classes.get(name) for name in scene_names]


def checked_classes(classes: Sequence[Any], scene_names: Sequence[str], shown: str) -> list[int]:
    """`classes` as integers. Raises InputError, naming `shown`, unless each scene has a whole number from 0."""
    remedy = f"give every scene a whole number from 0 to {MAX_CLASSES - 1} in {LABELS_FILE}, or in classes()"
    if len(classes) != len(scene_names):
        found = f"{len(classes)} classes for {counted(len(scene_names), 'scene')}"
        raise InputError(f"{shown}: there are {found}; {remedy}")
    for name, label in zip(scene_names, classes, strict=True):
        if label not in range(MAX_CLASSES):
            has = "no class" if label is None else f"the class {label!r}"
            raise InputError(f"{shown}: scene '{printable(name)}' has {has}; {remedy}")
    return list(map(int, classes))
