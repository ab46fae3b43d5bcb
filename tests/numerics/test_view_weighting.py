"""View weightings: the published numbers, properties that all methods share, and cameras that coincide."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from genvs.config import LEARNED_VIEW_WEIGHTINGS, VIEW_WEIGHTINGS, parse_view_weighting
from genvs.errors import InputError
from genvs.geometry import to_opencv
from genvs.models import GeNVS
from genvs.models.view_weighting import make_view_weighting
from genvs.ops.reference import MIN_WEIGHT_SUM
from tests.small_model import small_net, some_batch, some_cameras

NAMES = [name.replace("=A", "=0.3").replace("=B", "=2") for name in VIEW_WEIGHTINGS]
# With these, a view at the target's own camera has all the weight. Other methods only favour it.
INVERSE = ["distance", "distance_squared", "distance_cubed", "l1_weighting", "f_norm_weighting"]
INVERSE += ["error_weighting_alpha=0", "error_weighting_alpha=0.3", "error_weighting_alpha=1"]


def weighting_of(name: str):
    torch.manual_seed(0)
    return make_view_weighting(name)


def test_weights_are_the_published_ones():
    """All thirteen, for the published poses and weights."""
    with np.load(Path(__file__).parents[1] / "data" / "unofficial.npz") as arrays:
        expected = {name.removeprefix("weighting/"): arrays[name] for name in arrays.files if "weighting/" in name}
    poses = (to_opencv(torch.from_numpy(expected[f"{kind}_poses"]), "opengl") for kind in ("input", "target"))
    inputs, targets = (dataclasses.replace(some_cameras(*c2w.shape[:2]), c2w=c2w) for c2w in poses)
    names = [name.removeprefix("w/") for name in expected if name.startswith("w/")]
    assert len(names) == 13
    for name in names:
        weighting = make_view_weighting(name)
        if isinstance(weighting, nn.Module):
            start = f"sd/{name}/"
            state = {key.removeprefix(start): expected[key] for key in expected if key.startswith(start)}
            weighting.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
        weights = torch.from_numpy(expected[f"w/{name}"]).mT  # its input views come first
        assert_close(weighting(inputs, targets), weights, rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_weights_sum_to_one_and_go_with_their_views(name):
    inputs, targets, weighting = some_cameras(4, 3), some_cameras(4, 5, seed=1), weighting_of(name)
    weights = weighting(inputs, targets)
    assert weights.shape == (4, 5, 3) and (weights >= 0).all()
    assert_close(weights.sum(dim=-1), torch.ones(4, 5))
    order = torch.tensor([2, 0, 1])
    assert_close(weighting(inputs[:, order], targets), weights[..., order], rtol=1e-4, atol=1e-6)
    assert_close(weighting(inputs[1:2], targets[1:2, 3:]), weights[1:2, 3:], rtol=1e-4, atol=1e-6)
    assert_close(weighting(inputs[:, :1], targets), torch.ones(4, 5, 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("picked", "shift"), [([0, 1, 2], 0), ([0, 0, 1], 0), ([0, 0, 0], 0), ([0, 1, 2], 1e4)])
def test_coinciding_and_far_cameras_give_finite_weights_and_gradients(name, picked, shift):
    targets = some_cameras(1, 3)
    c2w = targets.c2w[:, picked].clone()
    c2w[..., :3, 3] += shift
    c2w.requires_grad_()
    weights = weighting_of(name)(dataclasses.replace(targets, c2w=c2w), targets[:, :1])
    assert weights.isfinite().all()
    assert_close(weights.sum(dim=-1), torch.ones(1, 1))
    if name != "baseline_mean":  # has constant weights
        (weights * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
        assert c2w.grad is not None and c2w.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_no_view_vanishes(name):
    """A view that is far away may be the only one that sees a point. Its weight is then divided by itself."""
    base = some_cameras(1, 3)
    c2w = base.c2w.clone()
    c2w[:, 0, :3, 3] *= 1e3
    weights = weighting_of(name)(dataclasses.replace(base, c2w=c2w), base[:, 1:2])
    assert weights.min() > 100 * MIN_WEIGHT_SUM


@pytest.mark.parametrize("name", INVERSE)
def test_the_targets_own_view_has_all_the_weight_and_two_share_it(name):
    inputs, weighting = some_cameras(1, 3), make_view_weighting(name)
    assert_close(weighting(inputs, inputs[:, 1:2]), torch.tensor([[[0.0, 1.0, 0.0]]]), rtol=0, atol=1e-5)
    twice = weighting(inputs[:, [1, 0, 1]], inputs[:, 1:2])
    assert_close(twice, torch.tensor([[[0.5, 0.0, 0.5]]]), rtol=0, atol=1e-5)
    assert_close(weighting(inputs[:, [1, 1, 1]], inputs[:, 1:2]), torch.full((1, 1, 3), 1 / 3))


@pytest.mark.parametrize("name", LEARNED_VIEW_WEIGHTINGS)
def test_autocast_does_not_reach_learned_weightings(name):
    inputs, targets, weighting = some_cameras(2, 3), some_cameras(2, 2, seed=1), weighting_of(name)
    expected = weighting(inputs, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(weighting(inputs, targets), expected)


@pytest.mark.parametrize("name", ["", "nearness", "distance=1", "distance_gaussian_b", "distance_gaussian_b=inf"])
def test_unknown_names_and_numbers_out_of_range_are_refused(name):
    with pytest.raises(InputError, match=f"{name!r}: "):
        parse_view_weighting(name)


def test_both_spellings_are_known():
    assert parse_view_weighting("l1_weighing") == ("l1_weighting", None)
    assert parse_view_weighting("error_weighing_alpha=0.5") == ("error_weighting_alpha", 0.5)


def test_a_network_may_weigh_views_by_another_method_than_it_was_trained_with():
    net, batch = small_net(), some_batch(1, num_inputs=2)
    volume, cameras = net.encode(batch.inputs.images), (batch.inputs.cameras, batch.targets.cameras)
    before = net.render(volume, *cameras)
    net.set_view_weighting("distance_cubed")
    assert net.config.view_weighting == "distance_cubed" and not torch.equal(net.render(volume, *cameras), before)
    net.set_view_weighting("baseline_mean")
    assert torch.equal(net.render(volume, *cameras), before)
    with pytest.raises(InputError, match="has weights"):
        net.set_view_weighting("learned_cross_attention")
    learned = GeNVS(dataclasses.replace(net.config, view_weighting="learned_cross_attention"))
    own = learned.renderer.view_weights
    learned.set_view_weighting("learned_cross_attention")
    assert learned.renderer.view_weights is own
    learned.set_view_weighting("distance")
    assert not any("view_weights" in name for name in learned.state_dict())
