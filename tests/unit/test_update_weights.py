"""The update of the weights, decided on the device, against torch's clipping and plain Adam, decided on the host."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import training.training_loop
from tests.small_training import CPU, last_state, save_state
from training.adam import Adam
from training.config import TRAIN_PRESETS, TrainConfig
from training.monitor import Monitor
from training.state import MAX_SKIPPED_IN_A_ROW, TrainState, restore
from training.training_loop import learning_rates, update_weights

CONFIG = dataclasses.replace(TRAIN_PRESETS["srn128"], lr=1e-2, lr_rampup_kimg=0.0, max_grad_norm=5.0)


def some_weights(channels_last: bool = True) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 6, 1, bias=False), nn.Linear(6, 5))
    net.config = CONFIG.net
    return net.to(memory_format=torch.channels_last) if channels_last else net


def fresh(device: torch.device = CPU, channels_last: bool = True) -> TrainState:
    """A state as `create_state` makes it, of a few weights."""
    net = some_weights(channels_last).to(device)
    # The learning rate grows from 0 at 0 images.
    return TrainState(net, copy.deepcopy(net), Adam(net.parameters()), cur_nimg=1000)


def give_gradients(net: nn.Module, seed: int, size: float, bad: float | None = None) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        gradient = size * torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    if bad is not None:
        parameter.grad[-1] = bad


def update(state: TrainState, config: TrainConfig = CONFIG) -> dict[str, float]:
    """One update; returns what it reports."""
    monitor = Monitor(Path(), next(state.net.parameters()).device, rank=1, cur_nimg=0, total=1)
    update_weights(state, config, monitor)
    return monitor.means()


def plain_update(net: nn.Module, optimizer: torch.optim.Optimizer, limit: float) -> float:
    """As torch's users write it."""
    norm = nn.utils.clip_grad_norm_(net.parameters(), limit).item()
    if norm == norm and norm != float("inf"):
        optimizer.step()
    optimizer.zero_grad()
    return norm


def tensors_of(net: nn.Module, optimizer: Adam | torch.optim.Optimizer) -> list[Tensor]:
    """Weights, moments and step counts."""
    moments = [tensor for of_one in optimizer.state_dict()["state"].values() for tensor in of_one.values()]
    return [tensor.detach().cpu().clone() for tensor in (*net.parameters(), *moments)]


def check_against_plain_adam(device: torch.device) -> None:
    """Small and large gradients, some of them not finite: the same weights, moments, counts of steps and norms."""
    state, net = fresh(device), some_weights().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=CONFIG.lr)
    limit, skipped = CONFIG.max_grad_norm, 0
    for step, (size, bad) in enumerate(
        [(0.1, None), (9.0, None), (0.1, float("nan")), (1.0, None), (1.0, float("inf")), (1e30, None), (0.2, None)]
    ):
        for each in (net, state.net):
            give_gradients(each, step, size, bad)
        before = tensors_of(state.net, state.optimizer)
        expected = plain_update(net, optimizer, limit)
        stats = update(state)
        after = tensors_of(state.net, state.optimizer)
        if bad is not None or size > 1e20:  # the norm of the largest overflows
            skipped += 1
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "nothing changes, not by a bit"
            assert "Gradient/norm" not in stats
        else:
            assert stats["Gradient/norm"] == pytest.approx(expected, rel=1e-6)
        assert_close(after, tensors_of(net, optimizer), rtol=1e-5, atol=1e-6)
        assert all(parameter.grad is None for parameter in state.net.parameters())
    assert (state.check(), state.skipped_in_a_row) == (skipped, 0) == (3, 0)


def test_an_update_is_adams_with_clipped_gradients_and_without_bad_ones():
    check_against_plain_adam(CPU)


# Distribution matching

MATCHING = dataclasses.replace(
    CONFIG, distill_steps=2, batch_size=10, duration_kimg=1.2, matching_kimg=0.4, lr_decay_kimg=0.2
)


def with_critic(cur_nimg: int) -> TrainState:
    state, critic = fresh(), some_weights()
    return dataclasses.replace(
        state, critic=critic, critics_optimizer=Adam(critic.parameters()), cur_nimg=cur_nimg, fp16=False
    )


def test_the_critic_keeps_the_learning_rate_that_the_few_step_network_loses():
    expected = {200: (1, 0), 400: (1, 0), 600: (0.55, 0), 800: (0.1, 1), 1000: (0.1, 1), 1100: (0.05, 0.5)}
    for nimg, shares in expected.items():
        state = with_critic(nimg)
        rates = learning_rates(state, MATCHING)
        found = [rates.get(optimizer, 0) / CONFIG.lr for optimizer in (state.optimizer, state.critics_optimizer)]
        assert found == pytest.approx(shares), nimg


def test_a_bad_gradient_of_the_critic_stops_both_updates():
    for bad in (None, float("nan")):
        state = with_critic(900)
        give_gradients(state.net, 0, 1.0)
        give_gradients(state.critic, 1, 1.0, bad)
        before = [weight.clone() for net in (state.net, state.critic) for weight in net.parameters()]
        update(state, MATCHING)
        after = [*state.net.parameters(), *state.critic.parameters()]
        changed = [not torch.equal(*pair) for pair in zip(before, after, strict=True)]
        assert changed == [bad is None] * len(after)
        assert all(weight.grad is None for weight in after)


# Loss scaling


def test_a_scaled_loss_gives_the_same_updates_and_its_scale_adapts(monkeypatch):
    """Gradients come times the scale; it halves where they overflow, and doubles after a row of updates."""
    monkeypatch.setattr(training.training_loop, "SCALE_GROWTH_UPDATES", 3)
    plain, scaled = fresh(), fresh()
    scaled.scale.fill_(2.0**16)
    config = dataclasses.replace(CONFIG, fp16=True, bf16=False)
    overflows = [False, True, False, False, False, True, True, False]
    expected = [16, 15, 15, 15, 16, 15, 14, 14]
    for step, (overflow, power) in enumerate(zip(overflows, expected, strict=True)):
        if not overflow:
            give_gradients(plain.net, step, 3.0)
            stats = update(plain)
        give_gradients(scaled.net, step, 3.0 * scaled.scale.item(), float("inf") if overflow else None)
        of_scaled = update(scaled, config)
        if not overflow:
            assert of_scaled["Gradient/norm"] == pytest.approx(stats["Gradient/norm"], rel=1e-6)
        assert scaled.scale.item() == 2.0**power, step
        pairs = zip(tensors_of(plain.net, plain.optimizer), tensors_of(scaled.net, scaled.optimizer), strict=True)
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs), step
    assert (scaled.check(), scaled.skipped_in_a_row) == (3, 0)


# Skips in a row


def test_a_row_of_skips_is_found_whenever_somebody_looks():
    state, limit = fresh(), MAX_SKIPPED_IN_A_ROW
    for skips, expected in (
        ([True, True, False, True], (3, 1)),
        ([True] * (limit - 2), (limit + 1, limit - 1)),
        ([False], (limit + 1, 0)),
        ([True] * limit + [False, False], None),
    ):
        for skip in skips:
            state.count_update(torch.tensor(skip))
        if expected is not None:
            assert (state.check(), state.skipped_in_a_row) == expected
    with pytest.raises(FloatingPointError, match=f"{limit} updates in a row"):
        state.check()


def test_a_state_goes_on_where_weights_lie_otherwise_in_memory(tmp_path):
    """As on a CPU after a GPU has saved it."""
    first, then = fresh(channels_last=True), fresh(channels_last=False)
    for step in range(3):
        give_gradients(first.net, step, 1.0)
        update(first)
    save_state(tmp_path, CONFIG, first)
    restore(then, last_state(tmp_path), tmp_path)
    for step in (3, 4):
        for state in (first, then):
            give_gradients(state.net, step, 1.0)
            update(state)
    assert_close(tensors_of(then.net, then.optimizer), tensors_of(first.net, first.optimizer), check_stride=False)
