"""The fused renderer against plain torch where features are summed over elevations, and where a channel is known."""

import functools

import pytest
import torch
from torch.testing import assert_close

from genvs import ops
from tests.fused_checks import DEVICE, check, errors, render, some_field, some_known, some_rays, some_volume

pytest.importorskip("triton", minversion="3.6" if DEVICE.type == "cuda" else "3.7", reason="as in test_fused_ops.py")
pytestmark = pytest.mark.usefixtures("kernels")


@pytest.mark.parametrize(
    ("views", "channels", "hidden", "azimuths", "elevations", "known", "samples"),
    [
        (1, 16, 32, 5, 16, (), 3),  # four azimuths a program; the last program has one
        (1, 16, 64, 2, 32, (), 5),
        (2, 32, 32, 1, 64, (), 3),
        (1, 16, 32, 1, 128, (), 3),  # two programs an azimuth
        (1, 32, 32, 2, 16, (31, 1), 3),
        (2, 16, 32, 20, None, (4, 1), 3),
        (1, 16, 32, 70, None, (14, 2), 3),
    ],
)
def test_render(views, channels, hidden, azimuths, elevations, known, samples):
    rays = some_rays(views, azimuths * (elevations or 1), samples)
    options = {"elevations": elevations, "known": some_known(known[0], rays, known[1]) if known else None}
    # Denser than at first, so that what lies in front hides a good deal, and backward must tell it from what does not.
    inputs = (some_volume(views, channels), *some_field(channels, hidden, density=1.0))
    check(functools.partial(render, rays, **options), *inputs)


@pytest.mark.parametrize("elevations", [None, 16])
def test_a_known_channel_gives_the_volume_no_gradient_but_takes_its_part_in_the_densitys(elevations):
    """Where the field ignores its input, and only the known channel of the rendered features is looked at."""
    rays = some_rays(1, 32)
    volume, field = some_volume(1, 16).requires_grad_(), [torch.zeros_like(x) for x in some_field(16, 32)]
    field[-1].requires_grad_()
    rendered = render(rays, volume, *field, elevations=elevations, known=some_known(3, rays))
    dvolume, dbias = torch.autograd.grad(rendered[..., 3].sum(), [volume, field[-1]])
    assert (dvolume == 0).all() and (dbias[1:] == 0).all() and dbias[0] != 0


def test_opaque_and_empty_space():
    """Gradients are finite where no light is left, and zero where there is nothing."""
    rays = some_rays(1, 32, 4)
    for density in (60.0, -40.0):
        inputs = [x.requires_grad_() for x in (some_volume(1, 16), *some_field(16, 32, density=density))]
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
