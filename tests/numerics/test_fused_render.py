"""The fused renderer against plain torch, also where features are summed over elevations, and where a channel is known.

Triton's interpreter has no products of bfloat16: tests/gpu/test_fused_network.py tests these.
"""

import functools
import importlib
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from genvs import ops
from tests.fused_checks import DEVICE, check, errors, render, some_field, some_known, some_rays, some_volume

pytest.importorskip("triton", minversion="3.6" if DEVICE.type == "cuda" else "3.7", reason="as in test_fused_ops.py")
triton_render = importlib.import_module("genvs.ops.triton_kernels.render")
pytestmark = pytest.mark.usefixtures("kernels")


@pytest.mark.parametrize(
    ("views", "channels", "hidden", "num_rays", "options"),
    [
        (1, 16, 64, 36, {}),
        (2, 16, 32, 81, {}),
        (3, 32, 32, 50, {}),
        (1, 32, 64, 64, {}),
        (1, 16, 32, 36, {"size": (1, 1, 1)}),  # a voxel without neighbours to read, or to send gradients to
        (1, 16, 32, 80, {"elevations": 16}),  # four azimuths a program; the last program has one
        (1, 16, 64, 64, {"elevations": 32, "samples": 5}),
        (2, 32, 32, 64, {"elevations": 64}),
        (1, 16, 32, 128, {"elevations": 128}),  # two programs an azimuth
        (1, 32, 32, 32, {"elevations": 16, "known": (31, 1)}),
        (2, 16, 32, 20, {"known": (4, 1)}),
        (1, 16, 32, 70, {"known": (14, 2)}),
    ],
    ids=str,
)
def test_render(views, channels, hidden, num_rays, options):
    rays = some_rays(views, num_rays, options.get("samples", 3))
    first, count = options.get("known", (0, 0))
    known = some_known(first, rays, count) if count else None
    # Denser than at first, so that what lies in front hides a good deal, and backward must tell it from what does not.
    inputs = (some_volume(views, channels, size=options.get("size", (6, 7, 4))), *some_field(channels, hidden, 1.0))
    check(functools.partial(render, rays, elevations=options.get("elevations"), known=known), *inputs)


@pytest.mark.parametrize("elevations", [None, 16])
def test_a_known_channel_gives_the_volume_no_gradient_but_takes_its_part_in_the_densitys(elevations):
    """Where the field ignores its input, and only the known channel of the rendered features is looked at."""
    rays = some_rays(1, 32)
    volume, field = some_volume(1, 16).requires_grad_(), [torch.zeros_like(x) for x in some_field(16, 32)]
    field[-1].requires_grad_()
    rendered = render(rays, volume, *field, elevations=elevations, known=some_known(3, rays))
    dvolume, dbias = torch.autograd.grad(rendered[..., 3].sum(), [volume, field[-1]])
    assert (dvolume == 0).all() and (dbias[1:] == 0).all() and dbias[0] != 0


@pytest.mark.parametrize("elevations", [None, 32])
def test_empty_space_is_nothing(elevations):
    inputs = [x.requires_grad_() for x in (some_volume(1, 16), *some_field(16, 32, density=-40.0))]
    rendered = render(some_rays(1, 32, 4), *inputs, elevations=elevations)
    for result in (rendered, *torch.autograd.grad(rendered.sum(), inputs)):
        assert result.abs().max() < 1e-9


def test_gradients_are_finite_where_no_light_is_left():
    rays, inputs = some_rays(1, 32, 4), [x.requires_grad_() for x in (some_volume(1, 16), *some_field(16, 32, 60.0))]
    rendered = render(rays, *inputs, elevations=32)
    with ops.reference_only():
        expected = render(rays, *inputs, elevations=32)
    assert_close(rendered, expected, rtol=1e-5, atol=1e-5)
    ours, plain = (torch.autograd.grad(x.square().sum(), inputs) for x in (rendered, expected))
    assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_forward_repeats_bit_by_bit():
    rays, volume, field = some_rays(1, 96, 2), some_volume(1, 16), some_field(16, 32)
    once, again = (render(rays, volume, *field, elevations=32) for _ in range(2))
    assert torch.equal(once, again)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # where no view sees a point, and nothing is added
def test_half_precision_is_as_exact_as_plain_torch_in_autocast():
    rays = some_rays(1, 64, 2)
    run = functools.partial(render, rays, elevations=32, known=some_known(3, rays))
    inputs = (some_volume(1, 16, torch.float16), *some_field(16, 32))
    ours = errors(run, *inputs)
    with ops.reference_only(), torch.autocast(DEVICE.type, dtype=torch.float16):
        plain = errors(run, *inputs)
    assert all(error <= 2 * other for (_, error), (_, other) in zip(ours, plain, strict=True)), (ours, plain)


def test_render_where_no_view_counts_and_where_all_count_little():
    frusta, weights, *others = some_rays(2, 9)
    volume, field = some_volume(2, 16).requires_grad_(), some_field(16, 32)
    rendered = render([frusta, 0 * weights, *others], volume, *field)
    with ops.reference_only():
        assert_close(rendered, render([frusta, weights, *others], 0 * volume, *field), rtol=1e-5, atol=1e-6)
    assert (torch.autograd.grad(rendered.sum(), volume)[0] == 0).all()
    little = [frusta, weights * 1e-12, *others]
    check(functools.partial(render, little), volume.detach(), *field)
    assert_close(render(little, volume, *field), render([frusta, weights, *others], volume, *field))


def test_backward_sees_the_features_that_made_the_image():
    """In half precision the features kept for backward are rounded, so the forward pass must use them rounded too."""
    *_, depths, lengths = rays = some_rays(2, 36)
    volume = some_volume(2, 16, torch.float16).requires_grad_()
    field = [torch.zeros_like(x) for x in some_field(16, 32)]  # nothing but density; the features are the fused ones
    rendered = render(rays, volume, *field)
    fused = next(x for x in rendered.grad_fn.saved_tensors if x is not None and x.dtype == torch.float16)
    density = torch.full_like(depths, 10 * math.log1p(math.exp(-2.5)))
    fused = fused.float().transpose(2, 3)  # kept as [B, T, S, R, C]
    assert_close(rendered, ops.reference.composite(density, fused, lengths)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # where no view sees a point, and nothing is added
def test_gradients_of_volumes_add_up_in_float32_as_well(monkeypatch):
    """GPUs before Hopper need that."""
    volume, field, rays = some_volume(1, 16, torch.float16).requires_grad_(), some_field(16, 32), some_rays(1, 4)

    def gradient() -> Tensor:
        return torch.autograd.grad(render(rays, volume, *field).sum(), volume)[0]

    own = gradient()
    monkeypatch.setattr(triton_render, "_sums_dtype", lambda x: torch.float32)
    in_float32 = gradient()
    assert in_float32.dtype == torch.float16
    assert_close(in_float32, own, rtol=1e-2, atol=1e-2 * float(own.abs().max()))


# Which of the two runs


@pytest.mark.parametrize(("channels", "hidden"), [(8, 32), (16, 16), (12, 48), (64, 64)])
def test_sizes_that_the_kernel_does_not_support_are_rendered_by_plain_torch(calls, channels, hidden):
    render(some_rays(1, 4), some_volume(1, channels), *some_field(channels, hidden))
    assert calls == ["render"]


@pytest.mark.parametrize("number", range(6))
def test_where_rays_or_cameras_need_gradients_plain_torch_renders(calls, number):
    others = some_rays(1, 4)
    others[number].requires_grad_()
    rendered = render(others, some_volume(1, 16), *some_field(16, 32))
    assert calls == ["render"]
    # A single view's weight has no effect.
    assert torch.autograd.grad(rendered.sum(), others[number])[0].abs().max() > 0 or number == 1


@pytest.mark.parametrize("elevations", [1, 8, 24, 48, 96])
def test_numbers_of_elevations_that_the_kernel_does_not_support_are_rendered_by_plain_torch(calls, elevations):
    rendered = render(some_rays(1, 2 * elevations), some_volume(1, 16), *some_field(16, 32), elevations=elevations)
    assert calls == ["render"] and rendered.shape == (2, 2, 2, 3, 16)


def test_where_known_values_need_gradients_plain_torch_renders(calls):
    rays = some_rays(1, 4)
    known = some_known(3, rays)
    known.values.requires_grad_()
    rendered = render(rays, some_volume(1, 16), *some_field(16, 32), known=known)
    assert calls == ["render"]
    assert torch.autograd.grad(rendered.sum(), known.values)[0].abs().max() > 0
