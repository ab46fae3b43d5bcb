"""Snapshots: an EMA network for inference, as plain tensors and a config. Reading one executes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genvs.config import GeNVSConfig, from_dict
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

    Raises InputError, naming the file, where it is missing, damaged or not a snapshot of ours.
    """
    try:
        content = persistence.load_format(path, FORMAT, VERSION, "give a network-snapshot-*.pkl that train.py wrote")
    except persistence.LoadError as error:
        raise InputError(str(error)) from None
    try:
        net = GeNVS(from_dict(GeNVSConfig, content["config"]))
        net.load_state_dict(content["state"])
    except (InputError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: damaged snapshot ({reason}): use another one of the run") from None
    return net.eval().requires_grad_(False).place_on(device)
