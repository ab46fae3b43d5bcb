"""The parts of a training step that become CUDA graphs: on a CPU they are plain functions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch.func import functional_call

from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.sampling.cuda_graphs import Recorder
from tests.small_model import randomize, small_net, some_batch
from tests.small_training import CPU, small_run
from training import graphed
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


def parts_arguments(given: dict) -> tuple[tuple, tuple]:
    """What both parts take, but for the feature image."""
    views = ("input_images", "inputs", "targets", "keys")
    others = ("noisy", "sigma", "keep_conditioning", "keys", "labels")
    return tuple(given[name] for name in views), tuple(given[name] for name in others)


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
    views, others = parts_arguments(given)
    feature_image = functional_call(render, stand_ins[0], views)
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
    others = parts_arguments(given)[1]
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

    def __init__(self, device: torch.device = CPU) -> None: ...

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
    views, _ = parts_arguments(given)
    part, recorder = graphed.parts_of(net)[0], RunAtOnce()
    assert [name for name, weight in part.weights.items() if weight.requires_grad] == [
        f"others.0.view_weights.{name}" for name, _ in weighter.named_parameters()
    ]
    render = graphed.GraphedPart(part, views, recorder)
    render._output_gradient.fill_(1)
    render.record_backward(recorder)
    found = render.replay_backward(torch.ones_like(render.output))[len(graphed.tensors_in(views)) :]
    (net(**given)[1]).sum().backward()
    for parameter, gradient in zip(part.parameters(), found, strict=True):
        assert (gradient is None) == (parameter.grad is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, parameter.grad)
    assert sum(gradient is not None for gradient in found) == len(list(weighter.parameters()))


def cuda_error(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError(f"CUDA error {code}\nCompile with more checks")
    error.error_code = code
    return error


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate more")
NOT_PERMITTED, ILLEGAL_ADDRESS = cuda_error(900), cuda_error(700)  # of CUDA; the first is of recordings alone


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, NOT_PERMITTED])
def test_a_step_that_cannot_be_recorded_is_one_line_that_says_what_to_do(monkeypatch, error):
    monkeypatch.setattr(graphed, "Recorder", RunAtOnce)
    net = small_net()
    module, given = graphed.GraphedGeNVS(net), arguments(net, num_inputs=3)
    assert [name for name, _ in module.named_parameters()] == [f"net.{name}" for name, _ in net.named_parameters()]
    assert copy.deepcopy(net).state_dict().keys() == net.state_dict().keys()
    monkeypatch.setattr(net, "render", mock.Mock(side_effect=error))
    with pytest.raises(InputError) as caught:
        module(**given)
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)
    for part in ("3 input views", f"({str(error).splitlines()[0]})", "`cuda_graphs`=False", "`batch_gpu`"):
        assert part in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("a typo"), ILLEGAL_ADDRESS])
def test_a_bug_inside_a_step_stays_the_error_that_it_is(monkeypatch, error):
    monkeypatch.setattr(graphed, "Recorder", RunAtOnce)
    net = small_net()
    module, given = graphed.GraphedGeNVS(net), arguments(net)
    monkeypatch.setattr(net, "render", mock.Mock(side_effect=error))
    with pytest.raises(type(error)) as caught:
        module(**given)
    assert caught.value is error and any(entry.name == "render" for entry in caught.traceback)


def test_ending_a_failed_recording_does_not_hide_why_it_failed(monkeypatch):
    """CUDA reports a broken recording when it ends, after the error that broke it."""

    @contextlib.contextmanager
    def broken_recording(*args, **kwargs):
        yield
        raise NOT_PERMITTED

    for name, value in (("graph", broken_recording), ("CUDAGraph", mock.Mock()), ("Stream", mock.Mock())):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", mock.Mock())
    recorder = Recorder(CPU)
    with pytest.raises(ZeroDivisionError):
        recorder.record(lambda: 1 / 0)
    with pytest.raises(torch.AcceleratorError):
        recorder.record(lambda: 1)
