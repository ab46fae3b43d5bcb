"""Snapshots: an EMA network for inference, as plain tensors and a config. Reading one executes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genvs.config import UNOFFICIAL, GeNVSConfig, from_dict
from genvs.errors import InputError
from genvs.models import GeNVS
from torch_utils import persistence

FORMAT, VERSION = "GeNVS snapshot", 2


def save_snapshot(path: str | Path, config: GeNVSConfig, state: Mapping[str, Tensor], **notes) -> None:
    """Write a snapshot, whole or not at all. notes: plain values worth keeping (cur_nimg, for example).

    Raises OSError, naming the path, where it cannot be written.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in state.items()}
    content = {"format": FORMAT, "version": VERSION, "config": dataclasses.asdict(config), "state": tensors}
    persistence.save_atomic({**content, "notes": notes}, path)


def load_snapshot(path: str | Path, device: str | torch.device = "cpu") -> GeNVS:
    """A ready model, in eval mode, from `network-snapshot-*.pkl`; its config is `net.config`.

    Files of the other implementation that `genvs.compat` knows are recognised, and become a model of its numerics.
    Raises InputError, naming the file, where it is missing, damaged or neither.
    """
    from genvs import compat  # rarely more than a look at the file's first byte

    if compat.is_pickle(path):
        return _ready(compat.load_snapshot(path), device)
    try:
        content = persistence.load(path)
        if compat.is_training_state(content):
            return _ready(compat.load_training_state(path, content), device)
        persistence.check_format(content, path, FORMAT, VERSION, "give a network-snapshot-*.pkl that train.py wrote")
    except persistence.LoadError as error:
        raise InputError(str(error)) from None
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
    return net.eval().requires_grad_(False).place_on(device)
