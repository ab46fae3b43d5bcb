"""A training step does not wait for the GPU: torch itself raises an error at calls that do."""

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Iterator

import pytest
import torch

from genvs.data.types import ViewBatch
from tests.host_waits import loop_steps
from tests.small_model import some_batch
from tests.small_training import BATCH
from torch_utils.distributed import AnyRank

pytestmark = pytest.mark.gpu


@contextlib.contextmanager
def no_syncs() -> Iterator[None]:
    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it does not find all waiting yet
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def pinned_batch(num_inputs: int) -> ViewBatch:
    """A batch from a loader with pinned memory: uint8 images on the host."""
    batch = some_batch(BATCH // 2, num_inputs=num_inputs)

    def as_bytes(views):
        return dataclasses.replace(views, images=((views.images + 1) * 127.5).to(torch.uint8))

    return dataclasses.replace(batch, inputs=as_bytes(batch.inputs), targets=as_bytes(batch.targets)).pin_memory()


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("rounds", [1, 2])
def test_steps_between_records_wait_for_nothing(tmp_path, bf16, rounds):
    device = torch.device("cuda", torch.cuda.current_device())
    on_host = itertools.cycle([pinned_batch(1), pinned_batch(3)])
    batches = (batch.to(device, non_blocking=True) for batch in on_host)
    with loop_steps(tmp_path, device, batches, bf16=bf16, batch_gpu=BATCH // rounds) as steps:
        record = steps.pop("record")
        for _ in range(4):  # kernels are compiled and chosen, moments created
            for step in steps.values():
                step()
        with no_syncs():
            for _ in range(4):
                for step in steps.values():
                    step()
        numbers = record()
    assert numbers["Gradient/norm"] > 0 and numbers["Loss/all"] > 0 and numbers["Gradient/skipped"] == 0


def test_ranks_ask_each_other_without_waiting():
    """With one rank. Several ask through NCCL, which does not wait either."""
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
