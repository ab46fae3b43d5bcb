"""Muon: orthogonal updates of matrices, of Adam's size, and Adam for all else."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from training.adam import Adam
from training.muon import ADAMS_SIZE, MOMENTUM, Muon, orthogonalized

ONE, KEPT, SKIPPED = torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0)
LR = 1e-2


def some_weights() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(20, 32, 3), nn.Conv2d(20, 32, 3), nn.Linear(24, 40), nn.Conv2d(32, 3, 1))
    return net.to(memory_format=torch.channels_last)


def give_gradients(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("shape", [(24, 100), (32, 32)])
def test_directions_keep_the_singular_vectors_and_lose_the_values(shape):
    matrices = (
        torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-4, 1, 1e4])[:, None, None]
    )
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    values = left.mT @ orthogonalized(matrices) @ right.mT
    diagonal = values.diagonal(dim1=1, dim2=2)
    assert_close(values, torch.diag_embed(diagonal), rtol=0, atol=1e-3)
    assert diagonal.mean() == pytest.approx(0.95, abs=0.15) and (0 < diagonal).all() and (diagonal < 1.3).all()


def check_updates(device: torch.device, error: float) -> None:
    """Three updates against the formulas. error: of an update, relative to its length."""
    net = some_weights().to(device)
    optimizer, averages = Muon(net.parameters()), [0.0] * 3
    for seed in range(3):
        give_gradients(net, seed)
        matrices = [net[number].weight for number in range(3)]
        before, gradients = [m.detach().clone() for m in matrices], [m.grad.flatten(1) for m in matrices]
        optimizer.step(LR, grad_scale=2 * ONE.to(device), skip=KEPT.to(device))
        for number, (matrix, old, gradient) in enumerate(zip(matrices, before, gradients, strict=True)):
            averages[number] = MOMENTUM * averages[number] + (1 - MOMENTUM) * gradient / 2
            nesterov = MOMENTUM * averages[number] + (1 - MOMENTUM) * gradient / 2
            moved = (old - matrix.detach()).flatten(1)
            wide = nesterov if len(nesterov) <= len(nesterov[0]) else nesterov.mT
            direction = orthogonalized(wide[None].cpu())[0].to(device)
            expected = LR * ADAMS_SIZE * max(gradient.shape) ** 0.5 * (direction if wide is nesterov else direction.mT)
            assert (moved - expected).norm() < error * expected.norm()
            assert moved.square().mean().sqrt().item() == pytest.approx(LR * ADAMS_SIZE, rel=0.25)
            assert matrix.grad is None


def test_matrices_move_along_the_averaged_gradient_as_far_as_with_adam():
    check_updates(torch.device("cpu"), error=1e-3)


def test_small_matrices_and_vectors_are_adams():
    ours, plain = some_weights(), some_weights()
    optimizers = Muon(ours.parameters()), Adam(plain.parameters())
    for seed in range(3):
        for net, optimizer in zip((ours, plain), optimizers, strict=True):
            give_gradients(net, seed)
            optimizer.step(LR, grad_scale=ONE, skip=KEPT)
    for (name, weight), expected in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(weight, expected) == (name not in ("0.weight", "1.weight", "2.weight")), name


def test_a_skipped_update_changes_nothing():
    net = some_weights()
    optimizer = Muon(net.parameters())
    give_gradients(net, 0)
    optimizer.step(LR, grad_scale=ONE, skip=KEPT)
    tensors = [*net.parameters(), *(tensor for moments in optimizer.moments for tensor in moments.values())]
    before = [tensor.detach().clone() for tensor in tensors]
    give_gradients(net, 1)
    net[0].weight.grad[0] = float("nan")
    optimizer.step(LR, grad_scale=ONE, skip=SKIPPED)
    assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True))


def test_weights_without_gradients_stay():
    net = some_weights()
    optimizer, before = Muon(net.parameters()), [parameter.detach().clone() for parameter in net.parameters()]
    give_gradients(net, 0)
    net[0].weight.grad = net[2].weight.grad = None  # one of a pair, and one alone
    optimizer.step(LR, grad_scale=ONE, skip=KEPT)
    moved = [not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True)]
    assert moved == [name not in ("0.weight", "2.weight") for name, _ in net.named_parameters()]


def test_only_matrices_may_have_gradients():
    net = nn.Linear(24, 40, bias=False)
    optimizer, before = Muon(net.parameters()), net.weight.detach().clone()
    give_gradients(net, 0)
    optimizer.step(LR, grad_scale=ONE, skip=KEPT)
    assert not torch.equal(net.weight, before) and net.weight.grad is None


def test_it_goes_on_from_its_saved_moments():
    first, second = some_weights(), some_weights()
    optimizer = Muon(first.parameters())
    give_gradients(first, 0)
    optimizer.step(LR, grad_scale=ONE, skip=KEPT)
    second.load_state_dict(first.state_dict())
    other = Muon(second.parameters())
    other.load_state_dict(optimizer.state_dict())
    for net, each in ((first, optimizer), (second, other)):
        give_gradients(net, 1)
        each.step(LR, grad_scale=ONE, skip=KEPT)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
