"""Snapshots: an EMA network for inference, as plain tensors and a config. Reading one executes nothing.

`python -m genvs.snapshot IN.pkl OUT.pkl` writes one again, in half precision.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genvs import files
from genvs.config import UNOFFICIAL, GeNVSConfig, from_dict
from genvs.errors import InputError, run_program
from genvs.models import GeNVS

FORMAT, VERSION = "GeNVS snapshot", 2


def save_snapshot(path: str | Path, config: GeNVSConfig, state: Mapping[str, Tensor], **notes) -> None:
    """Write a snapshot, whole or not at all. notes: plain values worth keeping (cur_nimg, for example).

    Raises OSError, naming the path, where it cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state.items()}
    content = {"format": FORMAT, "version": VERSION, "config": dataclasses.asdict(config), "state": tensors}
    files.save_atomic({**content, "notes": notes}, path)


def save_new_snapshot(path: Path, config: GeNVSConfig, state: Mapping[str, Tensor], **notes) -> None:
    """As `save_snapshot`, to a path that is free. Raises InputError where it is not, or cannot be written."""
    if path.exists():
        raise InputError(f"{path} exists and is not overwritten: name another file")
    try:
        save_snapshot(path, config, state, **notes)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another place") from None


def load_snapshot(path: str | Path, device: str | torch.device = "cpu") -> GeNVS:
    """A ready model, in eval mode and float32, from `network-snapshot-*.pkl`; its config is `net.config`.

    Files of the other implementation that `genvs.compat` knows are recognised, and become a model of its numerics.
    Raises InputError, naming the file, where it is missing, damaged or neither.
    """
    from genvs import compat  # rarely more than a look at the file's first byte

    if compat.is_pickle(path):
        return _ready(compat.load_snapshot(path), device)
    content = files.load(path)
    if compat.is_training_state(content):
        return _ready(compat.load_training_state(path, content), device)
    files.check_format(content, path, FORMAT, VERSION, "give a network-snapshot-*.pkl that train.py wrote")
    try:
        net = build_net(from_dict(GeNVSConfig, content["config"]))
        net.load_state_dict(content["state"])
    except (InputError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: damaged snapshot ({reason}): use another one of the run") from None
    return _ready(net, device)


def build_net(config: GeNVSConfig) -> GeNVS:
    """A new network, in the numerics that `config` asks for."""
    if config.numerics == UNOFFICIAL:
        from genvs.compat import UnofficialGeNVS

        return UnofficialGeNVS(config)
    return GeNVS(config)


def _ready(net: GeNVS, device: str | torch.device) -> GeNVS:
    return net.eval().requires_grad_(False).to_device(device)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m genvs.snapshot",
        description="Write the snapshot IN to OUT in half precision, half its size. It is read as float32 again; the "
        "network draws the same up to that rounding.",
    )
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("target", metavar="OUT", type=Path)
    source, target = vars(parser.parse_args()).values()
    net = load_snapshot(source)
    # Numbers of less than 6e-8 become a multiple of that, or 0: no more than others are off by. Not buffers: they are
    # few, and phases grow with NCSN++'s frequencies, and so would their error.
    state = net.state_dict() | {name: parameter.half() for name, parameter in net.named_parameters()}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise InputError(f"{source}: {name} has numbers that float16 cannot hold: use it as it is, or another one")
    save_new_snapshot(target, net.config, state, halved_from=source.name)
    print(f"Wrote {target}: {target.stat().st_size / 1e6:.1f} MB, from {source.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_program(main)
