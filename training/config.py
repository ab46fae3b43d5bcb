"""Everything that defines a training run. The dataclasses hold the defaults, which train.py's options change."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genvs.config import AUGMENT_LABELS, CONVENTIONS, FITS, LEARNED_VIEW_WEIGHTINGS, PRESETS, GeNVSConfig, SceneConfig
from genvs.data.synthetic import KINDS
from genvs.errors import InputError
from genvs.machine import LOADERS
from genvs.models.backbone import BACKBONES
from genvs.settings import NOT_NEGATIVE, POSITIVE, as_text, check_choice, check_color, check_numbers, flat, set_by_path
from training.loggers import LOGGERS
from training.loss import LossConfig
from training.muon import OPTIMIZERS

ROOT = Path(__file__).resolve().parents[1]  # of the repository, where datasets/ and training_runs/ are


@dataclass(frozen=True)
class EmbeddedData:
    """The embedded dataset on which a preset trains if no other is given: its size, and what its scenes show."""

    resolution: int
    scenes: int
    views: int
    val_scenes: int
    test_scenes: int
    test_views: int
    seed: int = 0
    kind: str = "cars"

    def __post_init__(self) -> None:
        check_choice(self, "kind", KINDS)
        check_numbers(self, POSITIVE, *set(self.__dataclass_fields__) - {"seed", "kind"})
        check_numbers(self, NOT_NEGATIVE, "seed")

    @property
    def path(self) -> str:
        return str(ROOT / "datasets" / f"synthetic_{self.resolution}px_{self.scenes}x{self.views}" / self.kind)


PARTS_OF_A_RUN = ("low_resolution_kimg", "lr_decay_kimg", "matching_kimg")  # their lengths follow the run's


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Lengths are in thousands of target images (kimg), over all ranks.

    net: its scene comes from the data, and its augmentation labels from `loss`. data: a dataset's path; None for the
    embedded one. data_class: `package.module.Class` that reads it; None for the layouts of docs/data.md. near, far:
    depth planes, world units; None for the data's. convention: camera axes of the poses; None for the format's.
    normalize: move and scale every scene to the origin, at the distance `radius` from its cameras (their median). fit:
    what is done to images that are not square, one of FITS. background: behind transparent and masked parts, RGB from 0
    to 255. cond: train a class-conditional network. cache: pack decoded images beside the dataset, once. batch_size:
    target images per update, over all ranks. batch_gpu: target images per GPU and round; None for one round.
    low_resolution_kimg: length of the first part, at half the resolution. lr_rampup_kimg, lr_decay_kimg: lengths of the
    learning rate's linear rise from 0, at the start, and of its linear fall to 0, at the end. optimizer: one of
    OPTIMIZERS. grad_compression: of gradients between ranks, "none" or "bf16". fp16: instead of bf16.
    cuda_graphs: replay the step as CUDA graphs.
    only_train_cam_weighter: train the view weighting alone and keep all other weights of `transfer`. distill_steps:
    tune the denoiser of `transfer`, and nothing else, to draw in 1 or 2 steps (`training.distillation`); 0 for ordinary
    training. matching_kimg: length of its last part, with distribution matching. logger: some of LOGGERS; None
    for none.
    Raises InputError for values that are not allowed or do not fit together.
    """

    preset: str = "srn128"
    net: GeNVSConfig = GeNVSConfig()
    loss: LossConfig = LossConfig()
    embedded: EmbeddedData = EmbeddedData(
        resolution=128, scenes=2000, views=24, val_scenes=50, test_scenes=20, test_views=251
    )
    data: str | None = None
    data_class: str | None = None
    convention: str | None = None
    normalize: bool = False
    radius: float = SceneConfig.radius
    fit: str = "squeeze"
    background: tuple[int, ...] = (255, 255, 255)
    near: float | None = None
    far: float | None = None
    cond: bool = False
    xflip: bool = False
    cache: bool = True
    seed: int = 0
    duration_kimg: float = 4000.0
    batch_size: int = 96
    batch_gpu: int | None = None
    low_resolution_kimg: float = 0.0
    min_inputs: int = 1
    max_inputs: int = 3
    num_targets: int = 1
    lr: float = 1e-4
    lr_rampup_kimg: float = 10.0
    lr_decay_kimg: float = 0.0
    optimizer: str = "adam"
    max_grad_norm: float = 1.0
    loss_scale: float = 1.0
    ema_halflife_kimg: float = 500.0
    ema_rampup_ratio: float | None = 0.05
    encoder_weights: str = "none"
    only_train_cam_weighter: bool = False
    transfer: str | None = None
    distill_steps: int = 0
    matching_kimg: float = 0.0
    bf16: bool = True
    fp16: bool = False
    grad_compression: str = "none"
    bench: bool = False
    cuda_graphs: bool = True
    workers: int = LOADERS
    kimg_per_tick: float = 10.0
    snapshot_ticks: int = 10
    state_ticks: int = 50
    log_kimg: float = 1.0
    logger: tuple[str, ...] | None = ("tensorboard",)

    def __post_init__(self) -> None:
        check_numbers(self, POSITIVE, "duration_kimg", "batch_size", "batch_gpu", "num_targets", "lr", "loss_scale")
        check_numbers(self, POSITIVE, "max_grad_norm", "ema_halflife_kimg", "ema_rampup_ratio", "near", "far", "radius")
        check_numbers(self, POSITIVE, "kimg_per_tick", "snapshot_ticks", "state_ticks", "log_kimg")
        check_numbers(self, NOT_NEGATIVE, "lr_rampup_kimg", "lr_decay_kimg", "low_resolution_kimg", "workers")
        check_numbers(self, NOT_NEGATIVE, "matching_kimg")
        check_choice(self, "preset", PRESETS)
        check_choice(self.net.encoder, "backbone", BACKBONES)
        check_choice(self, "grad_compression", ("none", "bf16"))
        check_choice(self, "optimizer", OPTIMIZERS)
        check_choice(self, "fit", FITS)
        check_color(self, "background")
        for name in self.logger or ():
            if name not in LOGGERS:
                raise InputError(f"`logger`={name}: choose some of {', '.join(LOGGERS)}, or none")
        if self.convention is not None:
            check_choice(self, "convention", CONVENTIONS)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"`seed`={self.seed}: give a number from 0 up, below 2^63")
        if not 1 <= self.min_inputs <= self.max_inputs:
            raise InputError(f"`min_inputs`={self.min_inputs}-{self.max_inputs}: give a range such as 1-3, from 1 up")
        if self.only_train_cam_weighter and self.net.view_weighting not in LEARNED_VIEW_WEIGHTINGS:
            fault = f"`only_train_cam_weighter`: {self.net.view_weighting} has no weights to train"
            raise InputError(f"{fault}: choose {' or '.join(LEARNED_VIEW_WEIGHTINGS)} as `view_weighting`")
        if self.distill_steps not in (0, 1, 2):
            raise InputError(f"`distill_steps`={self.distill_steps}: give 1 or 2, or 0 for ordinary training")
        if self.distill_steps and self.net.denoiser.precond != "edm":
            raise InputError(f"`precond`={self.net.denoiser.precond}: `distill_steps` needs a network of `precond`=edm")
        if self.matching_kimg and not self.distill_steps:
            raise InputError("`matching_kimg` is a part of making a few-step network: leave it out")
        if self.distill_steps and self.only_train_cam_weighter:
            raise InputError("`distill_steps` and `only_train_cam_weighter` train different layers: leave one out")
        if self.transfer is not None and self.encoder_weights != "none":
            raise InputError("`encoder_weights` and `transfer` both set the encoder's weights: give one of them")
        if self.data_class and not self.data:
            raise InputError(f"`data_class`={self.data_class}: give the `data` that it reads too")
        if self.near is not None and self.far is not None and self.near >= self.far:
            raise InputError(f"`near`={self.near:g}, `far`={self.far:g}: choose `near` below `far`")
        rates, usable = self.net.encoder.aspp_rates, self.net.usable_aspp_rates(self.net.resolution)
        if rates != usable:
            fault = f"too large for the feature map at `resolution`={self.net.resolution}"
            raise InputError(f"`aspp_rates`={as_text(rates)}: {fault}: give {as_text(usable)}, for example")
        labels = AUGMENT_LABELS if self.loss.augment > 0 else 0
        if self.net.denoiser.augment_labels != labels:
            denoiser = dataclasses.replace(self.net.denoiser, augment_labels=labels)
            object.__setattr__(self, "net", dataclasses.replace(self.net, denoiser=denoiser))
        try:
            self.net_at(0)
        except InputError as error:
            fault = f"half of `resolution`={self.net.resolution} does not suit the network ({error})"
            raise InputError(f"`low_resolution_kimg`={self.low_resolution_kimg:g}: {fault}: give 0") from None

    def dependent_settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, by path, that `changes` also change (`genvs.settings.set_by_path`)."""
        of_net = {path.removeprefix("net."): value for path, value in changes.items() if path.startswith("net.")}
        found = {f"net.{path}": value for path, value in self.net.dependent_settings(of_net).items()}
        if "resolution" in of_net:
            found["embedded.resolution"] = of_net["resolution"]
        if "duration_kimg" in changes:  # the parts of a run keep their shares
            scale = changes["duration_kimg"] / self.duration_kimg
            found |= {name: getattr(self, name) * scale for name in PARTS_OF_A_RUN}
        return found

    @property
    def total_nimg(self) -> int:
        """Target images to train on, rounded up to whole updates, of which there is at least one."""
        return max(self._whole_updates(self.duration_kimg), self.batch_size)

    @property
    def low_resolution_nimg(self) -> int:
        """Target images at half the resolution, rounded up to whole updates."""
        return self._whole_updates(self.low_resolution_kimg)

    @property
    def matching_nimg(self) -> int:
        """Target images before distribution matching, in whole updates."""
        return self.total_nimg - self._whole_updates(self.matching_kimg)

    def _whole_updates(self, kimg: float) -> int:
        # Rounded first: 0.072 * 1000 is a little more than 72, which would take one update more.
        return math.ceil(round(kimg * 1000, 3) / self.batch_size) * self.batch_size

    def net_at(self, cur_nimg: int) -> GeNVSConfig:
        """The network's config after `cur_nimg` images, which differs from `net` in sizes that weights do not have."""
        if cur_nimg >= self.low_resolution_nimg:
            return self.net
        return set_by_path(self.net, {"resolution": self.net.resolution // 2})

    def lr_at(self, cur_nimg: int) -> float:
        """The learning rate of the update after `cur_nimg` images."""
        share = min(cur_nimg / max(self.lr_rampup_kimg * 1000, 1e-8), 1.0)
        if self.lr_decay_kimg > 0:
            share = min(share, (self.total_nimg - cur_nimg) / (self.lr_decay_kimg * 1000))
        return self.lr * share

    def batch_gpu_or_share(self, world_size: int) -> int:
        """Target images per GPU and round: `batch_gpu`, or an equal share of the batch."""
        return self.batch_gpu or self.batch_size // world_size

    def rounds(self, world_size: int) -> int:
        """Gradient accumulation rounds per update. Raises InputError where the batch does not divide."""
        step = world_size * (self.batch_gpu or 1)
        if self.batch_size % step:
            factors = "processes x `batch_gpu`" if self.batch_gpu else "processes"
            fits = max(self.batch_size // step, 1) * step
            fault = f"`batch_size`={self.batch_size} is not divisible by {step} ({factors})"
            raise InputError(f"{fault}: give {fits}, for example")
        batch_gpu = self.batch_gpu_or_share(world_size)
        if batch_gpu % self.num_targets:
            fault = f"{batch_gpu} images per process and round (`batch_gpu`)"
            raise InputError(f"{fault} are not divisible by `num_targets`={self.num_targets}: change one of them")
        scenes, modalities = batch_gpu // self.num_targets, len(self.net.modalities)
        if scenes % modalities:
            fits = max(scenes // modalities, 1) * modalities * self.num_targets
            remedy = f"`batch_gpu`={fits}" if self.batch_gpu else f"`batch_size`={fits * world_size}"
            fault = f"{scenes} scenes per process and round (`batch_gpu` / `num_targets`)"
            raise InputError(f"{fault} are not divisible by {modalities} `modalities`: give {remedy}, for example")
        return self.batch_size // (batch_gpu * world_size)


# What each preset changes in `srn128`'s recipe, besides its network, as in `--set`.
_RECIPES = {
    "srn128": "lr=4e-4 num_targets=2",
    "srn64": "lr=2e-4 num_targets=2 ema_halflife_kimg=200",
    # More noise than the paper's, nearly cpu-demo's. At half the resolution a GPU's step takes half as long, or
    # less.
    "demo": "loss.P_mean=0 loss.P_std=1.5 duration_kimg=1650 low_resolution_kimg=762 batch_size=256 num_targets=2 "
    "optimizer=muon lr=2e-3 lr_rampup_kimg=50 lr_decay_kimg=495 ema_halflife_kimg=80 kimg_per_tick=50 snapshot_ticks=5 "
    "state_ticks=20 log_kimg=5 embedded.scenes=3600 embedded.views=20 embedded.test_scenes=100",
    # Little noise hides a car of 32 pixels, and a training of minutes does not overfit.
    "cpu-demo": "loss.P_mean=0 loss.P_std=1.6 loss.input_noise_probability=0 loss.rgb_weight=3 duration_kimg=18 "
    "batch_size=16 optimizer=muon lr=2e-3 lr_rampup_kimg=2 ema_rampup_ratio=0.1 workers=0 kimg_per_tick=1 "
    "snapshot_ticks=6 state_ticks=6 log_kimg=0.25 embedded.resolution=32 embedded.scenes=400 embedded.views=16 "
    "embedded.val_scenes=40 embedded.test_scenes=4 embedded.test_views=16",
}
TRAIN_PRESETS: dict[str, TrainConfig] = {
    name: set_by_path(TrainConfig(preset=name, net=PRESETS[name]), dict(each.split("=") for each in recipe.split()))
    for name, recipe in _RECIPES.items()
}


def for_distillation(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The recipe that makes a two-step network of one that `config` has trained, with settings changed, by path.

    It takes a quarter of the images, half of them for distribution matching. Without dropout, because the trained
    network is to answer as in inference.
    """
    recipe = {"distill_steps": 2, "net.denoiser.dropout": 0.0, "low_resolution_kimg": 0.0}
    config = set_by_path(config, {**recipe, "duration_kimg": config.duration_kimg / 4, **changes})
    kimg = config.duration_kimg
    recipe |= {"lr_rampup_kimg": kimg / 18, "lr_decay_kimg": kimg / 6, "matching_kimg": kimg / 2}
    return set_by_path(config, {**recipe, **changes})


# Settings that may change when a run resumes, because results do not depend on them. The data may have moved.
RESUMABLE = (
    "data duration_kimg batch_gpu workers cache bench cuda_graphs kimg_per_tick snapshot_ticks state_ticks log_kimg "
    "logger"
).split()
PER_PROCESS = ("data", "workers")  # settings that may differ among the processes of a run


def resumed(saved: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The saved run's config with settings changed, by path. Raises InputError for changes that make another run."""
    # A new length leaves the parts of the run as they were.
    config = set_by_path(saved, {**{name: getattr(saved, name) for name in PARTS_OF_A_RUN}, **changes})
    old, new = (flat({**dataclasses.asdict(c), **dict.fromkeys(RESUMABLE)}) for c in (saved, config))
    if old != new:
        fault = f"`resume` with other options would be a different run ({', '.join(differences(old, new))})"
        raise InputError(f"{fault}: leave them out, or start a new run with `transfer`")
    return config


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The entries that differ between two flat dicts, as `name old -> new`."""
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in {**old, **new} if old.get(name) != new.get(name)]
