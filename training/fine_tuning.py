"""Starting from a snapshot: the run's settings that follow from it and from the data."""

import contextlib
import dataclasses
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from genvs import load_snapshot
from genvs.data.camera_checks import Placement
from genvs.data.stored import dataset_class
from genvs.errors import InputError
from genvs.modalities import MODALITIES
from genvs.settings import set_by_path
from training.config import TRAIN_PRESETS, TrainConfig
from training.state import unlike

NEAR_ENOUGH = 0.1  # how far cameras and the point they look at may be off, in distances of the cameras
SHORT: dict[str, dict[str, Any]] = {"cuda": {"duration_kimg": 100.0}, "cpu": {"duration_kimg": 0.4, "batch_size": 8}}


def start_from(path: str, preset: TrainConfig | None = None) -> TrainConfig:
    """The config of a new run from the snapshot at `path`, before its options are applied.

    preset: None takes the snapshot's network, and all else from the preset whose network is like it or, if there is
    none, nearest in resolution. A given preset brings its own network, unless its numerics are not the snapshot's. The
    scene is always the snapshot's. Raises InputError for a snapshot that cannot be used.
    """
    source = load_snapshot(path).config

    def unlikeness(other: TrainConfig) -> tuple[bool, int]:
        return bool(unlike(other.net, source)), abs(other.net.resolution - source.resolution)

    base = preset or min(TRAIN_PRESETS.values(), key=unlikeness)
    net = source
    if source.numerics != base.net.numerics:
        # As in its own training: feature images without colours, and no EMA ramp-up after a snapshot.
        base = dataclasses.replace(base, ema_rampup_ratio=None, loss=dataclasses.replace(base.loss, rgb_weight=0.0))
    elif preset:
        net = dataclasses.replace(preset.net, scene=source.scene)
    else:
        net = set_by_path(source, {"encoder.aspp_rates": source.usable_aspp_rates(source.resolution)})
    return dataclasses.replace(base, net=net)


def fine_tuning(config: TrainConfig, changes: Mapping[str, Any], device_type: str) -> TrainConfig:
    """A short run from a network that `config` has trained, with settings changed, by path.

    The EMA starts at the snapshot's weights and soon follows the new ones.
    """
    config = dataclasses.replace(config, **SHORT[device_type])
    kimg = set_by_path(config, changes).duration_kimg
    recipe = {"lr": config.lr / 4, "lr_rampup_kimg": kimg / 20, "lr_decay_kimg": kimg / 4, "low_resolution_kimg": 0.0}
    times = {"kimg_per_tick": kimg / 20, "snapshot_ticks": 5, "state_ticks": 20, "log_kimg": kimg / 100}
    return set_by_path(config, {**recipe, **times, **changes})


def as_in_training(config: TrainConfig, given: Collection[str]) -> TrainConfig:
    """`config` with the fit, background, depth planes and placement that its network was trained with.

    `config.net.scene` has them (`start_from`). given: the settings that a user has stated, by path,
    which stay; near, far and normalize count for the data as they are. If the cameras of the first scene are not where
    the network expects them, all scenes are normalized, to its cameras' distance.
    """
    trained = config.net.scene

    def with_usual(config: TrainConfig, **usual: Any) -> TrainConfig:
        return dataclasses.replace(config, **{name: value for name, value in usual.items() if name not in given})

    radius = trained.radius or config.radius
    config = with_usual(config, fit=trained.fit, background=trained.background, radius=radius)
    ranged = any(MODALITIES[name].decibels for name in config.net.modalities)  # their pictures cannot be scaled
    placement = None if config.data is None or ranged else _placement(config)
    if placement is None:
        return config
    off = max(abs(1 / placement.scale - 1), float(np.linalg.norm(placement.center)) / config.radius)
    in_place = off <= NEAR_ENOUGH
    if not {"near", "far", "normalize"} & set(given):
        config = dataclasses.replace(config, normalize=not in_place)
    return with_usual(config, **trained.planes) if config.normalize or in_place else config


def _placement(config: TrainConfig) -> Placement | None:
    """What would bring the first scene's cameras to `config.radius` from the origin; None if nothing would."""
    kind = dataset_class(config.data_class)
    read: dict[str, Any] = {"convention": config.convention, "modalities": config.net.modalities}
    read |= {"normalize": config.radius, "near": 1.0, "far": 2.0}  # any planes; the data's may not be known
    # Training opens the data again, and then says what is wrong with them.
    with warnings.catch_warnings(), contextlib.suppress(InputError):
        warnings.simplefilter("ignore")
        train = kind.find_splits(str(config.data)).train
        return kind(train, resolution=config.net.resolution, **read).placement(0)
    return None
