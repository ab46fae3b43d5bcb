"""The training state: created, transferred from a snapshot, saved and restored."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from genvs import files, load_snapshot, save_snapshot
from genvs.config import PRESETS, GeNVSConfig, SceneConfig, scaled_to
from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.settings import from_dict
from genvs.snapshot import build_net
from torch_utils.background_writer import BackgroundWriter
from training.config import TrainConfig, differences
from training.ema import EMA
from training.encoder_weights import initialize_encoder

FORMAT, VERSION = "GeNVS training state", 4
MAX_SKIPPED_IN_A_ROW = 50
FIRST_SCALE, SCALE_GROWTH_UPDATES = 2.0**16, 2000
LABEL_LAYERS = re.compile(r"denoiser\.unet\.embed_(augment|class)\..*")


@dataclass
class TrainState:
    """All that training changes; and of what data.

    data: their `RunData.facts`. cur_nimg: target images seen, over all ranks. scale: float32 `[]`, the factor on the
    loss with which small gradients survive fp16; 1 without it. scale_updates: int64 `[]`, updates since it changed.
    skipped, skipped_in_a_row: int64 `[]`, updates left out because a gradient was not finite; on the network's device,
    where that is decided.
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
        """Count one update, left out or not: bool `[]`. A row of MAX_SKIPPED_IN_A_ROW is kept until it is looked at."""
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

    def look_at_skipped(self) -> tuple[int, int]:
        """Both counts as numbers. It waits for the device.

        Raises FloatingPointError after MAX_SKIPPED_IN_A_ROW skips in a row.
        """
        skipped, in_a_row = torch.stack([self.skipped, self.skipped_in_a_row]).tolist()
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise FloatingPointError(
                f"gradients were not finite in {MAX_SKIPPED_IN_A_ROW} updates in a row, before {self.cur_nimg} images: "
                "start a new run with a lower --lr; --transfer SNAPSHOT goes on from an earlier snapshot's weights"
            )
        return skipped, in_a_row

    def check_weights(self) -> None:
        """Raise FloatingPointError where training has led the weights out of all bounds. It waits for the device."""
        if not nn.utils.get_total_norm([*self.net.parameters(), *self.ema.net.parameters()]).isfinite():
            raise FloatingPointError(
                f"the weights have grown without bound, before {self.cur_nimg} images, and are not saved: start a new "
                "run with a lower --lr; --transfer SNAPSHOT goes on from an earlier snapshot's weights"
            )


def create_state(config: TrainConfig, scene: SceneConfig, device: torch.device) -> TrainState:
    """Network (for the cameras of `scene`), EMA and optimizer at birth; the same on every rank.

    Raises InputError for a snapshot or encoder weights that cannot be used.
    """
    torch.manual_seed(config.seed)
    net = build_net(dataclasses.replace(config.net, scene=scene))
    initialize_encoder(net.encoder.backbone, config.encoder_weights)
    if config.transfer is not None:
        source = load_snapshot(config.transfer)
        ours, theirs = net.config.denoiser.precond, source.config.denoiser.precond
        if ours != theirs:
            raise InputError(f"{config.transfer}: was trained with `precond`={theirs}, not {ours}: give {theirs} too")
        try:
            net.load_state_dict(state_to_transfer(net, source))
        except RuntimeError:
            raise InputError(f"{config.transfer}: of another network: give {sizes_of(source.config)}") from None
    net.to_device(device)
    ema = EMA(net, config.ema_halflife_kimg, config.ema_rampup_ratio)
    if config.only_train_cam_weighter:
        net.requires_grad_(False)
        cast(nn.Module, net.renderer.view_weights).requires_grad_(True)
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    return TrainState(net, ema, optimizer, fp16=config.fp16)


def sizes_of(net: GeNVSConfig) -> str:
    """The options that make such a network, as far as there are any."""
    like = [name for name, config in PRESETS.items() if scaled_to(config, net.resolution).encoder == net.encoder]
    sizes = ",".join(map(str, net.denoiser.channel_mult))
    return (
        f"{f'--preset {like[0]}' if like else 'its preset,'} --resolution {net.resolution} --arch {net.denoiser.arch} "
        f"--cbase {net.denoiser.model_channels} --cres {sizes}"
    )


def state_to_transfer(net: GeNVS, source: GeNVS) -> dict[str, Tensor]:
    """The weights of `source` for `net`; those of a view weighting that it does not have are the own ones of `net`.

    Where only one of them is told classes or augmentations, that begins at 0, or is left out: nothing changes at first.
    """
    prefix = "renderer.view_weights."
    state = source.state_dict()
    of_weighting = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    own = {name: tensor for name, tensor in net.state_dict().items() if name.startswith(prefix)}
    ours = {name: tensor for name, tensor in net.state_dict().items() if LABEL_LAYERS.fullmatch(name)}
    told = {name: state.pop(name) for name in list(state) if LABEL_LAYERS.fullmatch(name)}
    labels = {name: told.get(name, torch.zeros_like(tensor)) for name, tensor in ours.items()}
    return {**state, **labels, **(of_weighting if of_weighting.keys() == own.keys() else own)}


def save_training_state(run_dir: Path, config: TrainConfig, state: TrainState, writer: BackgroundWriter) -> None:
    """Have `training-state-KKKKKK.pt` written, complete alone: weights, EMA, optimizer, counters, config, data's facts.

    Raises FloatingPointError, as `TrainState.look_at_skipped` does, rather than save what has gone wrong.
    """
    skipped, skipped_in_a_row = state.look_at_skipped()
    content = {
        "format": FORMAT,
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
    writer.submit(files.save_atomic, content, run_dir / f"training-state-{state.cur_nimg // 1000:06d}.pt")


def save_network_snapshot(run_dir: Path, state: TrainState, writer: BackgroundWriter) -> None:
    """Have the EMA network written as `network-snapshot-KKKKKK.pkl`."""
    net, nimg = state.ema.net, state.cur_nimg
    save = functools.partial(save_snapshot, cur_nimg=nimg)
    writer.submit(save, run_dir / f"network-snapshot-{nimg // 1000:06d}.pkl", net.config, net.state_dict())


def start_from(transfer: str, preset: TrainConfig) -> TrainConfig:
    """What a new run with --transfer starts from, before other options count: `preset`, or where the snapshot is of
    other numerics, its network with the preset's recipe. Raises InputError for a snapshot that cannot be used.
    """
    source = load_snapshot(transfer).config
    if source.numerics == preset.net.numerics:
        return preset
    # Its feature images have no colours, and its own training goes on from a snapshot without EMA ramp-up.
    loss = dataclasses.replace(preset.loss, rgb_weight=0.0)
    return dataclasses.replace(preset, net=source, loss=loss, ema_rampup_ratio=None)


def saved_config(content: dict, path: Path | None = None) -> TrainConfig:
    """The config that a training state was saved with. path: the state's, for messages. Raises InputError for none."""
    with _content_of(path):
        return from_dict(TrainConfig, content["config"])


def restore(state: TrainState, content: dict, path: Path | None = None) -> None:
    """Put a loaded training state into `state`, strictly. path: its file, for messages.

    Raises InputError where it is of other data, or does not hold what it should.
    """
    with _content_of(path):
        check_data(content, state.data, path)
        state.net.load_state_dict(content["net"])
        state.ema.net.load_state_dict(content["ema"])
        state.optimizer.load_state_dict(content["optimizer"])
        # On a CPU weights lie otherwise in memory than on a GPU, and a fused optimizer takes moments as they lie there.
        for parameter, moments in state.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = torch.empty_like(parameter).copy_(moments[name])
        state.cur_nimg = content["cur_nimg"]
        state.skipped.fill_(content["skipped"])
        state.skipped_in_a_row.fill_(content["skipped_in_a_row"])
        state.scale.fill_(content["scale"])
        state.scale_updates.fill_(content["scale_updates"])


def check_data(content: dict, facts: dict, path: Path | None) -> None:
    """Raise InputError, with the difference, where a loaded training state is of other data than these `facts` are."""
    with _content_of(path):
        old, new = dict(content["data"]), facts
    if old != new:
        raise InputError(
            f"--resume with other data would be a different run ({', '.join(differences(old, new))}): bring them back, "
            "or start a new run with --transfer"
        )


@contextlib.contextmanager
def _content_of(path: Path | None) -> Iterator[None]:
    """Inside, a training state of the file `path` that lacks something, or holds it otherwise, is an InputError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        raise InputError(
            f"{path}: does not hold what this version's training states do: resume another one, or start a new run; "
            "--transfer SNAPSHOT takes over weights"
        ) from None
