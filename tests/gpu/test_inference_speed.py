"""Inference on a GPU: CUDA graphs and bf16 against plain calls, views against the CPU's, without waiting."""

import functools
import gc
import itertools

import pytest
import torch
from torch.testing import assert_close

from genvs.diffusion.samplers import SAMPLERS
from genvs.models.precision import autocast
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import synthesize_views
from tests.gpu.test_no_host_sync import no_syncs
from tests.small_model import small_net, some_batch, some_cameras
from tests.unit.test_fast_denoiser import some_inputs

pytestmark = pytest.mark.gpu

DEVICE = torch.device("cuda", 0)
ATOL = {True: 3e-2, False: 1e-4}  # by bf16; another shape or call may change the order of sums


@pytest.fixture(scope="module")
def net():
    return small_net().requires_grad_(False).to(DEVICE)


def inputs_of(net, count: int, seed: int) -> list[torch.Tensor]:
    return [part.to(DEVICE) for part in some_inputs(net, count, seed)]


def eager(net, bf16: bool, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(), autocast(DEVICE, torch.bfloat16 if bf16 else None):
        return net.denoise(*inputs)


# CUDA graphs


@pytest.mark.parametrize("bf16", [False, True])
def test_a_replayed_evaluation_is_the_denoisers(net, bf16):
    """After calls with other inputs of the same shape, with other shapes, and again with the first."""
    denoise = FastDenoiser(net, bf16=bf16)
    results = []
    for seed, count in enumerate([4, 4, 1, 4, 2, 1]):
        inputs = inputs_of(net, count, seed)
        results.append((denoise(*inputs), eager(net, bf16, *inputs)))
        assert results[-1][0].dtype == torch.float32
    for result, expected in results:  # after all calls, because no call may write into another's result
        assert_close(result, expected, rtol=0, atol=ATOL[bf16])
    assert (results[0][0] - results[1][0]).abs().mean() > 10 * ATOL[bf16], "a stale result would go unnoticed"


@pytest.mark.parametrize("bf16", [False, True])
def test_a_replayed_rendering_is_the_networks(net, bf16):
    denoise = FastDenoiser(net, bf16=bf16)
    batches = [some_batch(1, views, seed=seed).to(DEVICE) for seed, views in enumerate((2, 2, 1))]
    with torch.inference_mode(), autocast(DEVICE, torch.bfloat16 if bf16 else None):
        scenes = [(net.encode(each.inputs.images), each.inputs.cameras, each.targets.cameras) for each in batches]
        expected = [net.render(*scene) for scene in scenes]
    found = [denoise.render(*scene) for scene in scenes]
    for image, other in zip(found, expected, strict=True):
        assert_close(image, other, rtol=0, atol=ATOL[bf16])
    assert (found[0] - found[1]).abs().mean() > 10 * ATOL[bf16], "a stale result would go unnoticed"


@pytest.mark.parametrize("bf16", [False, True])
def test_a_replayed_encoding_is_the_networks(net, bf16):
    denoise = FastDenoiser(net, bf16=bf16)
    inputs = [some_batch(1, 2, seed=seed).inputs.to(DEVICE) for seed in range(3)]
    found = [denoise.encode(views.images[0], views.cameras[0]) for views in inputs]
    with torch.inference_mode(), autocast(DEVICE, torch.bfloat16 if bf16 else None):
        expected = [net.encode(views.images)[0] for views in inputs]
    for ours, wanted in zip(found, expected, strict=True):
        assert (ours.dtype, ours.stride()) == (wanted.dtype, wanted.stride())
        assert (ours - wanted).norm() < ATOL[bf16] * wanted.norm()
    assert (found[0] - found[1]).norm() > 3 * ATOL[bf16] * found[0].norm(), "a stale result would go unnoticed"


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_sampling_waits_for_nothing(net, name, bf16):
    noise, _, features = inputs_of(net, 2, seed=0)
    denoise = functools.partial(FastDenoiser(net, bf16=bf16), feature_image=features)
    expected = SAMPLERS[name].sample(denoise, noise, num_steps=4)
    with no_syncs():
        again = SAMPLERS[name].sample(denoise, noise, num_steps=4)
    assert_close(again, expected, rtol=0, atol=ATOL[bf16])


def test_graphs_that_are_garbage_do_not_disturb_a_recording(net):
    """Python may free them at any moment, but not while another graph is recorded."""
    for count in range(1, 5):
        denoise = FastDenoiser(net, bf16=True)
        denoise.itself = denoise  # only a collection frees it
        inputs = inputs_of(net, count, seed=0)
        collected = gc.get_threshold()
        gc.set_threshold(1)
        try:
            found = denoise(*inputs)
        finally:
            gc.set_threshold(*collected)
        assert_close(found, eager(net, True, *inputs), rtol=0, atol=ATOL[True])


# The algorithm


def synthesize(net, device: torch.device, targets, **options) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = some_batch(1).inputs
    views = list(synthesize_views(net.to(device), inputs, targets, num_steps=3, progress=False, **options))
    assert all(part.device.type == "cpu" and part.dtype == torch.float32 for view in views for part in view)
    return torch.stack([image for image, _ in views]), torch.stack([features for _, features in views])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cond_method", ["normal", "autoreg"])
def test_views_are_those_of_the_cpu(cond_method, sampler):
    """In order, although a batch is returned while the next one is drawn; the last batch is smaller."""
    net, targets = small_net().requires_grad_(False), some_cameras(1, 5, seed=3)
    net.notes["num_steps"] = 3  # as in a few-step network, so that all samplers are allowed
    options = {"cond_method": cond_method, "sampler": sampler, "batch_size": 2}
    expected = synthesize(net, torch.device("cpu"), targets, **options)
    exact = synthesize(net, DEVICE, targets, **options, bf16=False)
    rough = synthesize(net, DEVICE, targets, **options)
    for ours, wanted in zip(exact, expected, strict=True):
        assert_close(ours, wanted, rtol=0, atol=1e-2)
        assert (ours - wanted).abs().mean() < 1e-3
    for ours, wanted in zip(rough, expected, strict=True):
        assert 0 < (ours - wanted).abs().mean() < 0.05


@pytest.mark.parametrize("cond_method", ["normal", "autoreg"])
def test_batches_follow_each_other_without_waiting(net, cond_method):
    """Apart from the arrival of the batch that is returned."""
    inputs, targets = some_batch(1).inputs.to(DEVICE), some_cameras(1, 12).to(DEVICE)
    views = synthesize_views(net, inputs, targets, cond_method=cond_method, num_steps=3, batch_size=2, progress=False)
    first = list(itertools.islice(views, 4))
    with no_syncs():
        rest = list(views)
    assert len(first) + len(rest) == 12
