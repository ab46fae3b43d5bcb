"""Classes of scenes, for class-conditional networks: `labels.json` in a split's folder or archive.

It maps every scene of the split to its class, a whole number from 0 up: {"car_0001": 0, "bus_0001": 1}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genvs.data.storage import find_storage, printable
from genvs.errors import InputError

LABELS_FILE = "labels.json"
EXAMPLE = '{"<scene>": <class, from 0 up>, ...}'
MAX_CLASSES = 10_000


def read_classes(split: Path, scene_names: Sequence[str]) -> list[Any]:
    """What the file states as the class of each scene, in the order of `scene_names`; None where it states none.

    Raises InputError where the file is missing or damaged.
    """
    shown, storage = printable(split / LABELS_FILE), find_storage(split)
    if storage is None or LABELS_FILE not in storage.names():
        raise InputError(f"{shown}: is missing, and class-conditional networks (`cond`) need it; write {EXAMPLE}")
    try:
        classes = json.loads(storage.read(LABELS_FILE))
    except (ValueError, RecursionError):
        classes = None
    if not isinstance(classes, dict):
        raise InputError(f"{shown}: is not JSON of the kind {EXAMPLE}; correct it")
    return [classes.get(name) for name in scene_names]
