"""Snapshots: an EMA network for inference, as plain tensors and a config. Reading one executes nothing.

`python -m genvs.snapshot IN.pkl OUT.pkl` writes a copy in half precision.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genvs import files
from genvs.config import UNOFFICIAL, GeNVSConfig, SceneConfig, config_of_snapshot
from genvs.errors import InputError, run_program
from genvs.models import GeNVS
from genvs.settings import from_dict

FORMAT, VERSION = "GeNVS snapshot", 2
TRAINING_STATE = "GeNVS training state"  # the format of train.py's training-state-*.pt


def save_snapshot(path: str | Path, config: GeNVSConfig, state: Mapping[str, Tensor], **notes) -> None:
    """Write a snapshot, whole or not at all. notes: plain values worth keeping, such as cur_nimg.

    Raises OSError, naming the path, if it cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state.items()}
    content = {"format": FORMAT, "version": VERSION, "config": dataclasses.asdict(config), "state": tensors}
    files.save_atomic({**content, "notes": notes}, path)


def save_new_snapshot(path: Path, config: GeNVSConfig, state: Mapping[str, Tensor], **notes) -> None:
    """As `save_snapshot`, but overwrites nothing. Raises InputError if `path` exists or cannot be written."""
    if path.exists():
        raise InputError(f"{path} exists and is not overwritten: name another file")
    try:
        save_snapshot(path, config, state, **notes)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another place") from None


def load_snapshot(
    path: str | Path, device: str | torch.device = "cpu", *, near: float | None = None, far: float | None = None
) -> GeNVS:
    """A network for inference, in eval mode and float32, from `network-snapshot-*.pkl`.

    Its config is `net.config`, and what the file notes besides is `net.notes`: `cur_nimg`, the target images that it
    was trained on, if the file says so. A training state of `train.py` gives its EMA network. Files of the unofficial
    implementation that `genvs.compat` knows are recognised, and become a network of its numerics.

    near, far: depth planes, world units, in place of those in the file (unofficial files have none: `SceneConfig`'s).
    Raises InputError, naming the file, if it is missing, damaged or none of these.
    """
    from genvs import compat  # rarely more than a look at the file's first byte

    content = None if compat.is_pickle(path) else files.load(path)
    unofficial = content is None or compat.is_training_state(content)
    net = compat.load_network(path, content) if unofficial else _network_in(content, path)
    planes: dict[str, Any] = {name: depth for name, depth in (("near", near), ("far", far)) if depth is not None}
    net.config = dataclasses.replace(net.config, scene=dataclasses.replace(net.config.scene, **planes))
    return net.eval().requires_grad_(False).to_device(device)


def _network_in(content: Any, path: str | Path) -> GeNVS:
    """The network of a snapshot, or the EMA network of a training state. Raises InputError as `load_snapshot`."""
    is_state = isinstance(content, dict) and content.get("format") == TRAINING_STATE
    if not is_state:
        files.check_format(content, path, FORMAT, VERSION, "give a network-snapshot-*.pkl that train.py wrote")
    try:
        if is_state:
            config = config_of_snapshot(content["config"]["net"])
            facts = {name: float(content["data"][name]) for name in SceneConfig.__dataclass_fields__}
            scene = from_dict(SceneConfig, {**facts, "num_classes": int(facts["num_classes"])})
            config, weights = dataclasses.replace(config, scene=scene), content["ema"]
            notes = {"cur_nimg": content["cur_nimg"]}
        else:
            config, weights = config_of_snapshot(content["config"]), content["state"]
            notes = content["notes"]
        net = build_net(config)
        net.load_state_dict(weights)
    except (InputError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: is damaged ({reason}): use another file of the run") from None
    net.notes = notes
    return net


def build_net(config: GeNVSConfig) -> GeNVS:
    """A new network, in the numerics that `config` asks for."""
    if config.numerics == UNOFFICIAL:
        from genvs.compat import UnofficialGeNVS

        return UnofficialGeNVS(config)
    return GeNVS(config)


def rewriting_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The options of a program that reads the snapshot `source` and writes another one to `target`."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("target", metavar="OUT", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = rewriting_parser(
        "genvs.snapshot",
        "Write the snapshot IN to OUT in half precision, half its size. It is read as float32 again; the network draws "
        "the same up to that rounding.",
    )
    source, target = vars(parser.parse_args(arguments)).values()
    net = load_snapshot(source)
    # Numbers below 6e-8 become a multiple of that, or 0: no larger an error than the others'. Buffers stay as they are:
    # they are few, and the phases that NCSN++ computes from its frequencies would magnify their errors.
    state = net.state_dict() | {name: parameter.half() for name, parameter in net.named_parameters()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{source}: {name} has numbers that float16 cannot hold: use it as it is, or another one")
    save_new_snapshot(target, net.config, state, **net.notes, halved_from=source.name)
    print(f"Wrote {target}: {target.stat().st_size / 1e6:.1f} MB, from {source.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_program(main)
