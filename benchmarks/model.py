"""What is measured: networks with random weights, random inputs, and one update of training."""

import contextlib
import dataclasses
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

import genvs.ops
from benchmarks.common import DEVICE, measuring
from dnnlib.command import FullPath, option_group
from genvs.config import PRESETS, GeNVSConfig
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.data.types import ViewBatch, Views
from genvs.geometry import Cameras
from genvs.geometry.trajectories import spherical_c2w
from genvs.modalities import MODALITIES
from genvs.models import GeNVS
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import load_batches, open_data, pack_data
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.parallel import sum_over_ranks, training_net
from training.state import create_state
from training.training_loop import accumulate_gradients, update_ema, update_weights

PATHS: dict[str, Callable] = {"fast": contextlib.nullcontext, "reference": genvs.ops.reference_only}
ops_option = measuring("--ops", type=click.Choice(list(PATHS)), default="fast", help="reference is plain torch.")
data_option = option_group("Data")("--data", type=FullPath(path_type=Path), show_default="made for it", help="Dataset.")


def part_option(parts: Sequence[str]) -> Callable:
    """The option for some of these parts, by default all."""
    choice, about = click.Choice(parts), "What to measure; may be given several times."
    return measuring("--part", "names", type=choice, multiple=True, default=parts, show_default="all", help=about)


@contextlib.contextmanager
def dataset(data: Path | None, preset: str, **changes: Any) -> Iterator[Path]:
    """`data`, or else one that is made for the block: the preset's embedded one, with `changes`."""
    if data is not None:
        yield data
        return
    embedded = {**dataclasses.asdict(TRAIN_PRESETS[preset].embedded), "test_scenes": 0, **changes}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        ensure_dataset(Path(folder, "cars"), workers=os.cpu_count() or 1, **embedded)
        yield Path(folder, "cars")


def random_net(preset: str) -> GeNVS:
    """A network in eval mode, with random weights: those that are nearly zero in a new one could run faster."""
    torch.manual_seed(0)
    net = GeNVS(PRESETS[preset]).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return net.to_device(DEVICE)


def random_cameras(config: GeNVSConfig, shape: tuple[int, ...], generator: torch.Generator) -> Cameras:
    """Cameras `shape` all around the origin, with the camera model of the config's scene."""
    scene = config.scene
    azimuth = torch.rand(shape, generator=generator) * 2 * math.pi
    elevation = torch.asin(torch.rand(shape, generator=generator) * 2 - 1)
    intrinsics = torch.tensor([[scene.focal, 0.0, 0.5], [0.0, scene.focal, 0.5], [0.0, 0.0, 1.0]])
    return Cameras(
        c2w=spherical_c2w(azimuth, elevation, scene.radius),
        intrinsics=intrinsics.expand(*shape, 3, 3).clone(),
        near=torch.full(shape, scene.near),
        far=torch.full(shape, scene.far),
    )


def random_views(
    config: GeNVSConfig, shape: tuple[int, ...], generator: torch.Generator, modality: Tensor | None = None
) -> Views:
    """Uniform noise in [-1, 1] as images, and random cameras. modality: int64 `shape`; by default all are photos."""
    images = torch.rand(*shape, 3, config.resolution, config.resolution, generator=generator) * 2 - 1
    cameras = random_cameras(config, shape, generator)
    return Views(images, cameras if modality is None else dataclasses.replace(cameras, modality=modality))


def random_batch(config: GeNVSConfig, scenes: int, views: int, targets: int, seed: int) -> ViewBatch:
    """A training batch as it reaches the loss, on the CPU. The same seed gives the same batch."""
    generator, scene = torch.Generator().manual_seed(seed), torch.arange(scenes)
    modalities = torch.tensor([MODALITIES[name].index for name in config.modalities])
    of_inputs = modalities[(scene[:, None] + torch.arange(views)) % len(modalities)]
    of_targets = modalities.repeat_interleave(scenes // len(modalities))[:, None].expand(-1, targets)
    inputs = random_views(config, (scenes, views), generator, of_inputs)
    return ViewBatch(inputs, random_views(config, (scenes, targets), generator, of_targets), scene + seed * scenes)


def training_config(preset: str, batch: int, views: int, precision: str, **changes) -> TrainConfig:
    """The preset's recipe at this batch, one target a scene, without warm-up of the learning rate."""
    settings = {
        "batch_size": batch,
        "min_inputs": views,
        "max_inputs": views,
        "num_targets": 1,
        "lr_rampup_kimg": 0.0,
        "bf16": precision == "bf16",
        "logger": None,
    }
    return dataclasses.replace(TRAIN_PRESETS[preset], **{**settings, **changes})


class TrainingStep:
    """One update as the training loop makes it, on the next batch."""

    def __init__(self, config: TrainConfig, batches: Iterator[ViewBatch]) -> None:
        self.config, self.batches = config, batches
        torch.backends.cudnn.benchmark = config.bench
        self.state = create_state(config, config.net.scene, DEVICE)
        sum_over_ranks(self.state.net, config)
        self.net = training_net(self.state.net, config, DEVICE)
        self.loss_fn = GeNVSLoss(config.loss, config.net, config.seed)
        # A rank other than 0 writes nothing.
        self.monitor = Monitor(Path(), DEVICE, rank=1, cur_nimg=0, total=1)

    def __call__(self) -> None:
        accumulate_gradients(self.net, self.loss_fn, self.batches, self.config, self.monitor)
        self.update()

    def update(self) -> None:
        """What follows the gradients: finite check, optimizer, moving average."""
        config, state = self.config, self.state
        update_weights(state, config, self.monitor)
        update_ema(state, config)
        state.cur_nimg += config.batch_size


def loaded_batches(config: TrainConfig, workers: int) -> Iterator[ViewBatch]:
    """The batches of a run from its start, as training loads them."""
    data = open_data(config)
    pack_data(data)
    return load_batches(dataclasses.replace(config, workers=workers), data, 0, DEVICE)


def in_memory_batches(config: TrainConfig) -> Iterator[ViewBatch]:
    """Four random batches on the device, in turn, without end."""
    scenes, views, targets = config.batch_size // config.num_targets, config.max_inputs, config.num_targets
    batches = [random_batch(config.net, scenes, views, targets, seed).to(DEVICE) for seed in range(4)]
    return itertools.cycle(batches)
