"""Gradients of several ranks."""

import pytest
import torch

from genvs.config import GeNVSConfig
from tests.ranks import on_ranks
from tests.small_model import part_of, small_net, some_batch
from tests.small_training import small_run
from torch_utils import distributed
from training.loss import GeNVSLoss
from training.parallel import sum_over_ranks

ROUNDS = 2


def check_gradients(rank: int, device: torch.device, compression: str, tolerance: float) -> None:
    """The sum over two ranks, of two rounds each, is the gradient of the whole batch in one process."""
    config = small_run("nowhere", batch_size=8, batch_gpu=2, grad_compression=compression)
    loss_fn = GeNVSLoss(config.loss, GeNVSConfig(), 0)
    net, batch = small_net().train().to(device), some_batch(4).to(device)
    loss_fn(net, batch).total.backward()
    expected = [parameter.grad for parameter in net.parameters()]
    sum_over_ranks(net, config)
    for _ in range(2):
        net.zero_grad(set_to_none=True)
        for number in range(ROUNDS):
            sample = slice(ROUNDS * rank + number, ROUNDS * rank + number + 1)
            (loss_fn(net, part_of(batch, sample)).total / 4).backward()
        for (name, parameter), gradient in zip(net.named_parameters(), expected, strict=True):
            assert parameter.grad.stride() == gradient.stride(), name
            difference = (parameter.grad - gradient).norm() / gradient.norm().clamp_min(1e-3)
            assert difference < tolerance, (compression, name, difference)


def on_two_ranks(rank: int, compression: str, tolerance: float) -> None:
    check_gradients(rank, distributed.init("cpu"), compression, tolerance)
    distributed.shutdown()


@pytest.mark.parametrize(("compression", "tolerance"), [("none", 1e-4), ("bf16", 2e-2)])
def test_gradients_of_two_ranks_are_those_of_the_whole_batch(compression, tolerance):
    on_ranks(on_two_ranks, compression, tolerance)
