"""View weightings: the published numbers, what holds for all of them, and what happens where cameras coincide."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from genvs.config import LEARNED_VIEW_WEIGHTINGS, VIEW_WEIGHTINGS, GeNVSConfig, parse_view_weighting
from genvs.errors import InputError
from genvs.geometry import Cameras, to_opencv
from genvs.models.view_weighting import make_view_weighting
from genvs.ops.reference import MIN_WEIGHT_SUM
from tests.small_model import small_net, some_batch, some_cameras

NAMES = [name.replace("=A", "=0.3").replace("=B", "=2") for name in VIEW_WEIGHTINGS]
# Of these, a view whose camera is the target's own has all the weight; others only favour it.
INVERSE = ["distance", "distance_squared", "distance_cubed", "l1_weighting", "f_norm_weighting"]
INVERSE += ["error_weighting_alpha=0", "error_weighting_alpha=0.3", "error_weighting_alpha=1"]


def weighting_of(name: str):
    torch.manual_seed(0)
    return make_view_weighting(name)


def of_poses(opengl_c2w: np.ndarray) -> Cameras:
    c2w = to_opencv(torch.from_numpy(opengl_c2w), "opengl")
    plane = torch.ones(c2w.shape[:-2])
    return Cameras(c2w, torch.eye(3).expand(*c2w.shape[:-2], 3, 3), plane, 2 * plane)


def test_weights_are_the_published_ones():
    """All thirteen, by the published names, for the published poses and weights."""
    with np.load(Path(__file__).parents[1] / "data" / "unofficial.npz") as arrays:
        expected = {name.removeprefix("weighting/"): arrays[name] for name in arrays.files if "weighting/" in name}
    inputs, targets = (of_poses(expected[f"{kind}_poses"]) for kind in ("input", "target"))
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
@pytest.mark.parametrize("where", ["one view is the target", "two views are", "all are the same", "far away"])
def test_coinciding_and_far_cameras_give_finite_weights_and_gradients(name, where):
    base = some_cameras(1, 3)
    picked = {"two views are": [0, 0, 1], "all are the same": [0, 0, 0]}.get(where, [0, 1, 2])
    c2w = base.c2w[:, picked].clone()
    if where == "far away":
        c2w[..., :3, 3] += 1e4
    c2w.requires_grad_()
    inputs, targets = dataclasses.replace(base[:, picked], c2w=c2w), base[:, :1]
    weights = weighting_of(name)(inputs, targets)
    assert weights.isfinite().all()
    assert_close(weights.sum(dim=-1), torch.ones(1, 1))
    if name != "baseline_mean":  # whose weights are constants
        (weights * torch.tensor([1.0, 2.0, 4.0])).sum().backward()
        assert c2w.grad is not None and c2w.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_no_view_vanishes(name):
    """However far off, it may be the only one that sees a point: what all views of a point weigh divides them."""
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


def camera_at(distance: float, turn: float = 0.0) -> Tensor:
    """`[4, 4]`, away from the origin along x, turned about its own viewing axis."""
    c2w = torch.eye(4)
    c2w[:2, :2] = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    c2w[0, 3] = distance
    return c2w


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("distance", 2.0),
        ("distance_squared", 4.0),
        ("distance_cubed", 8.0),
        ("distance_gaussian_b=0.5", math.exp(0.5 * 3)),
        ("error_weighting_alpha=0", 2.0),
        ("error_weighting_alpha=1", 3.0),
        ("error_weighing_alpha=0.5", (1 + 0.75) / (0.5 + 0.25)),
        ("rel_cam_poses_l2", math.sqrt(8 / 5)),
        ("rel_cam_poses_f_norm", math.sqrt(8 / 5)),
    ],
)
def test_a_nearer_view_counts_for_more_by_the_formula(name, ratio):
    """Views at distances 1 and 2 from the target, turned by a quarter and three quarters of pi."""
    c2w = torch.stack([camera_at(1, math.pi / 4), camera_at(2, 3 * math.pi / 4)])
    cameras = dataclasses.replace(some_cameras(1, 3), c2w=torch.stack([camera_at(0), *c2w])[None])
    near, far = make_view_weighting(name)(cameras[:, 1:], cameras[:, :1]).flatten().tolist()
    assert near / far == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("name", ["rel_cam_poses_l2", "rel_cam_poses_f_norm"])
def test_on_a_rig_that_looks_at_the_origin_relative_poses_are_uniform(name):
    rig = some_cameras(1, 4, radius=1.3)
    weights = make_view_weighting(name)(rig[:, 1:], rig[:, :1])
    assert_close(weights, torch.full((1, 1, 3), 1 / 3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", LEARNED_VIEW_WEIGHTINGS)
def test_learned_weightings_learn_through_the_renderer(name):
    net = small_net()
    net = type(net)(dataclasses.replace(net.config, view_weighting=name))
    batch = some_batch(2, num_inputs=3)
    volume = net.encode(batch.inputs.images)
    image = net.render(volume, batch.inputs.cameras, batch.targets.cameras)
    image.square().sum().backward()
    learned = dict(net.renderer.view_weights.named_parameters())
    assert len(learned) >= 2
    for weight_name, parameter in learned.items():
        if weight_name != "weight_calculation_layer.bias":  # a softmax does not feel what is added to all
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, weight_name


def test_autocast_does_not_reach_learned_weightings():
    inputs, targets = some_cameras(2, 3), some_cameras(2, 2, seed=1)
    for name in LEARNED_VIEW_WEIGHTINGS:
        weighting = weighting_of(name)
        expected = weighting(inputs, targets)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(weighting(inputs, targets), expected)


@pytest.mark.parametrize(
    "name",
    ["", "nearness", "distance=1", "distance_gaussian_b", "distance_gaussian_b=", "distance_gaussian_b=x"]
    + ["distance_gaussian_b=-1", "distance_gaussian_b=inf", "error_weighting_alpha=1.1", "error_weighting_alpha=nan"],
)
def test_names_that_are_none_are_refused(name):
    with pytest.raises(InputError, match=".") as caught:
        GeNVSConfig(view_weighting=name)
    assert repr(name) in str(caught.value) and "\n" not in str(caught.value)


def test_both_spellings_are_known():
    assert parse_view_weighting("l1_weighing") == parse_view_weighting("l1_weighting") == ("l1_weighting", None)
    pair = [parse_view_weighting(f"{name}_alpha=0.5") for name in ("error_weighing", "error_weighting")]
    assert pair[0] == pair[1] == ("error_weighting_alpha", 0.5)


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
    learned = type(net)(dataclasses.replace(net.config, view_weighting="learned_cross_attention"))
    own = learned.renderer.view_weights
    learned.set_view_weighting("learned_cross_attention")
    assert learned.renderer.view_weights is own
    learned.set_view_weighting("distance")
    assert not any("view_weights" in name for name in learned.state_dict())
