"""The training state: created, transferred from a snapshot, saved and restored."""

import copy
import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from genvs import files, load_snapshot, save_snapshot
from genvs.config import GeNVSConfig, SceneConfig, config_of_snapshot
from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.models.backbone import Backbone, load_imagenet_weights
from genvs.models.colours import colours_of
from genvs.models.encoder import FeatureVolumeEncoder
from genvs.settings import as_text, flat, from_dict
from genvs.snapshot import TRAINING_STATE, build_net
from torch_utils.background_writer import BackgroundWriter
from training.adam import Adam
from training.config import TrainConfig, differences
from training.muon import OPTIMIZERS

VERSION = 4
COUNTERS: dict[str, Any] = {"cur_nimg": 0, "skipped": 0, "skipped_in_a_row": 0, "scale": 1.0, "scale_updates": 0}
MAX_SKIPPED_IN_A_ROW = 50
FIRST_SCALE = 2.0**16
IMAGENET_URL = "https://download.pytorch.org/models/resnet34-b627a593.pth"
VIEW_WEIGHTS = "renderer.view_weights."
Weights = dict[str, Tensor]
# Layers that change nothing while they are 0.
OPTIONAL_LAYERS = re.compile(r"denoisers\.\w+\.unet\.embed_(augment|class)\..*")


@dataclass
class TrainState:
    """Everything that training changes, and the facts of the data that it trains on (`RunData.facts`).

    ema: the exponential moving average of the weights, which snapshots hold. teacher: the network that a few-step one
    learns from, which never changes. critic, critics_optimizer: of distribution matching (`training.distillation`). All
    three are None in ordinary training. cur_nimg: target images seen, over all ranks. The
    others are tensors `[]` on the network's device. scale: float32, the factor on the loss that lets small gradients
    survive fp16; 1 without fp16. scale_updates: int32, updates since it changed. skipped, skipped_in_a_row: int64,
    updates skipped because a gradient was not finite.
    """

    net: GeNVS
    ema: GeNVS
    optimizer: Adam
    teacher: GeNVS | None = None
    critic: GeNVS | None = None
    critics_optimizer: Adam | None = None
    cur_nimg: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    fp16: InitVar[bool] = False
    scale: Tensor = field(init=False)
    scale_updates: Tensor = field(init=False)
    skipped: Tensor = field(init=False)
    skipped_in_a_row: Tensor = field(init=False)

    def __post_init__(self, fp16: bool) -> None:
        device = next(self.net.parameters()).device
        self.scale = torch.tensor(FIRST_SCALE if fp16 else 1.0, device=device)
        self.scale_updates = torch.zeros((), dtype=torch.int32, device=device)
        self.skipped, self.skipped_in_a_row = torch.zeros(2, dtype=torch.int64, device=device)

    @property
    def parts(self) -> dict[str, Any]:
        """What the tensors in a training state belong to, by name; each has a `state_dict`."""
        others = {
            "teacher": self.teacher and self.teacher.denoisers,
            "critic": self.critic and self.critic.denoisers,
            "critics_optimizer": self.critics_optimizer,
        }
        present = {name: part for name, part in others.items() if part}
        return {"net": self.net, "ema": self.ema, "optimizer": self.optimizer, **present}

    def count_update(self, skipped: Tensor) -> None:
        """Count one update. skipped: bool `[]`. Once at its limit, `skipped_in_a_row` never returns to 0."""
        self.skipped += skipped
        in_a_row = self.skipped_in_a_row
        self.skipped_in_a_row = (in_a_row + 1) * (skipped | (in_a_row >= MAX_SKIPPED_IN_A_ROW))

    def check(self) -> int:
        """The number of skipped updates. This waits for the device.

        Raises FloatingPointError after MAX_SKIPPED_IN_A_ROW skips in a row, and for weights that are not finite or too
        large to square.
        """
        norm = nn.utils.get_total_norm([*self.net.parameters(), *self.ema.parameters()])
        skipped, in_a_row, diverged = torch.stack([self.skipped, self.skipped_in_a_row, ~norm.isfinite()]).tolist()
        fault = "the weights have grown without bound" if diverged else None
        if in_a_row >= MAX_SKIPPED_IN_A_ROW:
            fault = f"gradients were not finite in {MAX_SKIPPED_IN_A_ROW} updates in a row"
        if fault is not None:
            remedy = "start a new run with a lower `lr`, or with `transfer` from an earlier snapshot's weights"
            raise FloatingPointError(f"{fault}, before {self.cur_nimg} images: {remedy}")
        return skipped


def create_state(config: TrainConfig, scene: SceneConfig, device: torch.device) -> TrainState:
    """A new network for the cameras of `scene`, its EMA, optimizer, teacher and critic, the same on every rank.

    Raises InputError for a snapshot or encoder weights that cannot be used.
    """
    torch.manual_seed(config.seed)
    net = build_net(dataclasses.replace(config.net, scene=scene))
    net.notes = {"num_steps": config.distill_steps} if config.distill_steps else {}
    for encoder in net.encoders.values():
        initialize_encoder(cast(FeatureVolumeEncoder, encoder).backbone, config.encoder_weights)
    if config.transfer is not None:
        transfer(config.transfer, net)
    net.to_device(device)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    teacher = copy.deepcopy(ema) if config.distill_steps else None
    critic = None
    if config.matching_kimg:
        critic = copy.deepcopy(ema)
        critic.encoders, critic.renderer = net.encoders, net.renderer  # frozen; restored with the network's
    learns = net.denoisers if teacher else net.renderer.view_weights if config.only_train_cam_weighter else net
    learning = list(cast(nn.Module, learns).parameters())
    for parameter in set(net.parameters()) - set(learning):
        parameter.requires_grad_(False)
    make_optimizer = OPTIMIZERS[config.optimizer]
    critics_optimizer = make_optimizer(critic.denoisers.requires_grad_().parameters()) if critic else None
    return TrainState(net, ema, make_optimizer(learning), teacher, critic, critics_optimizer, fp16=config.fp16)


def initialize_encoder(backbone: Backbone, source: str) -> None:
    """Load torchvision's ImageNet weights into the encoder's backbone.

    source: "none" changes nothing; "imagenet" downloads torchvision's ResNet-34 once, to where torchvision looks for
    it; anything else is the path of such a file. Raises InputError if the file is missing, damaged or does not fit.
    """
    if source == "none":
        return
    path = Path(source)
    if source == "imagenet":
        path = Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_URL.rpartition("/")[2]
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(IMAGENET_URL, str(path), path.stem[-8:])
            except (OSError, RuntimeError) as error:  # a RuntimeError is a wrong checksum
                raise InputError(
                    f"`encoder_weights`=imagenet: cannot download {IMAGENET_URL} to {path} ({error}): "
                    "fetch it elsewhere and give its path, or train with `encoder_weights`=none"
                ) from None
    load_imagenet_weights(backbone, files.load(path))


# Starting from a snapshot


def transfer(path: str, net: GeNVS) -> None:
    """Load the weights of the snapshot at `path` into `net`.

    Encoders and denoisers of modalities that the snapshot lacks start as those of its first one, without the channels
    of volumes that show the picture itself; those of modalities that `net` lacks are left out. A view weighting that
    the snapshot lacks keeps its own weights. OPTIONAL_LAYERS start at 0 if the snapshot lacks them, and are left out if
    `net` does, so that at first the network computes the same. Raises InputError if the snapshot is damaged, or has
    another architecture or preconditioning.
    """
    source = load_snapshot(path)
    if "num_steps" in source.notes and "num_steps" in net.notes:
        raise InputError(f"{path}: is a few-step network already: give the network that it was made from")
    precond = source.config.denoiser.precond
    if precond != net.config.denoiser.precond:
        raise InputError(f"{path}: was trained with `precond`={precond}, not {net.config.denoiser.precond}: set it too")
    own = net.state_dict()
    weights = _for_modalities(own, source.state_dict(), source.config, net.config)
    weighting = {name: tensor for name, tensor in own.items() if name.startswith(VIEW_WEIGHTS)}
    if weighting.keys() != {name for name in weights if name.startswith(VIEW_WEIGHTS)}:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(VIEW_WEIGHTS)} | weighting
    for name in filter(OPTIONAL_LAYERS.fullmatch, own.keys() | weights.keys()):
        if name not in own:
            del weights[name]
        elif name not in weights:
            weights[name] = torch.zeros_like(own[name])
    fault = fault_in(weights, own)
    if fault is not None:
        others = unlike(net.config, source.config)
        settings = " ".join(f"`settings` net.{name}={as_text(value)}" for name, value in others)
        fix = f"leave out `preset` and what sets its sizes, or give {settings}" if others else "use another copy"
        raise InputError(f"{path}: is {'of another network' if others else 'damaged'} ({fault}): {fix}")
    net.load_state_dict(weights)


def unlike(config: GeNVSConfig, source: GeNVSConfig) -> list[tuple[str, Any]]:
    """The settings of `source` that keep its weights out of a network of this config, by path."""
    own, given = (flat(dataclasses.asdict(each)) for each in (config, source))
    given["encoder.aspp_rates"] = source.usable_aspp_rates(source.resolution)
    # `transfer` adds and leaves out modalities; labels follow from the loss; no weights depend on dropout.
    del given["modalities"], given["denoiser.augment_labels"], given["denoiser.dropout"]
    return sorted(item for item in given.items() if item[1] != own[item[0]] and not item[0].startswith("scene."))


def _for_modalities(own: Weights, given: Weights, source: GeNVSConfig, config: GeNVSConfig) -> Weights:
    """The weights `given` of a network `source` for the modalities of `config`."""
    parts, first = ("encoders", "denoisers"), source.modalities[0]
    left_out = tuple(f"{part}.{name}." for part in parts for name in source.modalities if name not in config.modalities)
    found = {key: tensor for key, tensor in given.items() if not key.startswith(left_out)}
    for name in (name for name in config.modalities if name not in source.modalities):
        for part in parts:
            old, new = f"{part}.{first}.", f"{part}.{name}."
            found |= {new + key.removeprefix(old): tensor for key, tensor in given.items() if key.startswith(old)}
        reserved, channels = colours_of(name, config).reserved, config.encoder.volume_channels
        for key in (f"encoders.{name}.to_volume.{kind}" for kind in ("weight", "bias")):
            if key in found and found[key].shape == own[key].shape:
                ours, theirs = (tensor.unflatten(0, (-1, channels)) for tensor in (own[key], found[key]))
                found[key] = torch.cat([ours[:, :reserved], theirs[:, reserved:]], dim=1).flatten(0, 1)
    return found


def fault_in(given: Mapping[str, Any], expected: Mapping[str, Any]) -> str | None:
    """What is wrong with `given`, which should have the names, shapes and types of `expected`, and finite numbers."""

    def kind(value: Any) -> str:
        return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__

    given, expected = flat(given), flat(expected)
    for name, like in expected.items():
        value = given.get(name)
        if kind(value) != kind(like):
            return f"{name} is missing or not {kind(like)}"
        if isinstance(value, Tensor) and not value.isfinite().all():
            return f"{name} holds numbers that are not finite"
    for name in given.keys() - expected.keys():
        return f"it has {name}, which does not belong there"
    return None


# Saving and restoring


def state_paths(run_dir: Path, cur_nimg: int) -> tuple[Path, Path]:
    """The name of the training state after `cur_nimg` images, and the one it has if another state took the first.

    Sorted by name, states are sorted by images.
    """
    kimg, rest = divmod(cur_nimg, 1000)
    return run_dir / f"training-state-{kimg:06d}.pt", run_dir / f"training-state-{kimg:06d}_{rest:03d}.pt"


def save_training_state(run_dir: Path, config: TrainConfig, state: TrainState, writer: BackgroundWriter) -> None:
    """Write the training state in the background: weights, EMA, optimizers, teacher, critic, counters, config and the
    data's facts. It replaces no other state.
    """
    content = {
        "format": TRAINING_STATE,
        "version": VERSION,
        "config": dataclasses.asdict(config),
        "data": state.data,
        "resolution": state.net.config.resolution,
        **{name: torch.as_tensor(getattr(state, name)).item() for name in COUNTERS},
        **{part: owner.state_dict() for part, owner in state.parts.items()},
    }
    writer.wait()  # for the state before, which may have the usual name
    usual, longer = state_paths(run_dir, state.cur_nimg)
    writer.submit(files.save_atomic, content, longer if usual.exists() else usual)


def save_network_snapshot(run_dir: Path, config: TrainConfig, state: TrainState, writer: BackgroundWriter) -> None:
    """Write the EMA network in the background, as `network-snapshot-KKKKKK.pkl`."""
    net, nimg = state.ema, state.cur_nimg
    notes = net.notes | ({"started_from": Path(config.transfer).name} if config.transfer else {})
    save = functools.partial(save_snapshot, **notes, cur_nimg=nimg)
    writer.submit(save, run_dir / f"network-snapshot-{nimg // 1000:06d}.pkl", net.config, net.state_dict())


def load_training_state(path: Path) -> dict[str, Any]:
    """The content of a training state, with its `config` as a TrainConfig. `restore` checks its tensors.

    Raises InputError if the file cannot be read, is not a training state, or has a damaged config or counters.
    """
    content = files.load(path)
    files.check_format(content, path, TRAINING_STATE, VERSION, "give a training-state-*.pt that train.py wrote")
    try:
        net = dataclasses.asdict(config_of_snapshot(content["config"]["net"]))
        loss = dict(content["config"]["loss"])
        loss.pop("opacity_weight", None)  # of older runs: 0, because `net` shows no geometry
        settings = {**content["config"], "net": net, "loss": loss}
        if settings.pop("tensorboard", True) is False:  # so it was before there were other loggers
            settings["logger"] = None
        config = from_dict(TrainConfig, settings)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"its config cannot be used ({error})") from None
    counters: dict[str, Any] = {name: content.get(name) for name in COUNTERS}
    fault = fault_in(counters, COUNTERS)
    if fault is not None or min(counters.values()) < 0 or not 0 < counters["scale"] < math.inf:
        raise _damaged(path, fault or f"its counters cannot be {counters}")
    if content["cur_nimg"] % config.batch_size:
        raise _damaged(path, "its number of images is not a multiple of its batch size")
    return {**content, "config": config}


def restore(state: TrainState, content: dict[str, Any], path: Path) -> None:
    """Put the training state from `path` into `state`, strictly.

    Raises InputError, before anything changes, if it belongs to other data or another network, or is damaged.
    """
    check_data(content, state.data, path)
    given = {part: content.get(part) for part in state.parts}
    if isinstance(given["optimizer"], dict):  # that of an older run has settings, too
        given["optimizer"] = {"state": given["optimizer"].get("state")}
    fault = fault_in(given, {part: owner.state_dict() for part, owner in state.parts.items()})
    if fault is not None:
        raise _damaged(path, fault)
    for part, owner in state.parts.items():
        owner.load_state_dict(content[part])
    state.cur_nimg = content["cur_nimg"]
    for name in COUNTERS.keys() - {"cur_nimg"}:
        getattr(state, name).fill_(content[name])


def check_data(content: dict[str, Any], facts: dict[str, Any], path: Path) -> None:
    """Raise InputError if the training state from `path` was trained on data with other `facts`."""
    saved = content.get("data")
    if saved != facts:
        changes = differences(saved if isinstance(saved, dict) else {}, facts)
        raise InputError(
            f"{path}: `resume` with other data would be a different run ({', '.join(changes)}): "
            "bring the data back, or start a new run with `transfer`"
        )


def _damaged(path: Path, fault: str) -> InputError:
    return InputError(f"{path}: {fault}: resume another state, or start a new run with `transfer` from a snapshot")
