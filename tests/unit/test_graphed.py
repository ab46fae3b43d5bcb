"""The parts of a training step that become CUDA graphs: on a CPU they are plain functions."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call

from genvs.errors import InputError
from genvs.models import GeNVS
from tests.small_model import randomize, small_net, some_batch, some_cameras
from tests.small_training import CPU, small_run
from training import graphed
from training.config import TrainConfig, resumed
from training.loss import GeNVSLoss
from training.parallel import training_net


def arguments(net, num_inputs: int = 2) -> dict:
    """What the loss gives the network."""
    given = {}

    def keep(**kwargs):
        given.update(kwargs)
        return net(**kwargs)

    GeNVSLoss(small_run("nowhere").loss, sigma_data=0.5, seed=0)(keep, some_batch(3, num_inputs))
    return given


def test_cameras_survive_being_taken_apart():
    cameras = some_cameras(2, 3)
    tensors = graphed.camera_tensors(cameras)
    assert len(tensors) == graphed.CAMERA_TENSORS and all(isinstance(tensor, torch.Tensor) for tensor in tensors)
    again = type(cameras)(*tensors)
    assert all(getattr(again, f.name) is getattr(cameras, f.name) for f in dataclasses.fields(cameras))


def test_the_parts_are_the_forward_pass_and_leave_the_weights_alone():
    """With gradients of stand-ins for the weights, as graphs are recorded."""
    net = small_net().train()
    given = arguments(net)
    expected = net(**given)
    sum(output.square().mean() for output in expected).backward()
    gradients = {parameter: parameter.grad for parameter in net.parameters()}
    names = list(net.state_dict())
    net.zero_grad(set_to_none=True)
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: pytest.fail("a hook has run"))

    render, denoise = graphed.parts_of(net)
    stand_ins = [{n: p.detach().requires_grad_() for n, p in part.named_parameters()} for part in (render, denoise)]
    views = [given["input_images"], given["keys"]]
    views += [tensor for name in ("inputs", "targets") for tensor in graphed.camera_tensors(given[name])]
    feature_image = functional_call(render, stand_ins[0], tuple(views))
    others = tuple(given[name] for name in ("noisy", "sigma", "keep_conditioning", "keys"))
    denoised = functional_call(denoise, stand_ins[1], (feature_image, *others))
    torch.testing.assert_close((denoised, feature_image), expected, rtol=0, atol=0)
    leaves = [*stand_ins[0].values(), *stand_ins[1].values()]
    found = torch.autograd.grad(denoised.square().mean() + feature_image.square().mean(), leaves)

    own = [*render.parameters(), *denoise.parameters()]
    assert len(own) == len(set(own)) == len(list(net.parameters())) and set(own) == set(net.parameters())
    for parameter, gradient in zip(own, found, strict=True):
        torch.testing.assert_close(gradient, gradients[parameter], rtol=0, atol=0)
    assert list(net.state_dict()) == names and all(parameter.grad is None for parameter in net.parameters())


def test_conditioning_that_is_dropped_has_no_effect_and_no_gradient():
    net = small_net()
    given = arguments(net)
    given["keep_conditioning"] = torch.tensor([[True, False]] * 3)
    others = [given[name] for name in ("noisy", "sigma", "keep_conditioning", "keys")]
    feature_image = net(**given)[1].detach()
    broken = feature_image.clone()
    broken[:, 1] = torch.nan
    denoised = net.denoise_targets(broken.requires_grad_(), *others)
    torch.testing.assert_close(denoised, net.denoise_targets(feature_image, *others), rtol=0, atol=0)
    denoised.sum().backward()
    assert (broken.grad[:, 1] == 0).all() and (broken.grad[:, 0] != 0).any()


def test_without_a_gpu_training_calls_the_network_itself():
    net = small_net()
    assert training_net(net, small_run("nowhere", cuda_graphs=True), CPU) is net


class RunAtOnce:
    """In place of a recorder, where there is no GPU: what it is given runs once, and nothing is replayed."""

    def warm_up(self, function) -> None:
        function()

    def record(self, function) -> tuple:
        return function(), SimpleNamespace(replay=lambda: None)


def test_what_is_frozen_gets_no_gradient():
    """As with --only_train_cam_weighter: all but the view weighting's are None, and are not computed."""
    config = dataclasses.replace(small_net().config, view_weighting="learned_cross_attention")
    net = GeNVS(config).train().requires_grad_(False)
    randomize(net)
    weighter = net.renderer.view_weights.requires_grad_(True)
    given = arguments(net)
    views = [given["input_images"], given["keys"]]
    views += [tensor for name in ("inputs", "targets") for tensor in graphed.camera_tensors(given[name])]
    part, recorder = graphed.parts_of(net)[0], RunAtOnce()
    assert [name for name, weight in part.weights.items() if weight.requires_grad] == [
        f"others.0.view_weights.{name}" for name, _ in weighter.named_parameters()
    ]
    render = graphed.GraphedPart(part, views, recorder)
    render._output_gradient.fill_(1)
    render.record_backward(recorder)
    found = render.replay_backward(torch.ones_like(render.output))[len(views) :]
    (net(**given)[1]).sum().backward()
    for parameter, gradient in zip(part.parameters(), found, strict=True):
        assert (gradient is None) == (parameter.grad is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, parameter.grad)
    assert sum(gradient is not None for gradient in found) == len(list(weighter.parameters()))


class NoRecorder:
    """In place of one, where there is no GPU."""

    def __init__(self, device: torch.device) -> None: ...


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_a_step_that_cannot_be_recorded_is_one_line_that_says_what_to_do(monkeypatch, error):
    def fail(*args) -> None:
        try:
            raise error("CUDA out of memory.\nTried to allocate more")
        finally:
            raise RuntimeError("capturing was ended")

    monkeypatch.setattr(graphed, "Recorder", NoRecorder)
    monkeypatch.setattr(graphed, "GraphedPart", fail)
    net = small_net()
    module = graphed.GraphedGeNVS(net)
    assert [name for name, _ in module.named_parameters()] == [f"net.{name}" for name, _ in net.named_parameters()]
    assert copy.deepcopy(net).state_dict().keys() == net.state_dict().keys()
    with pytest.raises(InputError) as caught:
        module(**arguments(net, num_inputs=3))
    line = str(caught.value)
    assert "3 input views" in line and "(CUDA out of memory.)" in line
    assert "--cuda-graphs false" in line and "--batch-gpu" in line


def test_a_resumed_run_may_replay_or_not():
    saved = TrainConfig()
    assert saved.cuda_graphs and not resumed(saved, {"cuda_graphs": False}).cuda_graphs
