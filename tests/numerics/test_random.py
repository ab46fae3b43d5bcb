"""Random numbers as a pure function of keys: the generator's published outputs, moments, and independence."""

import dataclasses
import math

import pytest
import scipy.stats
import torch

from genvs import random
from genvs.config import AUGMENT_LABELS, GeNVSConfig
from genvs.models import GeNVS
from genvs.models.unet import UNetBlock
from tests.small_model import small_config, some_batch
from training.loss import GeNVSLoss, LossConfig


@pytest.fixture(scope="module")
def keys() -> torch.Tensor:
    return random.sample_keys(7, torch.arange(64))


def test_bits_are_splitmix64():
    """The first five outputs from state 1234567, as published for other implementations of the generator."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    published += [4593380528125082431, 16408922859458223821]
    found = random.bits(torch.tensor(1234567), (5,))
    assert [value % 2**64 for value in found.tolist()] == published
    assert random.bits(torch.tensor(1234567), ()).item() % 2**64 == published[0]


def test_numbers_are_a_function_of_the_key_alone(keys):
    for draw in (random.bits, random.uniform, random.normal):
        together = draw(keys, (3, 5))
        assert together.shape == (64, 3, 5)
        assert torch.equal(together, draw(keys, (3, 5)))
        assert torch.equal(together[10:20], draw(keys[10:20], (3, 5)))
        assert torch.equal(together.flip(0), draw(keys.flip(0), (3, 5)))
        assert torch.equal(together.reshape(8, 8, 3, 5), draw(keys.reshape(8, 8), (3, 5)))
        assert torch.equal(together[5], draw(keys[5], (3, 5)))
    assert torch.equal(random.uniform(keys), random.uniform(keys, (4,))[:, 0])


@pytest.mark.parametrize(("draw", "distribution"), [(random.uniform, "uniform"), (random.normal, "norm")])
def test_numbers_have_their_distribution(keys, draw, distribution):
    """Many numbers of one key, and one number of each of many keys, as coins and noise levels are drawn."""
    samples = [draw(keys, (2000,)).flatten()]
    samples += [draw(random.fold(random.sample_keys(0, torch.arange(50000)), stream)) for stream in range(3)]
    for values in samples:
        assert values.dtype == torch.float32 and values.isfinite().all()
        assert scipy.stats.kstest(values.double().numpy(), distribution).pvalue > 0.001
    low, high = samples[0].min(), samples[0].max()
    assert 0 <= low < high < 1 if distribution == "uniform" else low < -4 < 4 < high


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs().item()


def test_streams_keys_and_seeds_are_independent():
    index = torch.arange(20000)
    assert len(torch.cat([random.sample_keys(seed, index) for seed in (0, 1)]).unique()) == 2 * len(index)
    numbers = {
        "own": random.normal(random.sample_keys(0, index)),
        "stream 0": random.normal(random.fold(random.sample_keys(0, index), 0)),
        "stream 1": random.normal(random.fold(random.sample_keys(0, index), 1)),
        "index 1": random.normal(random.fold(random.sample_keys(0, index), 0, 1)),
        "seed 1": random.normal(random.sample_keys(1, index)),
        "next sample": random.normal(random.sample_keys(0, index + 1)),
        **{f"number {lag}": random.normal(random.sample_keys(0, index), (lag + 1,))[:, lag] for lag in (1, 2, 32)},
    }
    bound = 4.5 / math.sqrt(len(index))
    names = list(numbers)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert correlation(numbers[name], numbers[other]) < bound, (name, other)
            assert correlation(numbers[name].square(), numbers[other].square()) < bound, (name, other)


def test_no_key_of_a_training_step_serves_two_uses(monkeypatch):
    """With all uses: dropout in several blocks, jitter, augmentation, classes and noisy inputs."""
    net = GeNVS(small_config(4, dropout=0.2, blocks_per_level=3, augment_labels=AUGMENT_LABELS)).train()
    batch = dataclasses.replace(some_batch(2), classes=torch.eye(4)[:2])
    used: list[torch.Tensor] = []
    bits, keep_mask = random.bits, random.keep_mask
    monkeypatch.setattr(random, "bits", lambda keys, shape: (used.append(keys), bits(keys, shape))[1])
    monkeypatch.setattr(random, "keep_mask", lambda keys, *others: (used.append(keys), keep_mask(keys, *others))[1])
    GeNVSLoss(LossConfig(augment=0.5), GeNVSConfig(), 0)(net, batch)
    keys = torch.cat([key.flatten() for key in used])
    num_blocks = len([module for module in net.modules() if isinstance(module, UNetBlock)])
    assert len(used) == num_blocks + 10
    assert keys.unique().numel() == keys.numel()


def test_numpys_streams_differ():
    streams = (random.Stream.SCENE_ORDER, random.Stream.NUM_INPUTS, random.Stream.VIEWS)
    numbers = {tuple(random.numpy_generator(stream, 0, 3).integers(2**62, size=2)) for stream in streams}
    assert len(numbers) == 3
    again = random.numpy_generator(random.Stream.VIEWS, 0, 3).integers(2**62, size=2)
    assert tuple(again) in numbers


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expectation_and_drops_its_share(p):
    keys = random.sample_keys(0, torch.arange(50))
    kept = random.dropout(torch.ones(50, 4, 30, 10), p, keys)
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    assert (kept == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    assert kept.mean().item() == pytest.approx(1, abs=0.06)
    per_sample = (kept == 0).float().mean(dim=(1, 2, 3))
    assert (per_sample - p).abs().max() < 0.06, "every sample loses its share, not some samples all"
    assert torch.equal(kept[4:5], random.dropout(torch.ones(1, 4, 30, 10), p, keys[4:5]))
    assert not torch.equal(kept[0], kept[1])
