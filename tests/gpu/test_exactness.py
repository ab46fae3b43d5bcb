"""How exactly a run repeats on a GPU: the same samples and noise bit by bit, losses up to the order of sums."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genvs import files
from tests.small_training import BATCH, opened, save_state, small_run
from tests.unit.srn_folder import write_split
from training.config import TrainConfig
from training.data import BatchSchedule, load_batches
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.parallel import training_net, training_precision
from training.state import create_state, restore
from training.training_loop import update_weights

pytestmark = pytest.mark.gpu

UPDATES, RESUMED_AT = 40, 20
# Relative, of single samples' losses. Measured on an H200 over 40 updates of this small network: see the test's output.
TOLERANCE = 0.05


class Watched(nn.Module):
    """A network that keeps what it is called with."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls: list[dict] = []

    def forward(self, **given):
        self.calls.append(copy.deepcopy(given))
        return self.net(**given)


@dataclasses.dataclass
class Outcome:
    """Of each update: what the network was called with, and the losses. weights: at the end, in one tensor."""

    calls: list[dict]
    losses: list[Tensor]
    weights: Tensor


def trained(config: TrainConfig, run_dir: Path, start: int, stop: int) -> Outcome:
    """Updates `start` to `stop`, from the training state in `run_dir` unless `start` is 0; leaves a state there."""
    device, data = torch.device("cuda", torch.cuda.current_device()), opened(config)
    state = create_state(config, data.scene, device)
    state.data = data.facts()
    if start > 0:
        restore(state, files.load(max(run_dir.glob("training-state-*.pt"))))
        assert state.cur_nimg == start * BATCH
    net = Watched(training_net(state.net, config, device))
    loss_fn = GeNVSLoss(config.loss, sigma_data=0.5, seed=config.seed)
    schedule = BatchSchedule(config, len(data.train_scenes), rank=0, world_size=1, cur_nimg=state.cur_nimg)
    monitor = Monitor(run_dir, device, rank=1, tensorboard=False, cur_nimg=0, total=1)
    losses = []
    for _, batch in zip(range(start, stop), load_batches(data, schedule, 0, device), strict=False):
        with training_precision(config, device):
            terms = loss_fn(net, batch)
        terms.total.backward()
        update_weights(state, config, monitor)
        state.cur_nimg += BATCH
        losses.append(terms.loss.detach())
    save_state(run_dir, config, state)
    return Outcome(net.calls, losses, torch.cat([p.detach().flatten() for p in state.net.parameters()]))


def equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return a is b or all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


@pytest.mark.parametrize("bf16", [True, False])
def test_a_repeated_or_resumed_run_sees_the_same_samples_and_noise(tmp_path, bf16):
    data = write_split(tmp_path / "cars_train", num_scenes=8)
    config = small_run(data, UPDATES, bf16=bf16)
    runs = [tmp_path / name for name in ("once", "again", "resumed")]
    for run in runs:
        run.mkdir()
    once, again = (trained(config, run, 0, UPDATES) for run in runs[:2])
    first, rest = trained(config, runs[2], 0, RESUMED_AT), trained(config, runs[2], RESUMED_AT, UPDATES)
    resumed = Outcome(first.calls + rest.calls, first.losses + rest.losses, rest.weights)
    for other in (again, resumed):
        for number, (call, same) in enumerate(zip(once.calls, other.calls, strict=True)):
            unequal = [name for name in call if not equal(call[name], same[name])]
            assert not unequal, f"update {number}: {unequal}"
        pairs = zip(once.losses, other.losses, strict=True)
        worst = max(float(((a - b).abs() / b.abs().clamp_min(1e-3)).max()) for a, b in pairs)
        apart = float((once.weights - other.weights).norm() / once.weights.norm())
        print(f"losses differ by {worst:.2g} at most, weights by {apart:.2g} (relative)")
        assert worst < TOLERANCE and apart < TOLERANCE
