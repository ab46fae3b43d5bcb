"""Makes the embedded dataset, or one of other subjects, in SRN's layout; started again, only what is missing.

A scene always has rgb/ and depth/, which one drawing gives. Those of other sensors are drawn where they are asked for,
also for scenes that exist.
"""

import abc
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genvs.data.synthetic import KINDS
from genvs.data.synthetic.cars import build_car
from genvs.data.synthetic.sensors import BOUNCES, CARS, SENSORS, draw
from genvs.data.synthetic.shading import Castable, render
from genvs.data.synthetic.things.build import build_thing
from genvs.data.workers import run_in_workers
from genvs.errors import InputError
from genvs.files import lock
from genvs.geometry.trajectories import spherical_c2w, srn_spiral
from genvs.modalities import MODALITIES, modality_names

GENERATOR = 3  # raise it when the same seed gives other bytes
THING_GENERATOR = 1  # the same for things alone
SENSOR_GENERATOR = 1  # the same for pictures of radar and sonar
DEPTH_SCALE = 2.0 / 65535  # world units per step of a depth image
SPIRAL_VIEWS = 251
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Subject(abc.ABC):
    """What a scene shows. rng_key: seeds everything random about the scene."""

    rng_key: tuple[int, ...]

    @abc.abstractmethod
    def build(self) -> tuple[Castable, dict[str, Any]]:
        """The model, and facts to record about it. Raises InputError if it cannot be built."""


@dataclass(frozen=True)
class EmbeddedSubject(Subject):
    """A random car or thing. kind: of KINDS; a mixed dataset has cars and things with equal chances."""

    kind: str

    def build(self) -> tuple[Castable, dict[str, Any]]:
        kind = KINDS[np.random.default_rng((*self.rng_key, 2)).integers(2)] if self.kind == "mixed" else self.kind
        name, build = ("car", build_car) if kind == "cars" else ("thing", build_thing)
        model, info = build(np.random.default_rng(self.rng_key))
        return model, {"rng_key": self.rng_key, name: info}


def write_scene(partial: Path, model: Castable, info: Mapping[str, Any], c2w: np.ndarray, resolution: int) -> None:
    """Writes rgb/, pose/, depth/, intrinsics.txt and scene.json into the folder `partial`.

    c2w: `[V, 4, 4]`, OpenCV axes. info: facts to record.
    """
    focal = CARS.focal * resolution
    for name in ("rgb", "pose", "depth"):
        (partial / name).mkdir(parents=True)
    for view, (image, depth) in enumerate(render(model, c2w, focal, resolution)):
        Image.fromarray(image).save(partial / f"rgb/{view:06d}.png", compress_level=1)
        steps = np.round(depth / DEPTH_SCALE).astype(np.uint16)
        Image.fromarray(steps).save(partial / f"depth/{view:06d}.png", compress_level=1)
        pose = " ".join(map(repr, c2w[view].reshape(-1).tolist()))
        (partial / f"pose/{view:06d}.txt").write_text(pose)
    center = resolution / 2
    intrinsics = f"{focal:f} {center:f} {center:f} 0.\n0. 0. 0.\n1.\n{resolution} {resolution}\n"
    (partial / "intrinsics.txt").write_text(intrinsics)
    record = {"depth_scale": DEPTH_SCALE, "near": CARS.near, "far": CARS.far, **info}
    (partial / "scene.json").write_text(json.dumps(record, indent=1) + "\n")


@dataclass(frozen=True)
class Split:
    """A split's folder, the subjects of its scenes by their names, and the settings that they share (`dataset.json`).

    name: one of SPLITS, which determines the cameras. sensors: the ones of SENSORS that every scene must have.
    looks: the number of looks of the pictures' speckle; None for no speckle.
    """

    name: str
    folder: Path
    subjects: Mapping[str, Subject]
    settings: dict[str, Any]
    sensors: Sequence[str] = ()
    looks: int | None = None

    @property
    def sensor_settings(self) -> dict[str, Any]:
        """What `dataset.json` also says once scenes have pictures of a radar or a sonar."""
        if not self.sensors:
            return {}
        decibels = {f"{name}_decibels": MODALITIES[name].decibels for name in SENSORS}
        settings = {"sensor_generator": SENSOR_GENERATOR, "looks": self.looks, "sar_bounces": BOUNCES, **decibels}
        return json.loads(json.dumps(settings))  # lists, as a file has them

    def record(self) -> dict[str, Any] | None:
        """What `dataset.json` says; None where there is no dataset yet.

        Raises InputError if the folder holds anything other than a dataset made with these settings.
        """
        path = self.folder / "dataset.json"
        remedy = "choose another folder, or delete this one"
        try:
            found = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise InputError(f"{self.folder}: exists but is no dataset made by this program; {remedy}") from None
            return None
        except (OSError, ValueError):
            raise InputError(f"{path}: cannot be read; {remedy}") from None
        found = found if isinstance(found, dict) else {}
        drawn = {key: wanted for key, wanted in self.sensor_settings.items() if key in found}
        for key, wanted in ({"kind": "cars"} | self.settings | drawn).items():
            have = ({"kind": "cars"} | found).get(key)
            if have != wanted:
                have, wanted = ("none" if value is None else value for value in (have, wanted))
                raise InputError(f"{self.folder}: made with {key} {have}, not {wanted}; {remedy}")
        return found

    def missing(self) -> dict[str, list[str]]:
        """The scenes that are incomplete, each with the sensors whose pictures are missing. Raises as `record` does."""
        present = set() if self.record() is None else set(os.listdir(self.folder))
        lacking = {
            scene: [name for name in self.sensors if not (self.folder / scene / name).exists()]
            for scene in sorted(self.subjects)
        }
        return {scene: sensors for scene, sensors in lacking.items() if sensors or scene not in present}

    def make(self, scene: str, sensors: Sequence[str], partial: Path) -> None:
        """Makes a scene, or draws the pictures of these sensors for one that exists.

        partial: where folders are written first, on the same file system, so that they appear whole or not at all.
        """
        subject, folder, partial = self.subjects[scene], self.folder / scene, partial / f"{self.name}-{scene}"
        resolution = self.settings["resolution"]
        c2w = split_cameras(self.name, self.settings["views"], np.random.default_rng((*subject.rng_key, 1)))
        model, info = subject.build()
        if not folder.exists():
            write_scene(partial, model, info, c2w, resolution)
        for name in sensors:
            (partial / name).mkdir(parents=True)
            for view, picture in enumerate(draw(name, model, c2w, resolution, subject.rng_key, self.looks)):
                Image.fromarray(picture).save(partial / f"{name}/{view:06d}.png", compress_level=1)
        if not folder.exists():  # a worker of an interrupted run may have outlived it and made the folder
            os.replace(partial, folder)
            return
        for name in sensors:
            if not (folder / name).exists():
                os.replace(partial / name, folder / name)


def split_settings(seed: int, resolution: int, views: int, **others: Any) -> dict[str, Any]:
    """What a split of this generator records about how it was made. views: of each scene."""
    shared = {"generator": GENERATOR, "seed": seed, "resolution": resolution, "near": CARS.near, "far": CARS.far}
    return {**shared, "views": views, **others}


def split_cameras(split: str, views: int, rng: np.random.Generator) -> np.ndarray:
    """A scene's cameras `[views, 4, 4]`, camera-to-world, OpenCV axes, at the distance of SRN's cars from the origin.

    Train and val: uniform on the whole sphere. Test: SRN's spiral, or evenly spaced cameras of it.
    """
    if split == "test":
        steps = np.round(np.linspace(0, SPIRAL_VIEWS - 1, views)).astype(int)
        return srn_spiral(CARS.radius, SPIRAL_VIEWS)[steps].double().numpy()
    azimuth = torch.from_numpy(rng.uniform(0, 2 * np.pi, views))
    elevation = torch.from_numpy(np.arcsin(rng.uniform(-1, 1, views)))
    return spherical_c2w(azimuth, elevation, CARS.radius).numpy()


def ensure_dataset(
    out: str | Path,
    *,
    scenes: int,
    views: int,
    resolution: int,
    seed: int = 0,
    kind: str = "cars",
    workers: int = 1,
    val_scenes: int = 0,
    test_scenes: int = 0,
    test_views: int = SPIRAL_VIEWS,
    modalities: Iterable[str] = ("rgb",),
    looks: int | None = None,
) -> list[Split]:
    """Makes what is missing of the embedded dataset at `out_train`, `out_val` and `out_test`, in SRN's layout.

    A scene is a function of (kind, seed, split, index, views, resolution) alone, and the pictures of its radar and
    sonar also of `looks`. A later call may ask for more scenes or modalities, or for fewer. Several processes may call
    this at once: one works, the others wait.

    kind: "cars", "things", or "mixed": in each scene one or the other, by its seed. modalities: as `modality_names`
    takes them; rgb and depth are always drawn. looks: of the speckle in the pictures of radar and sonar, None for none.
    Returns the splits. Raises InputError if a folder holds something else, was made with other settings, or cannot be
    written, and for unknown kinds and modalities.
    """
    if kind not in KINDS:
        raise InputError(f"`kind`={kind}: choose one of {', '.join(KINDS)}")
    sensors = sensors_among(modalities)
    others = {} if kind == "cars" else {"kind": kind, "thing_generator": THING_GENERATOR}
    out = Path(os.path.abspath(out))
    if not out.name:
        raise InputError(f"{out}: has no name for a dataset; choose another path")
    plan = {"train": (scenes, views), "val": (val_scenes, views), "test": (test_scenes, test_views)}
    splits = []
    for name, (number, per_scene) in plan.items():
        if number:
            keys = [(seed, SPLITS.index(name), index) for index in range(number)]
            subjects = {f"{key[-1]:06d}": EmbeddedSubject(key, kind) for key in keys}
            settings = split_settings(seed, resolution, per_scene, **others)
            splits.append(Split(name, out.with_name(f"{out.name}_{name}"), subjects, settings, sensors, looks))
    ensure_splits(out, splits, workers)
    return splits


def sensors_among(modalities: Iterable[str]) -> list[str]:
    """The modalities in SENSORS, which are drawn only on request. Raises InputError for unknown ones."""
    return [name for name in modality_names(modalities) if name in SENSORS]


def ensure_splits(out: Path, splits: Sequence[Split], workers: int) -> None:
    """Makes what is missing of `splits`, as `ensure_dataset` does. out: absolute; the lock and unfinished scenes lie
    beside it. Raises InputError also for subjects that cannot be built, when all others are made.
    """
    if not any([split.missing() for split in splits]):
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with lock(out.with_name(out.name + ".lock"), wait=True):
            for stale in out.parent.glob(f"{out.name}.partial-*"):
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix=f"{out.name}.partial-", dir=out.parent, ignore_cleanup_errors=True
            ) as partial:
                _make_missing(Path(partial), splits, workers)
    except OSError as error:
        raise InputError(f"{error.filename or out}: {error.strerror}; choose another folder") from error


def _make_missing(partial: Path, splits: Sequence[Split], workers: int) -> None:
    """Makes folders and scenes that are missing, first in the temporary folder `partial`."""
    missing = [(split, *item) for split in splits for item in split.missing().items()]
    for split in splits:
        found = split.record()
        record = (found or split.settings) | split.sensor_settings
        if record != found:
            folder = partial / split.name
            folder.mkdir()
            (folder / "dataset.json").write_text(json.dumps(record, indent=1) + "\n")
            if found is None:  # the folder appears with its record in it
                os.replace(folder, split.folder)
            else:
                os.replace(folder / "dataset.json", split.folder / "dataset.json")

    def make(number: int) -> None:
        split, scene, sensors = missing[number]
        split.make(scene, sensors, partial)

    run_in_workers(make, len(missing), workers, "drawing", finish=True)
