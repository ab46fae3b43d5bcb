"""Rendering on a CPU without gradients against plain torch."""

import pytest
import torch
from torch.testing import assert_close

from genvs import ops
from tests import fused_checks
from tests.fused_checks import render, some_field, some_known, some_rays, some_volume


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(fused_checks, "DEVICE", torch.device("cpu"))


@pytest.mark.parametrize(
    ("views", "channels", "elevations", "known", "size", "part"),
    [
        (1, 8, None, (), (6, 7, 4), 2**15),
        (3, 16, None, (3, 2), (6, 7, 4), 100),  # eight rays at a time
        (2, 16, 16, (), (2, 1, 3), 2**15),
        (2, 16, 16, (15, 1), (6, 7, 4), 1),  # one azimuth at a time
        (2, 16, None, (), (1, 1, 1), 100),
    ],
)
def test_render(views, channels, elevations, known, size, part, monkeypatch):
    monkeypatch.setattr(ops.cpu, "PART", part)
    rays = some_rays(views, 80)
    options = {"elevations": elevations, "known": some_known(known[0], rays, known[1]) if known else None}
    scene = (rays, some_volume(views, channels, size=size), *some_field(channels, 32, density=1.0))
    with torch.no_grad(), ops.reference_only():
        expected = render(*scene, **options)
    with torch.no_grad():
        assert_close(render(*scene, **options), expected, rtol=1e-5, atol=1e-5)


def test_plain_torch_renders_where_gradients_or_another_precision_are_asked_for(monkeypatch):
    fuse, made = ops.cpu.fuse_views, []
    monkeypatch.setattr(ops.cpu, "fuse_views", lambda *given: made.append(given) or fuse(*given))
    rays, *others = (some_rays(1, 16), some_volume(1, 8), *some_field(8, 32))
    render(rays, *others)
    with torch.no_grad():
        render([x.double() for x in rays], *(x.double() for x in others))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            render(rays, *others)
        with ops.reference_only():
            render(rays, *others)
        assert not made
        render(rays, *others)
        assert made


def test_a_volume_may_lie_in_memory_in_any_order():
    rays, volume, *field = (some_rays(2, 16), some_volume(2, 16), *some_field(16, 32))
    with torch.no_grad():
        assert torch.equal(render(rays, volume.contiguous(), *field), render(rays, volume, *field))
