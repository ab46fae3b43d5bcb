"""Run folders, training states and snapshots on disk. Every file appears whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dnnlib.util import Logger
from genvs import load_snapshot, save_snapshot
from genvs.config import GeNVSConfig, from_dict
from genvs.errors import InputError
from genvs.models import GeNVS
from torch_utils import persistence
from torch_utils.persistence import BackgroundWriter
from training.config import TrainConfig, differences
from training.ema import EMA

FORMAT, VERSION = "GeNVS training state", 4
OPTIONS_FILE = "training_options.json"
MAX_SKIPPED_IN_A_ROW = 50
FIRST_SCALE, SCALE_GROWTH_UPDATES = 2.0**16, 2000


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


def check_outdir(outdir: str, *, nosubdir: bool) -> None:
    """Raise InputError where no run folder can be made in `outdir`; with nosubdir, where it cannot be one, or is."""
    if nosubdir and Path(outdir, OPTIONS_FILE).exists():
        raise InputError(f"{outdir}: already holds a run: continue it with --resume {outdir}, or choose another")
    root = Path(outdir).absolute()
    there = next(path for path in [root, *root.parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "cannot be written" if there.is_dir() else "is no folder"
        raise InputError(f"{there}: {reason}: choose a writable --outdir")


def new_run_folder(outdir: str, description: str, *, nosubdir: bool) -> Path:
    """Make `outdir/00000-description`, numbered after the runs that are there; with nosubdir, `outdir` itself.

    Raises InputError where the folder cannot be made, or (with nosubdir) already holds a run.
    """
    root = Path(outdir)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if nosubdir:
            check_outdir(outdir, nosubdir=True)  # a run may have begun there meanwhile
            return root
        numbers = [int(name[:5]) for name in (path.name for path in root.iterdir()) if re.match(r"\d{5}-", name)]
        run_dir = root / f"{max(numbers, default=-1) + 1:05d}-{description}"
        run_dir.mkdir()
    except OSError as error:
        raise InputError(f"{error.filename or root}: {error.strerror}: choose a writable --outdir") from None
    return run_dir


@contextlib.contextmanager
def recorded(run_dir: Path, config: TrainConfig) -> Iterator[None]:
    """Inside, `run_dir` holds the run's options, and keeps what is printed in `log.txt`.

    Raises InputError where another process trains in it already, as far as files can be locked there.
    """
    with open(run_dir / ".lock", "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, however this process ends
        except BlockingIOError:
            raise InputError(f"{run_dir}: another process trains there: wait for it, or resume another run") from None
        except OSError:
            pass
        write_options(run_dir, config)
        with Logger(run_dir / "log.txt"):
            yield


def write_options(run_dir: Path, config: TrainConfig) -> None:
    """`training_options.json`: the whole config, for people. What killed runs have left, goes."""
    persistence.remove_orphans(run_dir)
    persistence.write_atomic(json.dumps(dataclasses.asdict(config), indent=2) + "\n", run_dir / OPTIONS_FILE)


def save_training_state(run_dir: Path, config: TrainConfig, state: TrainState, files: BackgroundWriter) -> None:
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
    files.submit(persistence.save_atomic, content, run_dir / f"training-state-{state.cur_nimg // 1000:06d}.pt")


def save_network_snapshot(run_dir: Path, state: TrainState, files: BackgroundWriter) -> None:
    """Have the EMA network written as `network-snapshot-KKKKKK.pkl`."""
    net, nimg = state.ema.net, state.cur_nimg
    save = functools.partial(save_snapshot, cur_nimg=nimg)
    files.submit(save, run_dir / f"network-snapshot-{nimg // 1000:06d}.pkl", net.config, net.state_dict())


def net_to_start_from(transfer: str, net: GeNVSConfig) -> GeNVSConfig:
    """The network's config in a new run with --transfer: `net`, or the snapshot's own where its numerics are others.

    Raises InputError for a snapshot that cannot be used, or was trained for another preconditioning.
    """
    source = load_snapshot(transfer).config
    ours, theirs = net.denoiser.precond, source.denoiser.precond
    if ours != theirs:
        raise InputError(f"{transfer}: was trained with --precond {theirs}, not {ours}: give --precond {theirs} too")
    return net if source.numerics == net.numerics else source


def find_resume_state(resume: str, outdir: str) -> tuple[Path, dict]:
    """The newest valid training state, and the file that it came from.

    resume: a state file, a run folder, or "newest" for the newest run below `outdir` that has a state. Damaged files
    are named and passed over. Raises InputError where none is left.
    """
    if resume == "newest":
        runs = sorted(Path(outdir).glob("[0-9][0-9][0-9][0-9][0-9]-*"), reverse=True)
        runs = [run for run in [*runs, Path(outdir)] if any(run.glob("training-state-*.pt"))]
        if not runs:
            raise InputError(f"{outdir}: no run with a training-state-*.pt to resume: start one without --resume")
        path = runs[0]
    else:
        path = Path(resume)
    if path.is_file():
        return path, _load_state(path)
    states = sorted(path.glob("training-state-*.pt"), reverse=True)
    for candidate in states:
        try:
            return candidate, _load_state(candidate)
        except InputError as error:
            print(f"Passing over {error}")
    there = "no valid training-state-*.pt in it" if path.is_dir() else "no such file or folder"
    raise InputError(f"{path}: {there}: name a run folder or a state file of a run")


def _load_state(path: Path) -> dict:
    try:
        return persistence.load_format(path, FORMAT, VERSION, "give a training-state-*.pt that train.py wrote")
    except persistence.LoadError as error:
        raise InputError(str(error)) from None


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


def records_before(path: Path, cur_nimg: int) -> Iterator[str]:
    """The lines of a `stats.jsonl` that a run resumed at `cur_nimg` keeps; a line cut short by a kill is dropped."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            keep = json.loads(line)["nimg"] <= cur_nimg
        except (ValueError, KeyError):
            keep = False
        if keep:
            yield line
