"""The network on fused kernels against the network on plain torch; and rendering in bfloat16, which needs a GPU."""

import contextlib
import dataclasses
import functools

import pytest
import torch
from torch import Tensor

from genvs import ops
from genvs.geometry.projections import PROJECTIONS
from genvs.models import GeNVS
from genvs.models.unet import UNetBlock
from tests.fused_checks import DEVICE, check, errors, normal, render, some_field, some_known, some_rays, some_volume
from tests.small_model import randomize, small_config, some_batch, some_cameras

pytestmark = pytest.mark.gpu

IMAGES = ("features", "denoised")


def autocast(bf16: bool) -> contextlib.AbstractContextManager:
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=bf16)


@pytest.mark.parametrize(
    ("views", "channels", "hidden", "rays"), [(1, 16, 64, 36), (2, 16, 32, 81), (3, 32, 32, 50), (1, 32, 64, 64)]
)
def test_render_in_bf16_is_as_exact_as_plain_torch_in_autocast(views, channels, hidden, rays):
    """Both have errors of a few per cent in the field's gradients, because rounding flips some of its ReLUs."""
    inputs = (some_volume(views, channels, torch.bfloat16), *some_field(channels, hidden))
    ours = errors(functools.partial(render, some_rays(views, rays)), *inputs)
    with ops.reference_only(), autocast(True):
        plain = errors(functools.partial(render, some_rays(views, rays)), *inputs)
    assert all(error <= 2 * other for (_, error), (_, other) in zip(ours, plain, strict=True)), (ours, plain)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("elevations", "known"), [(64, None), (64, 3), (32, None), (128, None), (None, 3)])
def test_render_that_keeps_the_range_or_knows_channels(elevations, known, precision):
    """64 samples along each of 64 x 64 rays, as in srn128. The forward pass repeats bit by bit."""
    rays = some_rays(2, 4096, 64)
    options = {"elevations": elevations, "known": None if known is None else some_known(known, rays, 2)}
    run = functools.partial(render, rays, **options)
    inputs = (some_volume(2, 16, precision, size=(32, 32, 64)), *some_field(16, 64))
    assert torch.equal(run(*inputs), run(*inputs))
    ours = errors(run, *inputs)
    with ops.reference_only(), autocast(precision == torch.bfloat16):
        plain = errors(run, *inputs)
    # In float32 the kernels' products are a little less exact than plain torch's. That flips one in a million of the
    # field's ReLUs, and so changes a gradient by a thousandth.
    limits = [1e-5, *[3e-3] * len(inputs)] if precision == torch.float32 else [2 * error for _, error in plain]
    assert all(error <= limit for (_, error), limit in zip(ours, limits, strict=True)), (ours, plain)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_volumes_of_fans_of_full_size_are_resampled(precision):
    places = PROJECTIONS["fan"].places(some_cameras(2).to(DEVICE), (64, 64, 64))
    volume = some_volume(1, 16, precision, size=(64, 64, 64))[:, 0]
    check(lambda volume: ops.resample_volume(volume, places), volume)


def network_outcome(bf16: bool) -> dict[str, Tensor]:
    """Feature images, denoised images and every weight's gradient, of a small network whose sizes suit the kernels."""
    config = small_config()
    encoder = dataclasses.replace(config.encoder, volume_channels=16)
    renderer = dataclasses.replace(config.renderer, hidden_channels=32)
    net = GeNVS(dataclasses.replace(config, encoder=encoder, renderer=renderer))
    randomize(net)
    net.to_device(DEVICE)
    batch = some_batch(2).to(DEVICE)
    keys = torch.arange(4, device=DEVICE)  # of 2 targets in each of 2 scenes; for jitter and dropout
    with autocast(bf16):
        volume = net.encode(batch.inputs.images)
        features = net.render(volume, batch.inputs.cameras, batch.targets.cameras, keys.view(2, 2)).flatten(0, 1)
        noisy = batch.targets.images.flatten(0, 1) + normal(4, 3, *features.shape[2:])
        denoised = net.denoise(noisy, torch.full((4, 1, 1, 1), 0.7, device=DEVICE), features, keys)
    loss = (denoised * normal(*denoised.shape, seed=1)).sum() + (features * normal(*features.shape, seed=2)).sum()
    loss.backward()
    results = dict(zip(IMAGES, (features.detach(), denoised.detach()), strict=True))
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        results[name] = parameter.grad
    return {name: result.double() for name, result in results.items()}


@pytest.fixture(scope="module")
def exact() -> dict[str, Tensor]:
    with ops.reference_only():
        return network_outcome(bf16=False)


@pytest.fixture
def without_plain_torch(monkeypatch):
    """Operations that have a kernel fail if they run as plain torch."""

    def fail(*args, **options):
        raise AssertionError("plain torch was called")

    # Not conv_epilogue, which is plain torch where it has no bias.
    for name in ("render", "resample_volume", "group_norm_silu", "downsample", "upsample", "concat"):
        monkeypatch.setattr(ops.reference, name, fail)


def distances(results: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Errors relative to each tensor's norm."""
    return {name: float((results[name] - x).norm() / x.norm()) for name, x in exact.items()}


def test_network_in_fp32(exact, without_plain_torch):
    found = distances(network_outcome(bf16=False), exact)
    assert all(found[name] < 1e-4 for name in IMAGES), found
    assert max(found.values()) < 1e-3, max(found.items(), key=lambda item: item[1])


def test_network_in_bf16(exact, without_plain_torch, monkeypatch):
    """As close to fp32 as plain torch in bf16."""
    ours = distances(network_outcome(bf16=True), exact)
    monkeypatch.undo()
    with ops.reference_only():
        plain = distances(network_outcome(bf16=True), exact)
    assert all(ours[name] < 1.5 * plain[name] for name in IMAGES)
    # The error of a single small gradient is random; that of all together is not.
    assert max(ours.values()) < 2 * max(plain.values())
    assert sum(ours.values()) < 1.5 * sum(plain.values())


@pytest.mark.parametrize("side", [4, 8, 16])
def test_gradients_of_attention_are_right_where_all_scores_are_low(side):
    """Trained networks have scores of -200; with fewer than 128 pixels, gradients by cuDNN can then be NaN."""
    attention = UNetBlock(256, 256, 8, dropout=0.0, attention=True).attention
    randomize(attention)
    with torch.no_grad():
        attention.qkv.weight[:2], attention.qkv.bias[:2] = 0, torch.tensor([57.0, -57.0])  # a channel of q, one of k
    attention.to(DEVICE)
    x = normal(8, 256, side, side).requires_grad_()
    upstream = normal(8, 256, side, side, seed=1)

    def gradients(bf16: bool) -> tuple[Tensor, ...]:
        with autocast(bf16):
            drawn = attention(x)
        return torch.autograd.grad(drawn.float(), (x, *attention.parameters()), upstream)

    for ours, exact in zip(gradients(True), gradients(False), strict=True):
        assert (ours - exact).norm() < 0.05 * exact.norm()
