"""Which split and which views of an object an evaluation draws, and how that departs from the published protocol."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genvs.config import GeNVSConfig
from genvs.data.framing import framing_of
from genvs.data.scenes import SceneDataset
from genvs.data.storage import find_storage
from genvs.data.stored import StoredScenes, dataset_class
from genvs.errors import InputError
from torch_utils import distributed

SRN_VIEWS = 251  # of a test object, on a spiral from the horizon (view 0) to the zenith (view 250)
SRN_OBJECTS = 704  # in cars_test
# 64 and 104 are the literature's, opposite to each other; 84 is a quarter turn from both.
INPUT_VIEWS = (64, 104, 84)
LIST_VIEWS = (0, *range(24, 250, 25))
PUBLISHED_RESOLUTION = 128


def find_split(path: Path, split: str, kind: type[SceneDataset] = StoredScenes) -> tuple[Path, str | None]:
    """A split of the dataset at `path`, and its name: 'train', 'val', 'test', or None for a dataset without splits,
    which is measured as a whole. Raises InputError where there is no such split.

    Besides what training takes, `path` may be the common part of `cars_test` where there is no `cars_train`.
    """
    beside = path.with_name(f"{path.name}_{split}")
    if kind is StoredScenes and find_storage(beside):
        return kind.find_splits(beside).train, split
    splits = kind.find_splits(path)
    called = split_name(splits.train) if kind is StoredScenes else None
    if called != "train" and not (splits.val or splits.test):
        if split in (called, "test"):
            return splits.train, called
        raise InputError(f"--data={path}: has no {split} split: give --split test")
    found = getattr(splits, split)
    if found is None:
        there = " or ".join(name for name, part in splits._asdict().items() if part)
        raise InputError(f"--data={path}: has no {split} split: give --split {there}")
    return found, split


def open_dataset(
    path: Path, config: GeNVSConfig, given: dict[str, Any], modalities: Sequence[str] = ("rgb",)
) -> SceneDataset:
    """The dataset at `path` for a network of this config; its first warnings as lines.

    given: `data_class`, `convention`, `normalize`, `fit` and `background`.
    """
    scene = config.scene
    with distributed.warnings_as_lines():
        return dataset_class(given["data_class"])(
            path,
            resolution=config.resolution,
            **scene.planes,
            convention=given["convention"],
            normalize=given["normalize"] and scene.radius,
            framing=framing_of(scene, given["fit"], given["background"]),
            modalities=modalities,
        )


def split_name(path: Path) -> str | None:
    """The split that the name of a folder, a .zip, a pack or a transforms_*.json ends in."""
    path = path.parent if path.name == "transforms.json" else path
    match = re.search(r"(?:^|_)(train|val|test)(?:\.zip|\.json|\.\d+px\.pack)?$", path.name)
    return match[1] if match else None


def choose_views(num_views: int, num_inputs: int, views: str | Sequence[int]) -> tuple[list[int], list[int]]:
    """The inputs and the targets among the `num_views` views of an object, by number.

    If an object does not have SRN's 251 views, its views are taken to be evenly spaced along SRN's path, and SRN's
    numbers stand for the nearest ones. Numbers from a file are not converted. Raises InputError for one that the object
    does not have, or that is an input.
    """

    def nearest(view: int) -> int:
        return round(view * (num_views - 1) / (SRN_VIEWS - 1))

    inputs: list[int] = []
    for place in map(nearest, INPUT_VIEWS[:num_inputs]):
        while place in inputs:  # with very few views
            place = (place + 1) % num_views
        inputs.append(place)
    if views == "all":
        return inputs, [view for view in range(num_views) if view not in inputs]
    if views == "list":
        return inputs, [view for view in dict.fromkeys(map(nearest, LIST_VIEWS)) if view not in inputs]
    places = list(map(int, views))
    for place in places:
        if place not in range(num_views) or place in inputs:
            wrong = "an input view" if place in inputs else f"not among the views 0 to {num_views - 1} of an object"
            raise InputError(f"--views: {place} is {wrong}: take it out of the file")
    return inputs, places


def read_views(option: str) -> str | list[int]:
    """--views: 'all', 'list', or the numbers in a file, with any separators. Raises InputError."""
    if option in ("all", "list"):
        return option
    try:
        words = re.split(r"[\s,;]+", Path(option).read_text(encoding="utf-8").strip())
        return list(dict.fromkeys(map(int, words)))
    except OSError as error:
        raise InputError(f"--views={option}: is neither all nor list, nor a file ({error.strerror})") from None
    except ValueError:
        raise InputError(f"--views={option}: write the numbers of views into it, such as 0 24 49") from None


def departures(dataset: SceneDataset, protocol: dict[str, Any]) -> list[str]:
    """How figures depart from the published protocol, for a reader."""
    num_objects, num_inputs, resolution = (protocol[name] for name in ("num_objects", "num_inputs", "resolution"))
    width, height = dataset.enlarged_from or (0, 0)
    found = {
        "this is the train split, so training may have seen these objects": protocol["split"] == "train",
        "the data have no named splits, so training may have seen these objects": protocol["split"] is None,
        f"the data are not the ShapeNet-SRN cars, but {dataset.path}": not is_shapenet_srn(dataset),
        f"the first {num_objects} of {len(dataset)} objects": num_objects != len(dataset),
        f"{num_inputs} input views, not 1": num_inputs != 1,
        "some of the views, not all others": protocol["views"] != "all",
        f"images of {width}x{height} pixels, enlarged to {resolution}x{resolution}": width > 0,
        f"{resolution} pixels a side, not {PUBLISHED_RESOLUTION}": resolution != PUBLISHED_RESOLUTION,
    }
    return [departure for departure, holds in found.items() if holds]


def is_shapenet_srn(dataset: SceneDataset) -> bool:
    """Whether a dataset looks like SRN's cars_test: its name, ShapeNet's names of objects, and their numbers."""
    names = dataset.scene_names
    return (
        dataset.path.name == "cars_test"
        and len(names) == SRN_OBJECTS
        and all(re.fullmatch(r"[0-9a-f]{20,32}", name) for name in names)
        and all(dataset.num_views(scene) == SRN_VIEWS for scene in range(len(names)))
    )
