"""Short training runs of the small network, in this process."""

import contextlib
import dataclasses
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from genvs import files
from tests.small_model import small_config
from torch_utils import distributed
from torch_utils.background_writer import BackgroundWriter
from training.config import TRAIN_PRESETS, TrainConfig, resumed
from training.data import RunData, open_data
from training.monitor import Monitor
from training.reporting import Reporter
from training.run_folder import find_resume_state
from training.state import TrainState, create_state, restore, save_training_state
from training.training_loop import training_loop

BATCH = 4
CPU = torch.device("cpu")


def kimg(updates: int) -> float:
    return updates * BATCH / 1000


def small_run(data: Path | str, updates: int = 5, **changes) -> TrainConfig:
    """A recipe of `updates` updates with all randomness of training on."""
    return dataclasses.replace(
        TRAIN_PRESETS["cpu-demo"],
        **{
            "net": small_config(),
            "data": str(data),
            "duration_kimg": kimg(updates),
            "batch_size": BATCH,
            "num_targets": 2,
            "loss": dataclasses.replace(TRAIN_PRESETS["srn128"].loss, P_mean=0.0),
            "lr": 3e-3,
            "lr_rampup_kimg": kimg(4),
            "workers": 0,
            "kimg_per_tick": kimg(2),
            "log_kimg": kimg(1),
            "snapshot_ticks": 1000,
            "state_ticks": 1000,
            "logger": None,
            **changes,
        },
    )


def opened(config: TrainConfig, held_out: bool = False) -> RunData:
    """The run's data; without held-out scenes nothing is evaluated, which saves time."""
    data = open_data(config)
    return data if held_out else dataclasses.replace(data, held_out_scenes=range(0))


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """No file can grow over `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: dict | None = None,
    held_out: bool = False,
    device: torch.device = CPU,
) -> dict:
    """Run to the end in `run_dir`; returns the content of the last training state."""
    run_dir.mkdir(parents=True, exist_ok=True)
    state = fresh_state(config, device)
    if resume is not None:
        restore(state, resume, run_dir)
    training_loop(config, run_dir, opened(config, held_out), state, device)
    distributed.barrier()  # the first rank writes
    return last_state(run_dir)


def resume(run_dir: Path, **changes) -> dict:
    """Continue the run in `run_dir` as `--resume` does, with some options changed."""
    _, content = find_resume_state(str(run_dir), "")
    return train(resumed(content["config"], changes), run_dir, content)


def last_state(run_dir: Path) -> dict:
    return files.load(max(run_dir.glob("training-state-*.pt")))


def fresh_state(config: TrainConfig, device: torch.device = CPU) -> TrainState:
    data = open_data(config)
    state = create_state(config, data.scene, device)
    state.data = data.facts()
    return state


@contextlib.contextmanager
def reporter_of(config: TrainConfig, state: TrainState, run_dir: Path, held_out: bool = False) -> Iterator[Reporter]:
    """A run's reporter, closed afterwards."""
    monitor = Monitor(run_dir, CPU, rank=0, cur_nimg=0, total=config.total_nimg)
    with contextlib.closing(monitor):
        reporter = Reporter(config, state, monitor)
        reporter.evaluate_on(opened(config, held_out))
        with contextlib.closing(reporter.files):
            yield reporter


def save_state(run_dir: Path, config: TrainConfig, state: TrainState) -> None:
    """Write a training state, to the end."""
    with contextlib.closing(BackgroundWriter()) as writer:
        save_training_state(run_dir, config, state, writer)


def records(run_dir: Path) -> list[dict]:
    """Without a line that is being written."""
    whole, _, _ = (run_dir / "stats.jsonl").read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def tensors(content: dict) -> dict[str, Tensor]:
    """All tensors of a training state by name: weights, EMA and the optimizer's moments."""
    found = {f"{part}.{name}": tensor for part in ("net", "ema") for name, tensor in content[part].items()}
    for number, moments in content["optimizer"]["state"].items():
        found |= {f"optimizer.{number}.{name}": torch.as_tensor(tensor) for name, tensor in moments.items()}
    return found


def unequal(a: dict, b: dict) -> list[str]:
    """Names of the tensors of two training states that are not bitwise equal, and of counters that differ."""
    left, right = tensors(a), tensors(b)
    assert left.keys() == right.keys() and any(name.startswith("optimizer") for name in left)
    counters = [name for name in ("cur_nimg", "skipped", "skipped_in_a_row") if a[name] != b[name]]
    return counters + [name for name in left if not torch.equal(left[name], right[name])]


def distance(a: dict, b: dict, part: str = "net") -> float:
    """How far the weights of two training states are apart, relative to their size: the worst tensor's."""
    worst = 0.0
    for name, tensor in a[part].items():
        worst = max(worst, float((tensor - b[part][name]).norm() / tensor.norm().clamp_min(1e-3)))
    return worst
