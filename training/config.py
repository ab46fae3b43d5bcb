"""Everything that defines a training run. The dataclasses own the defaults; train.py's options override them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from genvs.config import LEARNED_VIEW_WEIGHTINGS, PRESETS, GeNVSConfig
from genvs.errors import InputError
from training.loss import LossConfig


@dataclass(frozen=True)
class EmbeddedData:
    """Size of the embedded dataset that a preset trains on when no other is given."""

    resolution: int
    scenes: int
    views: int
    val_scenes: int
    test_scenes: int
    test_views: int
    seed: int = 0

    @property
    def path(self) -> str:
        return f"datasets/synthetic_{self.resolution}px_{self.scenes}x{self.views}/cars"


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Lengths are in thousands of target images (kimg), over all ranks.

    data: a dataset path; None for the embedded one. data_class: `package.module.Class` that reads it, None for the
    layouts of docs/data.md. near, far: depth planes in world units; None to take the data's. convention: of the poses,
    None for what is usual. normalize: move and scale every scene to the origin and one distance from its cameras.
    cond: tell the network the classes of the scenes. cache: pack decoded images beside the dataset, once.
    batch_size: target images per update, over all ranks. batch_gpu: target images per GPU and round; None for one
    round. grad_compression: how gradients travel between ranks, "none" or "bf16". cuda_graphs: replay the step as CUDA
    graphs, on GPUs. only_train_cam_weighter: the view weighting learns, all else stays as it was transferred.
    Raises InputError where values do not fit together.
    """

    preset: str = "srn128"
    net: GeNVSConfig = field(default_factory=GeNVSConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    embedded: EmbeddedData = field(default_factory=lambda: EmbeddedData(128, 2000, 24, 50, 20, 251))
    data: str | None = None
    data_class: str | None = None
    convention: str | None = None
    normalize: bool = False
    near: float | None = None
    far: float | None = None
    cond: bool = False
    xflip: bool = False
    cache: bool = True
    seed: int = 0
    duration_kimg: float = 4000.0
    batch_size: int = 96
    batch_gpu: int | None = None
    min_inputs: int = 1
    max_inputs: int = 3
    num_targets: int = 1
    lr: float = 1e-4
    lr_rampup_kimg: float = 10.0
    max_grad_norm: float = 1.0
    loss_scale: float = 1.0
    ema_halflife_kimg: float = 500.0
    ema_rampup_ratio: float | None = 0.05
    encoder_weights: str = "none"
    only_train_cam_weighter: bool = False
    transfer: str | None = None
    bf16: bool = True
    fp16: bool = False
    grad_compression: str = "none"
    bench: bool = True
    cuda_graphs: bool = True
    workers: int = 4
    kimg_per_tick: float = 10.0
    snapshot_ticks: int = 10
    state_ticks: int = 50
    log_kimg: float = 1.0
    tensorboard: bool = True

    def __post_init__(self) -> None:
        positive = {
            "--duration": self.duration_kimg / 1000,  # the options count millions
            "--batch": self.batch_size,
            "--batch-gpu": 1 if self.batch_gpu is None else self.batch_gpu,
            "--lr": self.lr,
            "--ema": self.ema_halflife_kimg / 1000,
            "--tick": self.kimg_per_tick,
            "--snap": self.snapshot_ticks,
            "--dump": self.state_ticks,
            "--log_freq": self.log_kimg,
            "--targets": self.num_targets,
            "--ls": self.loss_scale,
        }
        for option, value in positive.items():
            if not value > 0 or value == float("inf"):
                raise InputError(f"{option}={value:g}: give a number above 0")
        if not 1 <= self.min_inputs <= self.max_inputs:
            raise InputError(f"--views={self.min_inputs}-{self.max_inputs}: give a range such as 1-3, from 1 up")
        if self.data == "":
            raise InputError("--data= is empty: give a path, or leave it out for the embedded cars")
        for option, number in (("--workers", self.workers), ("--seed", self.seed)):
            if not 0 <= number < 2**63:
                raise InputError(f"{option}={number}: give a number from 0 up, below 2^63")
        if self.fp16 and self.bf16:
            raise InputError("--fp16 and --bf16 exclude each other: leave one of them out")
        if not 0 <= self.loss.augment <= 1:
            raise InputError(f"--augment={self.loss.augment:g}: give a probability from 0 to 1")
        if (self.loss.augment > 0) != (self.net.denoiser.augment_labels > 0):
            raise InputError("loss.augment and net.denoiser.augment_labels go together: set both or neither")
        if not 0 <= self.loss.rgb_weight < float("inf"):
            raise InputError(f"--rgb_weight={self.loss.rgb_weight:g}: give a number from 0 up")
        if not 0 <= self.net.denoiser.dropout < 1:
            raise InputError(f"--dropout={self.net.denoiser.dropout:g}: give a probability from 0 to below 1")
        if self.only_train_cam_weighter and self.net.view_weighting not in LEARNED_VIEW_WEIGHTINGS:
            raise InputError(
                f"--only_train_cam_weighter: {self.net.view_weighting} has nothing to learn: "
                f"add --cam_weighting_method {' or '.join(LEARNED_VIEW_WEIGHTINGS)}"
            )
        if self.data_class and not self.data:
            raise InputError(f"--data-class={self.data_class}: give --data too, for the class to open")
        if self.near is not None and self.far is not None and not 0 < self.near < self.far:
            raise InputError(f"--near={self.near:g}, --far={self.far:g}: near must be above 0 and below far")

    @property
    def total_nimg(self) -> int:
        """Target images to train on, rounded up to whole updates."""
        # Rounded first: 0.072 * 1000 is a little more than 72, and would ask for one update more.
        return -int(-round(self.duration_kimg * 1000, 3) // self.batch_size) * self.batch_size

    def images_at_a_time(self, world_size: int) -> int:
        """Target images per GPU and round: `batch_gpu`, or an equal share of the batch."""
        return self.batch_gpu or self.batch_size // world_size

    def rounds(self, world_size: int) -> int:
        """Gradient accumulation rounds per update. Raises InputError where the batch does not divide."""
        batch_gpu = self.images_at_a_time(world_size)
        each = batch_gpu * world_size if self.batch_gpu else world_size
        if self.batch_size % each:
            divisor = f"{world_size} processes" + (f" x --batch-gpu={batch_gpu}" if self.batch_gpu else "")
            fits = max(self.batch_size // each, 1) * each
            raise InputError(f"--batch={self.batch_size} must be divisible by {divisor}: give {fits}, for example")
        if batch_gpu % self.num_targets:
            raise InputError(
                f"--batch-gpu={batch_gpu} (images per process and round) must be divisible by "
                f"--targets={self.num_targets} (images per scene)"
            )
        return self.batch_size // (batch_gpu * world_size)


TRAIN_PRESETS: dict[str, TrainConfig] = {
    "srn128": TrainConfig(lr=4e-4, num_targets=2),
    "srn64": TrainConfig(preset="srn64", net=PRESETS["srn64"], lr=2e-4, num_targets=2, ema_halflife_kimg=200.0),
    "demo": TrainConfig(
        preset="demo",
        net=PRESETS["demo"],
        # Between the paper's noise levels, for 128 pixels, and those of cpu-demo's 32.
        loss=LossConfig(P_mean=-0.5, P_std=1.5),
        embedded=EmbeddedData(64, 4000, 24, 50, 100, 251),
        batch_size=128,
        num_targets=2,
        lr=1e-3,
        lr_rampup_kimg=50.0,
        ema_halflife_kimg=200.0,
        kimg_per_tick=25.0,
        snapshot_ticks=4,
        state_ticks=20,
        log_kimg=5.0,
    ),
    "cpu-demo": TrainConfig(
        preset="cpu-demo",
        net=PRESETS["cpu-demo"],
        # At 32 pixels little noise hides a car; and with minutes to learn, there is nothing to overfit to.
        loss=LossConfig(P_mean=0.0, P_std=1.6, input_noise_probability=0.0, rgb_weight=3.0),
        embedded=EmbeddedData(32, 400, 16, 40, 4, 16),
        duration_kimg=18.0,
        batch_size=16,
        lr=1e-3,
        lr_rampup_kimg=2.0,
        ema_rampup_ratio=0.1,
        workers=0,
        kimg_per_tick=1.0,
        snapshot_ticks=6,
        state_ticks=6,
        log_kimg=0.25,
    ),
}


# What may change when a run resumes: none of it alters what the run computes.
RESUMABLE = (
    "duration_kimg",
    "batch_gpu",
    "workers",
    "cache",
    "bench",
    "cuda_graphs",
    "kimg_per_tick",
    "snapshot_ticks",
    "state_ticks",
    "log_kimg",
    "tensorboard",
)


OF_A_MACHINE = ("data", "workers")  # what may differ among the processes of a run


def resumed(saved: TrainConfig, changes: dict) -> TrainConfig:
    """The saved run's config with the given changes. Raises InputError, with the difference, for another run's."""
    config = dataclasses.replace(saved, **changes)
    old, new = (flat({**dataclasses.asdict(c), **dict.fromkeys(RESUMABLE)}) for c in (saved, config))
    if old != new:
        raise InputError(
            f"--resume with other options would be a different run ({', '.join(differences(old, new))}): leave them "
            "out, or start a new run with --transfer"
        )
    return config


def differences(old: dict, new: dict) -> list[str]:
    """What two flat dicts do not share, as `name old -> new`."""
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]


def flat(tree: dict, prefix: str = "") -> dict:
    """Nested dicts as one, with names such as `net.denoiser.dropout`."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
