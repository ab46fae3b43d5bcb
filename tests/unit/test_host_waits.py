"""A training step queues work and goes on: between records nothing in it would wait for a GPU."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from tests.host_waits import host_waits
from tests.small_model import some_batch
from tests.small_training import BATCH, CPU, small_run
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.reporting import Reporter
from training.signals import StopRequest
from training.state import create_state
from training.training_loop import accumulate_gradients, update_weights


@pytest.fixture
def steps(tmp_path, monkeypatch) -> Iterator[dict[str, Callable[[], object]]]:
    """All that the loop does in a step, by name and in order; no record is due."""
    config = small_run("nowhere", 100, log_kimg=1000.0, kimg_per_tick=1000.0)
    state = create_state(config, config.net.scene, CPU)
    loss_fn = GeNVSLoss(config.loss, sigma_data=0.5, seed=0)
    batches = itertools.repeat(some_batch(BATCH // 2))
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    stop = StopRequest(CPU)
    monitor = Monitor(tmp_path, CPU, rank=0, tensorboard=False, cur_nimg=0, total=config.total_nimg)
    reporter = Reporter(config, tmp_path, SimpleNamespace(held_out_scenes=[]), state, monitor, CPU)
    reporter.first_status = []

    def count() -> None:
        state.cur_nimg += BATCH

    with contextlib.closing(monitor), contextlib.closing(reporter):
        yield {
            "stop": stop.agreed,
            "gradients": lambda: accumulate_gradients(state.net, loss_fn, batches, config, monitor),
            "update": lambda: update_weights(state, config, monitor),
            "ema": lambda: state.ema.update(state.net, batch_size=BATCH, cur_nimg=state.cur_nimg),
            "count": count,
            "report": reporter.step,
            "record": lambda: monitor.record(state.cur_nimg, **{"Gradient/skipped": state.skipped_counts()[0]}),
        }


def test_what_would_wait_is_found():
    values = torch.arange(4.0)
    for wait in (
        lambda: values.sum().item(),
        lambda: bool(values.isnan().any()),
        lambda: values.tolist(),
        lambda: values[values > 1],
        lambda: values.nonzero(),
        lambda: torch.tensor([1.0, 2.0], device=CPU),
        lambda: torch.as_tensor(3, device=CPU),
        lambda: values.new_tensor([1.0]),
    ):
        with host_waits() as found:
            wait()
        assert len(found) >= 1 and found[0].startswith("tests/unit/test_host_waits.py:"), found
    with host_waits() as found:
        torch.where(values > 1, values, 0.0).cumsum(0).clamp(min=1)
        torch.as_tensor(values)
        torch.tensor(3.0)
    assert found == []


def test_a_step_between_records_waits_for_nothing(steps):
    for _ in range(2):  # the first makes the optimizer's moments
        for name in list(steps)[:-1]:
            with host_waits() as found:
                steps[name]()
            assert found == [], name
    with host_waits() as found:
        steps["record"]()
    assert found, "it is there that numbers are read"
