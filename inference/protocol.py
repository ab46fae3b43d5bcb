"""What an evaluation draws: which objects and views of a split, and everything else that images depend on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from genvs.config import GeNVSConfig
from genvs.data.scenes import SceneDataset, Splits
from genvs.data.splits import dataset_class, open_splits, spelled_out
from genvs.data.storage import find_storage
from genvs.errors import InputError
from genvs.files import write_atomic
from inference import sampling_options
from torch_utils import distributed

SRN_VIEWS = 251  # of a test object, on a spiral from the horizon (view 0) to the zenith (view 250)
SRN_OBJECTS = 704  # in cars_test
# 64 and 104 are the literature's, opposite to each other; 84 is a quarter turn from both.
INPUT_VIEWS = (64, 104, 84)
LIST_VIEWS = (0, *range(24, 250, 25))
PUBLISHED_RESOLUTION = 128


@dataclass(frozen=True)
class Protocol:
    """What the images of one view, object and seed depend on. num_inputs: of INPUT_VIEWS. views: 'all', 'list', or
    their numbers. Paths are as given; the snapshot is known by its hash, the data by their files' names, sizes and
    times of change, and by the objects' classes.
    """

    snapshot: str
    snapshot_sha256: str
    data: str
    data_sha256: str
    convention: str
    normalize: bool
    num_inputs: int
    view_weighting: str
    views: str | list[int]
    resolution: int
    sampler: str
    num_steps: int
    guidance: float
    noise: str
    churn: float
    bf16: bool
    guide_sha256: str | None

    @property
    def sampling(self) -> dict[str, Any]:
        """How `synthesize_views` is to sample."""
        return {name: getattr(self, name) for name in sampling_options.NAMES}

    def check(self, path: Path) -> None:
        """Raise InputError where the protocol that is written in `path`, if there is one, is another."""
        ours = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("snapshot", "data")}
        if not path.exists():
            return
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key in ours if ours[key] != theirs[key]]
        except (OSError, ValueError, LookupError, TypeError):
            raise InputError(f"{path}: cannot be read: choose another --out_dir, or delete this one") from None
        if differing:
            key = differing[0]
            other = f"{key} {theirs[key]}, not {ours[key]}"
            if key.endswith("_sha256"):
                other = f"other contents of the {key.removesuffix('_sha256')}"
            raise InputError(
                f"{path}: the images there were drawn with {other}: choose another --out_dir, or delete this one"
            )

    def write(self, path: Path) -> None:
        """For `check`. Raises OSError."""
        write_atomic(json.dumps(dataclasses.asdict(self), indent=1) + "\n", path)


def choose_views(num_views: int, num_inputs: int, views: str | Sequence[int]) -> tuple[list[int], list[int]]:
    """The inputs and the targets among the `num_views` views of an object, as their places in order.

    An object of fewer or more views than SRN's 251 is taken to have those that are evenly spaced among them, and SRN's
    numbers stand for the nearest ones. Numbers from a file are taken as they are. Raises InputError for a number that
    the object does not have, or that is an input.
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
        text = Path(option).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not plain text"
        raise InputError(f"--views={option}: neither all nor list, nor a file to read ({reason})") from None
    words = re.split(r"[\s,;]+", text.strip())
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--views={option}: write the numbers of views into it, such as 0 24 49")
    return list(dict.fromkeys(map(int, words)))


def parse_seeds(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    """--seeds: numbers and ranges, such as 0-9 or 0,3,5."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < 10_000:
            raise click.BadParameter(f"{part!r} is neither a number nor a range: give some as 0-9 or 0,3,5")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


@dataclass(frozen=True)
class Source:
    """The dataset that is measured on. path: as train.py takes it. convention, normalize: as SceneDataset takes them.
    own_class: the class that reads it, None for the layouts of docs/data.md.
    """

    path: Path
    convention: str | None = None
    normalize: bool = False
    own_class: type[SceneDataset] | None = None

    def find(self, split: str) -> Path:
        """The path of a split. Raises InputError where there is none.

        Besides what training takes, `path` may be the common part of `cars_test` where there is nothing to train on.
        Where no split has a name, all there is stands for the test split.
        """
        common = spelled_out(self.path)
        beside = common.parent / f"{common.name}_{split}"
        if not self.own_class and common.name and find_storage(beside):
            return open_splits(beside).train
        splits = self._splits
        if not self.has_no_splits():
            path, named = getattr(splits, split), [name for name, found in splits._asdict().items() if found]
        else:
            whole = split == "test" or self._called(splits.train).endswith(f"_{split}")
            path, named = splits.train if whole else None, ["test"]
        if path is None:
            raise InputError(f"--data={self.path}: has no {split} split: give --split {' or '.join(named)}")
        return path

    def has_no_splits(self) -> bool:
        """Whether the data are one part alone: a split by whatever name, or scenes of which training may know some."""
        splits = self._splits
        named = not self.own_class and self._called(splits.train).endswith("_train")
        return not (splits.val or splits.test or named)

    def name_of(self, split: str) -> str | None:
        """What the data call the split that `find` gives for this one; None where that is all there is, by no name."""
        named = None if self.own_class else re.search(r"(?:^|_)(train|val|test)$", self._called(self.find(split)))
        if named:
            return named[1]
        return None if self.has_no_splits() else split

    @staticmethod
    def _called(split: Path) -> str:
        """The name that may say which split this is: a folder's with all its dots, for `transforms.json` too."""
        path = split.parent if split.name == "transforms.json" else split
        return path.stem if path.suffix == ".json" or path.is_file() else path.name

    @functools.cached_property  # finding them compares images
    def _splits(self) -> Splits:
        return self.own_class.find_splits(self.path) if self.own_class else open_splits(self.path)

    def open(self, split: Path, config: GeNVSConfig) -> SceneDataset:
        """Objects at the resolution and the depth planes of a network. What looks wrong with cameras is said on stderr.

        split: as `find` gives it.
        """
        kind = self.own_class or dataset_class(split)
        with distributed.warnings_as_lines():
            return kind(
                split,
                resolution=config.resolution,
                near=config.scene.near,
                far=config.scene.far,
                convention=self.convention,
                normalize=self.normalize,
            )


def is_shapenet_srn(dataset: SceneDataset) -> bool:
    """Whether a dataset looks like SRN's cars_test: its name, ShapeNet's names of objects, and their numbers."""
    names = dataset.scene_names
    return (
        dataset.path.name == "cars_test"
        and len(names) == SRN_OBJECTS
        and all(re.fullmatch(r"[0-9a-f]{20,32}", name) for name in names)
        and all(dataset.num_views(scene) == SRN_VIEWS for scene in range(len(names)))
    )


def departures(dataset: SceneDataset, protocol: Protocol, num_objects: int, split: str | None) -> list[str]:
    """In what figures are not of the published protocol; for a reader. split: as `Source.name_of` gives it."""
    found = []
    if split == "train":
        found.append("this is the train split, so training may have seen these objects")
    if split is None:
        found.append("the data are no split by name, so training may have seen these objects")
    if not is_shapenet_srn(dataset):
        found.append(f"the data are not the ShapeNet-SRN cars, but {dataset.path}")
    if num_objects != len(dataset):
        found.append(f"the first {num_objects} of {len(dataset)} objects")
    if protocol.num_inputs != 1:
        found.append(f"{protocol.num_inputs} input views, not 1")
    if protocol.views != "all":
        found.append("some of the views, not all others")
    if dataset.enlarged_from:
        width, height = dataset.enlarged_from
        found.append(f"images of {width}x{height} pixels, enlarged to {protocol.resolution}x{protocol.resolution}")
    if protocol.resolution != PUBLISHED_RESOLUTION:
        found.append(f"{protocol.resolution} pixels a side, not {PUBLISHED_RESOLUTION}")
    return found


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest(*contents: object) -> str:
    """A hash of what these print as."""
    return hashlib.sha256(repr(contents).encode()).hexdigest()


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` places, evenly spaced, the first and the last among them."""
    limit = min(count, limit)
    return [round(step * (count - 1) / max(limit - 1, 1)) for step in range(limit)]


def share(num_objects: int) -> Sequence[int]:
    """The objects that this rank draws and measures. Raises InputError where there are fewer than ranks."""
    world_size = distributed.get_world_size()
    if num_objects < world_size:
        raise InputError(f"{num_objects} object(s) for {world_size} processes: start at most {num_objects} (NGPU)")
    return range(distributed.get_rank(), num_objects, world_size)
