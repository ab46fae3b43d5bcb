"""The learned weighting of noise levels: what it learns, and that runs with it resume and start from others."""

import dataclasses

import torch
from torch.testing import assert_close

import genvs
from genvs.models import GeNVS
from genvs.models.denoiser import LogVariance
from genvs.settings import set_by_path
from tests.small_model import saved, small_config, some_batch
from tests.small_training import fresh_state, kimg, resume, small_run, train, unequal
from training.config import TrainConfig
from training.loss import GeNVSLoss, LossConfig

LEARNED = {"net.denoiser.learned_weighting": "true"}


def learned(cars, updates: int) -> TrainConfig:
    return set_by_path(small_run(cars, updates), LEARNED)


def test_it_learns_the_logarithm_of_the_loss_at_every_noise_level():
    log_variance = LogVariance()
    sigma = torch.logspace(-2, 1.5, 400)
    loss = 0.05 + 2 * sigma / (1 + sigma**2)
    assert torch.equal(log_variance(sigma), torch.zeros(400))
    optimizer = torch.optim.Adam(log_variance.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (loss / log_variance(sigma).exp() + log_variance(sigma)).mean().backward()
        optimizer.step()
    assert_close(log_variance(sigma), loss.log(), rtol=0, atol=0.15)


def test_the_denoising_loss_is_divided_and_the_colour_loss_is_not():
    net, batch = GeNVS(small_config(learned_weighting=True)), some_batch(2)
    log_variance = net.log_variance
    assert log_variance is not None
    weighted = GeNVSLoss(LossConfig(rgb_weight=3.0), net.config, 0, log_variance)
    plain = GeNVSLoss(LossConfig(rgb_weight=3.0), net.config, 0)(net, batch)
    assert torch.equal(weighted(net, batch).total, plain.total), "at first"
    with torch.no_grad():
        log_variance.coefficients[0, 0] = u = 0.7  # the same at all noise levels
    terms = weighted(net, batch)
    assert torch.equal(terms.loss, plain.loss)
    assert_close(terms.total, (terms.loss / torch.tensor(u).exp() + u + 3 * terms.rgb_loss).mean())
    terms.total.backward()
    gradient = log_variance.coefficients.grad
    assert gradient is not None
    assert_close(gradient[0, 0], 1 - (plain.loss / torch.tensor(u).exp()).mean().detach())


def test_a_run_resumes_bit_for_bit_and_starts_from_a_snapshot_without_it(cars, tmp_path):
    whole = train(learned(cars, 3), tmp_path / "whole")
    train(learned(cars, 2), tmp_path / "part")
    assert unequal(resume(tmp_path / "part", duration_kimg=kimg(3)), whole) == []
    name = "log_variance.coefficients"
    assert all(whole[part][name].any() for part in ("net", "ema"))
    saved(tmp_path / "plain.pkl", fresh_state(small_run(cars, 1)).net)
    for source, config in (("plain.pkl", learned(cars, 1)), ("whole/network-snapshot-000000.pkl", small_run(cars, 1))):
        given = genvs.load_snapshot(tmp_path / source).state_dict()
        started = fresh_state(dataclasses.replace(config, transfer=str(tmp_path / source))).net.state_dict()
        assert started.keys() ^ given.keys() == {name} and not started.get(name, torch.zeros(())).any()
        assert all(torch.equal(started[other], given[other]) for other in started.keys() & given.keys())
