"""A training step queues its work and goes on: torch itself raises an error at whatever waits for the GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from genvs.data.types import ViewBatch
from tests.small_model import some_batch
from tests.small_training import BATCH, small_run
from torch_utils.distributed import AnyRank
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.reporting import Reporter
from training.signals import StopRequest
from training.state import create_state
from training.training_loop import accumulate_gradients, update_weights

pytestmark = pytest.mark.gpu


@contextlib.contextmanager
def no_syncs() -> Iterator[None]:
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that not all waiting is found yet
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def signals() -> Iterator[None]:
    """A StopRequest's signal handlers are taken back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def pinned_batch(num_inputs: int) -> ViewBatch:
    """As a loader with pinned memory gives them: uint8 images on the host."""
    batch = some_batch(BATCH // 2, num_inputs=num_inputs)

    def as_bytes(views):
        return dataclasses.replace(views, images=((views.images + 1) * 127.5).to(torch.uint8))

    return dataclasses.replace(batch, inputs=as_bytes(batch.inputs), targets=as_bytes(batch.targets)).pin_memory()


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("rounds", [1, 2])
def test_steps_between_records_wait_for_nothing(tmp_path, signals, bf16, rounds):
    device = torch.device("cuda", torch.cuda.current_device())
    config = small_run("nowhere", 100, bf16=bf16, log_kimg=1000.0, kimg_per_tick=1000.0, batch_gpu=BATCH // rounds)
    state = create_state(config, config.net.scene, device)
    loss_fn = GeNVSLoss(config.loss, sigma_data=0.5, seed=0)
    on_host = [pinned_batch(1), pinned_batch(3)]

    def load_batches() -> Iterator[ViewBatch]:
        while True:
            for batch in on_host:
                yield batch.to(device, non_blocking=True)

    batches, stop = load_batches(), StopRequest(device)
    monitor = Monitor(tmp_path, device, rank=0, tensorboard=False, cur_nimg=0, total=config.total_nimg)
    reporter = Reporter(config, tmp_path, SimpleNamespace(held_out_scenes=[]), state, monitor, device)
    reporter.first_status = []

    def step() -> None:
        assert not stop.agreed()
        accumulate_gradients(state.net, loss_fn, batches, config, monitor)
        update_weights(state, config, monitor)
        state.ema.update(state.net, batch_size=BATCH, cur_nimg=state.cur_nimg)
        state.cur_nimg += BATCH
        reporter.step()

    with contextlib.closing(monitor), contextlib.closing(reporter):
        for _ in range(4):  # kernels are compiled and chosen, moments made
            step()
        with no_syncs():
            for _ in range(4):
                step()
        assert state.skipped_counts() == (0, 0)
        monitor.record(state.cur_nimg)
    assert monitor.numbers["Gradient/norm"] > 0 and monitor.numbers["Loss/all"] > 0


def test_ranks_ask_each_other_without_waiting():
    """One rank here; several ask through NCCL, which waits for nobody either."""
    any_rank = AnyRank(torch.device("cuda", torch.cuda.current_device()))
    any_rank(False)
    answers = []
    with no_syncs():
        for flag in (True, False, False):
            answers.append(any_rank(flag))
    assert answers == [False, True, False]


def test_a_sync_is_an_error_here():
    value = torch.ones((), device="cuda")
    with no_syncs(), pytest.raises(RuntimeError, match="synchronizing"):
        value.item()
