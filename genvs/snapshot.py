"""Snapshots: an EMA network for inference, as plain tensors and a config. Reading one executes nothing.

A snapshot is a file that training writes, or a folder for sharing (`genvs.export`).
`python -m genvs.snapshot IN.pkl OUT.pkl` writes a copy in half precision, and `python -m genvs.compat.convert` one in
full precision, of a snapshot of the unofficial implementation too.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from genvs import files
from genvs.config import UNOFFICIAL, GeNVSConfig, SceneConfig, config_of_snapshot
from genvs.errors import InputError, run_program
from genvs.models import GeNVS
from genvs.programs import Parser, whole
from genvs.settings import set_by_path

FORMAT, VERSION = "GeNVS snapshot", 2
TRAINING_STATE = "GeNVS training state"  # the format of train.py's training-state-*.pt
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"  # of a folder, as the Hugging Face Hub calls them


def save_snapshot(path: str | Path, config: GeNVSConfig, state: Mapping[str, Tensor], **notes) -> None:
    """Write a snapshot, whole or not at all. notes: plain values to keep with it, such as cur_nimg.

    Raises OSError, naming the path, if it cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state.items()}
    content = {"format": FORMAT, "version": VERSION, "config": dataclasses.asdict(config), "state": tensors}
    files.save_atomic({**content, "notes": notes}, path)


def load_snapshot(
    path: str | Path, device: str | torch.device = "cpu", *, near: float | None = None, far: float | None = None
) -> GeNVS:
    """A network for inference, in eval mode and float32, from `network-snapshot-*.pkl` or a folder of `genvs.export`.

    Its config is `net.config`. `net.notes` has the file's notes, such as `cur_nimg`, the number of target images that
    it was trained on, `started_from`, the name of the snapshot that it started from, `num_steps`, of a few-step
    network, and `unipc_steps`, with which to draw by default. A training state of `train.py` gives its EMA network.
    Files of the unofficial implementation (`genvs.compat`) are recognised, and give a network with its numerics.

    near, far: depth planes, world units, instead of those in the file (unofficial files have none: `SceneConfig`'s).
    Raises InputError, naming the file, if it is missing, damaged or none of these.
    """
    from genvs import compat  # imports GeNVS and reads one byte

    content: Any = None
    if Path(path).is_dir():
        content = _read_folder(Path(path))
    elif not compat.is_pickle(path):
        content = files.load(path)
    unofficial = content is None or compat.is_training_state(content)
    net = compat.load_network(path, content) if unofficial else _network_in(content, path)
    planes: dict[str, Any] = {name: depth for name, depth in (("near", near), ("far", far)) if depth is not None}
    if planes:
        scene = dataclasses.replace(net.config.scene, **planes, own_depths=False)
        net.config = dataclasses.replace(net.config, scene=scene)
    return net.eval().requires_grad_(False).to_device(device)


def _network_in(content: Any, path: str | Path) -> GeNVS:
    """The network of a snapshot, or the EMA network of a training state. Raises InputError as `load_snapshot`."""
    is_state = isinstance(content, dict) and content.get("format") == TRAINING_STATE
    if not is_state:
        files.check_format(content, path, FORMAT, VERSION, "give a network-snapshot-*.pkl, or genvs.export's folder")
    try:
        if is_state:
            scene = {f"scene.{name}": content["data"][name] for name in SceneConfig.__dataclass_fields__}
            config = config_of_snapshot(content["config"]["net"])
            resolution = content.get("resolution", config.resolution)  # a run may begin at half its own
            config = set_by_path(config, {**scene, "resolution": resolution})
            weights, notes = content["ema"], {"cur_nimg": content["cur_nimg"]}
            if few := content["config"].get("distill_steps"):
                notes["num_steps"] = few
            if start := content["config"].get("transfer"):
                notes["started_from"] = Path(start).name
        else:
            config, weights, notes = config_of_snapshot(content["config"]), content["state"], dict(content["notes"])
        net = build_net(config)
        net.load_state_dict(weights)
    except (InputError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).rpartition("\n")[2].strip()  # torch lists missing weights below a heading
        raise InputError(f"{path}: is damaged ({reason:.200}): use another copy, or another file of the run") from None
    net.notes = notes
    return net


def _read_folder(folder: Path) -> dict[str, Any]:
    """What the file would hold whose network `genvs.export` wrote to `folder`. Raises InputError as `load_snapshot`."""
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    newest = max(folder.glob("network-snapshot-*.pkl"), default=None)
    remedy = f"give {newest or 'a snapshot, or a folder that genvs.export wrote'}"
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise InputError(f"{config} cannot be read ({reason}): {remedy}") from None
    files.check_format(content, config, FORMAT, VERSION, remedy)
    try:
        return {**content, "state": load_file(weights)}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{weights} is missing or damaged ({error}): use another copy") from None


def snapshot_sha256(path: Path) -> str:
    """A hash of the bytes that `load_snapshot` reads of a file or folder, by which a snapshot is recognised."""
    parts = [path / CONFIG_FILE, path / WEIGHTS_FILE] if path.is_dir() else [path]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def in_half_precision(net: GeNVS) -> dict[str, Tensor]:
    """The state dict of `net` with parameters in float16.

    Numbers below 6e-8 become a multiple of that, or 0, which is no larger an error than in other numbers. Buffers are
    few and stay in float32: NCSN++ computes phases from its frequencies, which would magnify their errors.
    """
    return net.state_dict() | {name: parameter.half() for name, parameter in net.named_parameters()}


def build_net(config: GeNVSConfig) -> GeNVS:
    """A new network, with the numerics that `config` asks for."""
    if config.numerics == UNOFFICIAL:
        from genvs.compat import UnofficialGeNVS

        return UnofficialGeNVS(config)
    return GeNVS(config)


def main(arguments: Sequence[str] | None = None, *, halve: bool = True) -> None:
    """Write a copy of a snapshot, in half precision if `halve`."""
    name, precision = ("snapshot", "half precision, half its size") if halve else ("compat.convert", "full precision")
    parser = Parser(
        f"python -m genvs.{name}",
        f"Write the network in IN to the snapshot OUT, in {precision}. IN is a snapshot or training state, "
        "of the unofficial implementation too: its network keeps its numerics. Everything that reads IN reads OUT.",
    )
    network, defaults = map(parser.add_argument_group, ("network", "defaults in OUT"))
    network.add_argument("source", metavar="IN", type=Path, help="the file to read")
    network.add_argument("target", metavar="OUT", type=Path, help="the file to write, such as small.pkl")
    for plane in ("near", "far"):
        defaults.add_argument(
            f"--{plane}", type=float, metavar="DEPTH", help=f"{plane} plane, world units (default: that of IN)"
        )
    defaults.add_argument(
        "--steps", type=whole(1), metavar="N", help="steps of UniPC to draw with (default: that of IN)"
    )
    options = parser.parse_args(arguments)
    source, target = options.source, options.target
    if target.exists():
        raise InputError(f"{target} exists and is not overwritten: name another file")
    net = load_snapshot(source, near=options.near, far=options.far)
    state = in_half_precision(net) if halve else net.state_dict()
    notes = {**net.notes, "halved_from" if halve else "converted_from": source.name}
    notes |= {"unipc_steps": options.steps} if options.steps else {}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{source}: {name} has numbers that float16 cannot hold: use it as it is, or another one")
    save_snapshot(target, net.config, state, **notes)
    print(f"Wrote {target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_program(main)
