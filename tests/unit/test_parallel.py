"""Gradients of several ranks."""

import pytest
import torch

from genvs.config import GeNVSConfig
from tests.ranks import on_ranks
from tests.small_model import part_of, small_net, some_batch
from tests.small_training import small_run
from torch_utils import distributed
from training.graphed import in_one_tensor, parts_of
from training.loss import GeNVSLoss
from training.parallel import sum_over_ranks

ROUNDS = 2


def check_gradients(
    rank: int, device: torch.device, compression: str, tolerance: float, together: bool = False
) -> None:
    """The sum over two ranks, of two rounds each, is the gradient of the whole batch in one process.

    together: each part's gradients lie in one tensor, as after a replay.
    """
    config = small_run("nowhere", batch_size=8, batch_gpu=2, grad_compression=compression)
    loss_fn = GeNVSLoss(config.loss, GeNVSConfig(), 0)
    net, batch = small_net().train().to(device), some_batch(4).to(device)
    loss_fn(net, batch).total.backward()
    expected = [parameter.grad for parameter in net.parameters()]
    sum_over_ranks(net, config)
    for _ in range(2):
        net.zero_grad(set_to_none=True)
        for part in parts_of(net) if together else ():
            weights = list(part.parameters())
            for weight, gradient in zip(weights, in_one_tensor(weights), strict=True):
                weight.grad = gradient.zero_()
        for number in range(ROUNDS):
            sample = slice(ROUNDS * rank + number, ROUNDS * rank + number + 1)
            (loss_fn(net, part_of(batch, sample)).total / 4).backward()
        for (name, parameter), gradient in zip(net.named_parameters(), expected, strict=True):
            assert parameter.grad.stride() == gradient.stride(), name
            difference = (parameter.grad - gradient).norm() / gradient.norm().clamp_min(1e-3)
            assert difference < tolerance, (compression, name, difference)


def on_two_ranks(rank: int, *arguments) -> None:
    check_gradients(rank, distributed.init("cpu"), *arguments)
    distributed.shutdown()


@pytest.mark.parametrize("arguments", [("none", 1e-4), ("none", 1e-4, True), ("bf16", 2e-2), ("bf16", 2e-2, True)])
def test_gradients_of_two_ranks_are_those_of_the_whole_batch(arguments):
    on_ranks(on_two_ranks, *arguments)
