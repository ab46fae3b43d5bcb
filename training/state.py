"""The training state: created, transferred from a snapshot, saved and restored."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from genvs import files, load_snapshot, save_snapshot
from genvs.config import SceneConfig, config_of_snapshot
from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.settings import as_text, flat, from_dict
from genvs.snapshot import TRAINING_STATE, build_net
from torch_utils.background_writer import BackgroundWriter
from training.config import TrainConfig, differences
from training.ema import EMA
from training.encoder_weights import initialize_encoder

VERSION = 4
MAX_SKIPPED_IN_A_ROW = 50
FIRST_SCALE, SCALE_GROWTH_UPDATES = 2.0**16, 2000
VIEW_WEIGHTS = "renderer.view_weights."
LABEL_LAYERS = re.compile(r"denoiser\.unet\.embed_(augment|class)\..*")
LOWER_RATE = "start a new run with a lower `lr`, or with `transfer` from an earlier snapshot's weights"


@dataclass
class TrainState:
    """All that training changes, and the facts of the data that it trains on.

    data: `RunData.facts`. cur_nimg: target images seen, over all ranks. scale: float32 `[]`, the factor on the loss
    with which small gradients survive fp16; 1 without it. scale_updates: int64 `[]`, updates since it changed.
    skipped, skipped_in_a_row: int64 `[]`, updates skipped because a gradient was not finite. The tensors are on the
    network's device, where updates are skipped.
    """

    net: GeNVS
    ema: EMA
    optimizer: torch.optim.Optimizer
    cur_nimg: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    fp16: InitVar[bool] = False
    scale: Tensor = field(init=False)
    scale_updates: Tensor = field(init=False)
    skipped: Tensor = field(init=False)
    skipped_in_a_row: Tensor = field(init=False)

    def __post_init__(self, fp16: bool) -> None:
        device = next(self.net.parameters()).device
        self.scale = torch.full((), FIRST_SCALE if fp16 else 1.0, device=device)
        self.scale_updates = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def count_update(self, skipped: Tensor) -> None:
        """Count one update, skipped or not: bool `[]`. `skipped_in_a_row` never falls from its limit to 0 again."""
        self.skipped += skipped
        in_a_row = self.skipped_in_a_row
        self.skipped_in_a_row = (in_a_row + 1) * (skipped | (in_a_row >= MAX_SKIPPED_IN_A_ROW))

    def adapt_scale(self, finite: Tensor) -> None:
        """Halve `scale` after gradients that were not finite, double it after many updates that were; bool `[]`.

        As torch.amp.GradScaler does, with its numbers.
        """
        updates = (self.scale_updates + 1) * finite
        grow = updates >= SCALE_GROWTH_UPDATES
        self.scale = self.scale * torch.where(finite, 1.0 + grow, 0.5)
        self.scale_updates = updates * ~grow

    def skipped_counts(self) -> tuple[int, int]:
        """`skipped` and `skipped_in_a_row` as numbers. It waits for the device.

        Raises FloatingPointError after MAX_SKIPPED_IN_A_ROW skips in a row.
        """
        skipped, in_a_row = torch.stack([self.skipped, self.skipped_in_a_row]).tolist()
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            fault = f"gradients were not finite in {MAX_SKIPPED_IN_A_ROW} updates in a row"
            raise FloatingPointError(f"{fault}, before {self.cur_nimg} images: {LOWER_RATE}")
        return skipped, in_a_row

    def check_weights(self) -> None:
        """Raise FloatingPointError where weights are not finite or too large to be squared. It waits for the device."""
        if not nn.utils.get_total_norm([*self.net.parameters(), *self.ema.net.parameters()]).isfinite():
            raise FloatingPointError(
                f"the weights have grown without bound, before {self.cur_nimg} images, and are not saved: {LOWER_RATE}"
            )


def create_state(config: TrainConfig, scene: SceneConfig, device: torch.device) -> TrainState:
    """A new network (for the cameras of `scene`), its EMA and optimizer; the same on every rank.

    Raises InputError for a snapshot or encoder weights that cannot be used.
    """
    torch.manual_seed(config.seed)
    net = build_net(dataclasses.replace(config.net, scene=scene))
    initialize_encoder(net.encoder.backbone, config.encoder_weights)
    if config.transfer is not None:
        transfer(config.transfer, net)
    net.to_device(device)
    ema = EMA(net, config.ema_halflife_kimg, config.ema_rampup_ratio)
    if config.only_train_cam_weighter:
        net.requires_grad_(False)
        cast(nn.Module, net.renderer.view_weights).requires_grad_(True)
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    return TrainState(net, ema, optimizer, fp16=config.fp16)


# Starting from a snapshot


def start_from(path: str, preset: TrainConfig) -> TrainConfig:
    """The config that a new run from the snapshot at `path` has before its options: `preset`, or where the snapshot is
    of the other numerics, its network with the preset's recipe. Raises InputError for a snapshot that cannot be used.
    """
    source = load_snapshot(path).config
    if source.numerics == preset.net.numerics:
        return preset
    # Its feature images have no colours, and its own training goes on from a snapshot without EMA ramp-up.
    loss = dataclasses.replace(preset.loss, rgb_weight=0.0)
    return dataclasses.replace(preset, net=source, loss=loss, ema_rampup_ratio=None)


def transfer(path: str, net: GeNVS) -> None:
    """Load the weights of the snapshot at `path` into `net`.

    A view weighting that the snapshot does not have keeps its own weights. Layers for classes and augmentations that it
    does not have start at 0, and those that `net` does not have are left out, so that at first nothing changes.
    Raises InputError where it is damaged, or of another architecture or preconditioning.
    """
    source = load_snapshot(path)
    precond = source.config.denoiser.precond
    if precond != net.config.denoiser.precond:
        raise InputError(f"{path}: was trained with `precond`={precond}, not {net.config.denoiser.precond}: set it too")
    own, given = net.state_dict(), source.state_dict()
    weights = {name: tensor for name, tensor in given.items() if not LABEL_LAYERS.fullmatch(name)}
    weights |= {name: given.get(name, torch.zeros_like(own[name])) for name in own if LABEL_LAYERS.fullmatch(name)}
    of_weighting = {name: tensor for name, tensor in own.items() if name.startswith(VIEW_WEIGHTS)}
    if of_weighting.keys() != {name for name in weights if name.startswith(VIEW_WEIGHTS)}:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(VIEW_WEIGHTS)} | of_weighting
    fault = fault_in(weights, own)
    if fault is not None:
        own_settings, settings = (flat(dataclasses.asdict(each.config)) for each in (net, source))
        settings["encoder.aspp_rates"] = source.config.usable_aspp_rates(source.config.resolution)
        others = {name for name in settings if settings[name] != own_settings[name] and not name.startswith("scene.")}
        others.discard("denoiser.augment_labels")  # follow from the loss
        like_it = " ".join(f"`settings` net.{name}={as_text(settings[name])}" for name in sorted(others))
        raise InputError(f"{path}: {fault}: use another snapshot, or a network like its own: {like_it}")
    net.load_state_dict(weights)


def fault_in(tensors: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str | None:
    """What is wrong with `tensors`, which should have the names, shapes and types of `expected` and be finite."""
    for name in tensors.keys() - expected.keys():
        return f"it has {name}, which does not belong there"
    for name, like in expected.items():
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor) or (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            return f"{name} is missing or not {like.dtype} {list(like.shape)}"
        if not tensor.isfinite().all():
            return f"{name} holds numbers that are not finite"
    return None


# Saving and restoring


def state_path(run_dir: Path, cur_nimg: int) -> Path:
    """The file of the training state after `cur_nimg` images: one of its own, so that none replaces another."""
    return run_dir / f"training-state-{cur_nimg:09d}.pt"


def save_training_state(run_dir: Path, config: TrainConfig, state: TrainState, writer: BackgroundWriter) -> None:
    """Have the training state written, complete in itself: weights, EMA, optimizer, counters, config, data's facts.

    Raises FloatingPointError, as `TrainState.skipped_counts` does, rather than save a state that has gone wrong.
    """
    skipped, skipped_in_a_row = state.skipped_counts()
    content = {
        "format": TRAINING_STATE,
        "version": VERSION,
        "config": dataclasses.asdict(config),
        "data": state.data,
        "cur_nimg": state.cur_nimg,
        "skipped": skipped,
        "skipped_in_a_row": skipped_in_a_row,
        "scale": float(state.scale),
        "scale_updates": int(state.scale_updates),
        "net": state.net.state_dict(),
        "ema": state.ema.net.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    writer.submit(files.save_atomic, content, state_path(run_dir, state.cur_nimg))


def save_network_snapshot(run_dir: Path, state: TrainState, writer: BackgroundWriter) -> None:
    """Have the EMA network written as `network-snapshot-KKKKKK.pkl`."""
    net, nimg = state.ema.net, state.cur_nimg
    save = functools.partial(save_snapshot, cur_nimg=nimg)
    writer.submit(save, run_dir / f"network-snapshot-{nimg // 1000:06d}.pkl", net.config, net.state_dict())


def load_training_state(path: Path) -> dict[str, Any]:
    """The content of a training state; its tensors are checked by `restore`.

    Raises InputError where the file cannot be read, is no training state, or its config or counters are damaged.
    """
    content = files.load(path)
    files.check_format(content, path, TRAINING_STATE, VERSION, "give a training-state-*.pt that train.py wrote")
    counters = [content.get(name) for name in ("cur_nimg", "scale_updates", "skipped", "skipped_in_a_row")]
    scale = content.get("scale")
    if not all(type(count) is int and count >= 0 for count in counters):
        raise _damaged(path, "its counters are not whole numbers from 0 up")
    if type(scale) is not float or not 0 < scale < float("inf"):
        raise _damaged(path, "its loss scale is not a finite number above 0")
    if content["cur_nimg"] % saved_config(content, path).batch_size:
        raise _damaged(path, "its images are not a multiple of its batch size")
    return content


def saved_config(content: dict[str, Any], path: Path) -> TrainConfig:
    """The config that the training state from `path` was saved with. Raises InputError where there is none."""
    try:
        net = dataclasses.asdict(config_of_snapshot(content["config"]["net"]))
        return from_dict(TrainConfig, {**content["config"], "net": net})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its config cannot be used ({error})") from None


def restore(state: TrainState, content: dict[str, Any], path: Path) -> None:
    """Put the training state from `path` into `state`, strictly.

    Raises InputError, before anything changes, where it is of other data or another network, or damaged.
    """
    check_data(content, state.data, path)
    parts = {"net": state.net.state_dict(), "ema": state.ema.net.state_dict()}
    learning = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    if content["cur_nimg"] > 0:
        step = torch.zeros(())
        moments = {n: {"step": step, "exp_avg": p, "exp_avg_sq": p} for n, p in enumerate(learning)}
    saved = flat({part: content.get(part) for part in (*parts, "optimizer")})
    saved.pop("optimizer.param_groups", None)  # settings, which are the config's
    fault = fault_in(saved, flat({**parts, "optimizer": {"state": moments}}))
    if fault is not None:
        raise _damaged(path, fault)
    state.net.load_state_dict(content["net"])
    state.ema.net.load_state_dict(content["ema"])
    settings = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": content["optimizer"]["state"], "param_groups": settings})
    # A fused optimizer needs moments in the memory format of the weights, which differs between CPUs and GPUs.
    for parameter, of_parameter in state.optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            of_parameter[name] = torch.empty_like(parameter).copy_(of_parameter[name])
    state.cur_nimg = content["cur_nimg"]
    for name in ("skipped", "skipped_in_a_row", "scale", "scale_updates"):
        getattr(state, name).fill_(content[name])


def check_data(content: dict[str, Any], facts: dict[str, Any], path: Path) -> None:
    """Raise InputError where the training state from `path` is of other data than these `facts`."""
    saved = content.get("data")
    if not isinstance(saved, dict):
        raise _damaged(path, "it does not say what data it was trained on")
    if saved != facts:
        raise InputError(
            f"{path}: `resume` with other data would be a different run ({', '.join(differences(saved, facts))}): "
            "bring the data back, or start a new run with `transfer`"
        )


def _damaged(path: Path, fault: str) -> InputError:
    return InputError(
        f"{path}: {fault}: resume another state of the run, or start a new run with `transfer` from a snapshot"
    )
