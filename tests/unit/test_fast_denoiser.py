"""The denoiser of inference, and the views that inference keeps. CUDA graphs are tested in tests/gpu."""

import gc
import weakref

import pytest
import torch
from torch.testing import assert_close

from genvs.data.types import Views
from genvs.models.labels import label_of_class
from genvs.sampling import fast_denoiser
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import Conditioned
from tests.small_model import SIZE, small_net, some_cameras


def some_inputs(net, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A noisy batch, a noise level and feature images."""
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    features = torch.randn(count, net.config.encoder.volume_channels, SIZE, SIZE, generator=generator)
    return noisy, torch.tensor(0.7 + seed / 10), features


ORDER_OF_SUMS = {"rtol": 1e-4, "atol": 1e-5}  # far below what bf16 changes


@pytest.mark.parametrize("bf16", [False, True])
def test_it_computes_what_the_denoiser_does(bf16):
    """In bf16 exactly, because weights in bf16 are those that autocast makes in every call."""
    net = small_net().requires_grad_(False).to(memory_format=torch.channels_last)
    denoise = FastDenoiser(net, bf16=bf16)
    for count in (3, 1):
        inputs = some_inputs(net, count)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            expected = net.denoise(*inputs)
        result = denoise(*inputs)
        assert result.dtype == torch.float32
        assert torch.equal(result, expected) if bf16 else torch.allclose(result, expected, **ORDER_OF_SUMS)
        assert torch.allclose(result, net.denoise(*inputs), **ORDER_OF_SUMS) is not bf16


@pytest.mark.parametrize("per_image", [False, True])
def test_a_cpu_denoises_some_images_at_a_time(per_image, monkeypatch):
    monkeypatch.setattr(fast_denoiser, "PIXELS", 2 * SIZE**2 + 1)
    net = small_net().requires_grad_(False)
    noisy, sigma, features = some_inputs(net, 5)
    sigma = torch.linspace(0.1, 9, 5).view(5, 1, 1, 1) if per_image else sigma
    sizes: list[int] = []
    net.denoisers["rgb"].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    result = FastDenoiser(net, bf16=False)(noisy, sigma, features)
    assert sizes == [2, 2, 1]
    assert_close(result, net.denoise(noisy, sigma, features), **ORDER_OF_SUMS)


def test_inference_mode_changes_memory_and_no_numbers():
    """Results of layers take their inputs' places, but not those of the caller's tensors."""
    net = small_net().requires_grad_(False)
    inputs = some_inputs(net, 2)
    kept = [part.clone() for part in inputs]
    expected = net.denoise(*inputs)
    with torch.inference_mode():
        assert torch.equal(net.denoise(*inputs), expected)
    assert all(torch.equal(part, copy) for part, copy in zip(inputs, kept, strict=True))


def test_labels_can_be_changed():
    net = small_net(num_classes=3).requires_grad_(False)
    config = net.config
    inputs = some_inputs(net, 2)
    denoise = FastDenoiser(net, bf16=False, class_id=0)
    results = []
    for class_id in (0, 2):
        label = label_of_class(class_id, config)
        denoise.set_class(class_id)
        results.append(denoise(*inputs))
        assert_close(results[-1], net.denoise(*inputs, labels=label.expand(2, -1)), **ORDER_OF_SUMS)
    assert (results[0] - results[1]).abs().max() > 1e-2


def test_the_callers_autocast_does_not_lower_the_precision():
    net = small_net().requires_grad_(False)
    inputs = some_inputs(net, 2)
    expected = net.denoise(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(FastDenoiser(net, bf16=False)(*inputs), expected, **ORDER_OF_SUMS)


def test_a_cpu_encodes_and_renders_in_float32():
    net = small_net().requires_grad_(False)
    denoise, inputs, targets = FastDenoiser(net, bf16=True), some_cameras(1, 2), some_cameras(1, 3, seed=1)
    images = torch.rand(1, 2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    volume = denoise.encode(images[0], inputs[0])[None]
    assert_close(volume, net.encode(images), **ORDER_OF_SUMS)
    assert_close(denoise.render(volume, inputs, targets), net.render(volume, inputs, targets), **ORDER_OF_SUMS)


def test_the_newest_frames_are_kept_in_place():
    net = small_net().requires_grad_(False)
    denoise = FastDenoiser(net, bf16=False)
    images = torch.rand(1, 7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    volumes = torch.cat([net.encode(image) for image in images.split(1, dim=1)], dim=1)
    cameras = some_cameras(1, 7)
    known = Conditioned(denoise, Views(images[:, :3], cameras[:, :3]), batch_size=1, max_generated=2)
    memory, strides = known.volume.data_ptr(), net.encode(images[:, :1]).stride()[2:]
    for new, order in enumerate([[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 5, 4], [0, 1, 2, 5, 6]], start=3):
        assert torch.equal(known.volume, volumes[:, order]) and torch.equal(known.cameras.c2w, cameras.c2w[:, order])
        assert known.volume.data_ptr() == memory, "no volume moves"
        assert known.volume.stride()[2:] == strides, "volumes lie in memory as the encoder makes them"
        if new < 7:
            known.add(images[:, new], cameras[:, new : new + 1])


def test_its_memory_is_free_with_the_last_reference():
    """Without Python's collection of garbage, which might come while another graph is recorded."""
    gc.disable()
    try:
        net = small_net()
        denoise = FastDenoiser(net, bf16=False)
        denoise(*some_inputs(net, 1))
        gone = weakref.ref(denoise)
        del denoise
        assert gone() is None
    finally:
        gc.enable()
