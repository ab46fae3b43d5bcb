"""Classes of scenes, for networks that are told them (`--cond`): `labels.json` in a split's folder or archive.

It maps every scene of the split to its class, a whole number from 0 up: {"car_0001": 0, "bus_0001": 1}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from genvs.data.storage import find_storage, printable
from genvs.errors import InputError

LABELS_FILE = "labels.json"
MAX_CLASSES = 10_000
MAX_LABELS_BYTES = 64 * 2**20


def read_classes(split: Path, scene_names: Sequence[str]) -> list[int]:
    """The class of each scene, in the order of `scene_names`.

    Raises InputError where the file is missing or damaged, or leaves out a scene.
    """
    shown, storage = printable(split / LABELS_FILE), find_storage(split)
    if storage is None or LABELS_FILE not in storage.names():
        raise InputError(f'{shown}: is missing, and --cond needs it; write {{"<scene>": <class, from 0 up>, ...}}')
    try:
        classes = json.loads(storage.read(LABELS_FILE, MAX_LABELS_BYTES))
    except (ValueError, RecursionError):
        classes = None
    if not isinstance(classes, dict):
        raise InputError(f'{shown}: is not JSON of the kind {{"<scene>": <class, from 0 up>, ...}}; correct it')
    for name in scene_names:
        label = classes.get(name)
        if type(label) is not int or not 0 <= label < MAX_CLASSES:
            raise InputError(
                f"{shown}: scene '{printable(name)}' has {'no class' if label is None else f'the class {label!r}'}; "
                f"give every scene a whole number from 0 to {MAX_CLASSES - 1}"
            )
    return [classes[name] for name in scene_names]
