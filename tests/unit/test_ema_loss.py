"""The moving average and the objective: closed forms, and randomness that belongs to each sample."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from genvs.config import GeNVSConfig
from genvs.data.types import ViewBatch, Views
from tests.small_model import part_of, some_cameras
from training.config import TRAIN_PRESETS
from training.loss import GeNVSLoss, LossConfig
from training.state import TrainState
from training.training_loop import update_ema

# The moving average

CONFIG = dataclasses.replace(TRAIN_PRESETS["srn128"], batch_size=32)


def filled(value: float) -> nn.Module:
    net = nn.Linear(2, 3)
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)
    return net


@pytest.fixture
def state() -> TrainState:
    """Weights of 1 and a moving average of 0."""
    return TrainState(net := filled(1.0), filled(0.0), torch.optim.Adam(net.parameters()))


def value_after_update(state: TrainState, cur_nimg: int, **recipe) -> float:
    """Of all weights of the moving average."""
    state.cur_nimg = cur_nimg
    update_ema(state, dataclasses.replace(CONFIG, **recipe))
    (value,) = {value for parameter in state.ema.parameters() for value in parameter.unique().tolist()}
    return value


def test_ema_halves_its_distance_in_a_half_life(state):
    for step in range(40):
        value = value_after_update(state, 10_000 + 32 * step, ema_halflife_kimg=0.64, ema_rampup_ratio=10.0)
        assert value == pytest.approx(1 - 0.5 ** (32 * (step + 1) / 640), abs=1e-6)
    assert value == pytest.approx(0.75, abs=1e-6)


def test_ema_ramps_up_with_the_run(state):
    """At first the half-life is a share of the images seen; the first update takes the weights as they are."""
    assert value_after_update(state, 0, ema_halflife_kimg=0.032, ema_rampup_ratio=None) == 0.5
    assert value_after_update(state, 0, ema_halflife_kimg=1.0, ema_rampup_ratio=0.1) == 1.0
    state.net, distance = filled(2.0), 1.0
    for cur_nimg in (320, 3200, 9000, 10_000, 50_000):
        value = value_after_update(state, cur_nimg, ema_halflife_kimg=1.0, ema_rampup_ratio=0.1)
        distance *= 0.5 ** (32 / min(1000, 0.1 * cur_nimg))
        assert value == pytest.approx(2 - distance, abs=1e-6)


# The objective


class Recorder:
    """Stands for the network: answers c_skip x, as untrained U-Nets do, and keeps what it was given."""

    def __call__(self, **given) -> tuple[Tensor, Tensor]:
        self.given = given
        noisy, sigma = given["noisy"], given["sigma"]
        return noisy * 0.25 / (sigma**2 + 0.25), torch.zeros(*noisy.shape[:2], 4, *noisy.shape[3:])


def tiny_images_batch(num_scenes: int) -> ViewBatch:
    """Images of 4 x 4 pixels with the deviation of the data, 2 inputs and 2 targets a scene."""
    images = 0.5 * torch.randn(2, num_scenes, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    cameras = some_cameras(num_scenes, 2)
    return ViewBatch(Views(images[0], cameras), Views(images[1], cameras), torch.arange(num_scenes))


def run(batch: ViewBatch, seed: int = 0, **config):
    recorder = Recorder()
    terms = GeNVSLoss(LossConfig(**config), GeNVSConfig(), seed)(recorder, batch)
    return terms, recorder.given


def test_an_untrained_network_has_loss_one_at_every_noise_level():
    terms, _ = run(tiny_images_batch(4000), P_std=1.4, rgb_weight=0.0)
    assert terms.loss.shape == terms.sigma.shape == (4000, 2)
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 2), (2, math.inf)):
        inside = terms.loss[(terms.sigma >= low) & (terms.sigma < high)]
        assert len(inside) > 100 and inside.mean().item() == pytest.approx(1, abs=0.06)
    assert terms.total.item() == pytest.approx(terms.loss.mean().item(), rel=1e-6)


def test_the_loss_is_edms_formula():
    batch = tiny_images_batch(5)
    terms, given = run(batch, rgb_weight=3.0)
    sigma, images = terms.sigma[..., None, None, None], batch.targets.images
    assert torch.equal(given["sigma"], sigma)
    denoised = given["noisy"] * 0.25 / (sigma**2 + 0.25)
    error = ((denoised - images) ** 2).mean(dim=(2, 3, 4))
    assert_close(terms.loss, error * (terms.sigma**2 + 0.25) / (0.5 * terms.sigma) ** 2)
    # Features of zero, an empty ray, stand for white.
    assert_close(terms.rgb_loss, ((images - 1) ** 2).mean(dim=(2, 3, 4)))
    assert_close(terms.total, (terms.loss + 3 * terms.rgb_loss).mean())


def test_noise_is_unit_white_and_levels_are_lognormal():
    batch = tiny_images_batch(4000)
    terms, given = run(batch, P_mean=-0.7, P_std=1.1)
    assert terms.sigma.log().mean().item() == pytest.approx(-0.7, abs=0.05)
    assert terms.sigma.log().std().item() == pytest.approx(1.1, abs=0.04)
    noise = (given["noisy"] - batch.targets.images) / given["sigma"]
    assert noise.mean().item() == pytest.approx(0, abs=0.01) and noise.std().item() == pytest.approx(1, abs=0.01)
    flat = noise.flatten(2)
    assert (flat[:, 0] * flat[:, 1]).mean().abs() < 0.01, "targets of one scene have noise of their own"
    assert (flat[:-1, 0] * flat[1:, 0]).mean().abs() < 0.01


def test_conditioning_is_dropped_for_each_target_alone():
    _, given = run(tiny_images_batch(5000), conditioning_dropout=0.3)
    keep = given["keep_conditioning"].double()
    assert keep.shape == (5000, 2) and keep.mean().item() == pytest.approx(0.7, abs=0.015)
    assert keep.prod(dim=1).mean().item() == pytest.approx(0.49, abs=0.02), "not one coin a scene, or a batch"
    assert run(tiny_images_batch(50), conditioning_dropout=0.0)[1]["keep_conditioning"].all()


def test_input_noise_is_for_each_view_alone():
    batch = tiny_images_batch(5000)
    _, given = run(batch, input_noise_probability=0.5, input_noise_max=0.5)
    added = given["input_images"] - batch.inputs.images
    noised = added.abs().amax(dim=(2, 3, 4)) > 0
    assert noised.double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert noised.double().prod(dim=1).mean().item() == pytest.approx(0.25, abs=0.02)
    scale = added[noised].flatten(1).square().mean(dim=1)
    assert scale.mean().item() == pytest.approx(0.25 / 3, rel=0.05), "of standard deviation U(0, 0.5)"
    assert added[noised].flatten(1).std(dim=1).max() < 0.9
    noise = (given["noisy"] - batch.targets.images).flatten(1)
    assert torch.corrcoef(torch.stack([added.flatten(), noise.flatten()]))[0, 1].abs() < 0.01
    assert torch.equal(run(batch, input_noise_probability=0.0)[1]["input_images"], batch.inputs.images)


def test_everything_random_is_a_function_of_seed_and_sample_index():
    batch = tiny_images_batch(8)
    whole = run(batch)[1]
    parts = [run(part_of(batch, index))[1] for index in (slice(0, 3), slice(3, 8))]
    fewer = run(ViewBatch(batch.inputs[:, :1], batch.targets[:, :1], batch.sample_index))[1]
    for name in ("noisy", "sigma", "keep_conditioning", "keys", "input_images"):
        assert torch.equal(whole[name], torch.cat([part[name] for part in parts])), name
        assert torch.equal(whole[name][:, :1], fewer[name]), f"{name} with fewer views"
    other = run(batch, seed=1)[1]
    assert (other["sigma"] != whole["sigma"]).all()
    assert len(whole["keys"].unique()) == 16 and not set(other["keys"].flatten()) & set(whole["keys"].flatten())
