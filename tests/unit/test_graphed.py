"""The parts of a training step that become CUDA graphs. On a CPU they are plain functions."""

import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch.func import functional_call

from genvs.config import GeNVSConfig
from genvs.errors import InputError
from tests.conftest import ROOT
from tests.small_model import small_net, some_batch
from tests.small_training import small_run
from training import graphed
from training.loss import GeNVSLoss


def arguments(net, num_inputs: int = 2) -> dict:
    """The arguments with which the loss calls the network."""
    given = {}

    def keep(**kwargs):
        given.update(kwargs)
        return net(**kwargs)

    GeNVSLoss(small_run("nowhere").loss, GeNVSConfig(), 0)(keep, some_batch(3, num_inputs))
    return given


def test_the_parts_are_the_forward_pass_and_leave_the_weights_alone():
    """With gradients for copies of the weights, as graphs are recorded."""
    net = small_net().train()
    given = arguments(net)
    expected = net(**given)
    sum(output.square().mean() for output in expected).backward()
    gradients = {parameter: parameter.grad for parameter in net.parameters()}
    state_names = list(net.state_dict())
    net.zero_grad(set_to_none=True)
    for parameter in net.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: pytest.fail("a hook has run"))

    render, denoise = graphed.parts_of(net)
    stand_ins = [{n: p.detach().requires_grad_() for n, p in part.named_parameters()} for part in (render, denoise)]
    names = (graphed.RENDER_ARGUMENTS, graphed.DENOISE_ARGUMENTS)
    views, others = (tuple(given[name] for name in part) for part in names)
    feature_image = functional_call(render, stand_ins[0], views)
    denoised = functional_call(denoise, stand_ins[1], (feature_image, *others))
    torch.testing.assert_close((denoised, feature_image), expected, rtol=0, atol=0)
    leaves = [*stand_ins[0].values(), *stand_ins[1].values()]
    found = torch.autograd.grad(denoised.square().mean() + feature_image.square().mean(), leaves)

    own = [*render.parameters(), *denoise.parameters()]
    assert len(own) == len(set(own)) == len(list(net.parameters())) and set(own) == set(net.parameters())
    for parameter, gradient in zip(own, found, strict=True):
        torch.testing.assert_close(gradient, gradients[parameter], rtol=0, atol=0)
    assert list(net.state_dict()) == state_names and all(parameter.grad is None for parameter in net.parameters())


def cuda_error(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError(f"CUDA error {code}\nCompile with more checks")
    error.error_code = code
    return error


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate more")
NOT_PERMITTED, ILLEGAL_ADDRESS = cuda_error(900), cuda_error(700)  # only a recording can cause the first


@pytest.mark.parametrize(
    "error", [OUT_OF_MEMORY, NOT_PERMITTED, RuntimeError("a bug"), KeyError("a typo"), ILLEGAL_ADDRESS]
)
def test_what_cuda_cannot_record_is_one_line_and_a_bug_stays_the_error_that_it_is(monkeypatch, error):
    # Without a GPU: calls the function before its recording.
    monkeypatch.setattr(graphed, "Recorder", lambda device: SimpleNamespace(warm_up=lambda function: function()))
    net = small_net()
    module, given = graphed.GraphedGeNVS(net), arguments(net, num_inputs=3)
    monkeypatch.setattr(net, "render", mock.Mock(side_effect=error))
    cannot_record = error in (OUT_OF_MEMORY, NOT_PERMITTED)
    with pytest.raises(InputError if cannot_record else type(error)) as caught:
        module(**given)
    if cannot_record:
        assert caught.value.__cause__ is error and "\n" not in str(caught.value)
        for part in ("3 input views", f"({str(error).splitlines()[0]})", "`cuda_graphs`=False", "`batch_gpu`"):
            assert part in str(caught.value)
    else:
        assert caught.value is error


@pytest.mark.parametrize("shape", [(6, 4, 1, 1), (6, 4, 3, 3), (6, 1, 3, 3), (5,)])
@pytest.mark.parametrize("leaf_dtype", [torch.float32, torch.bfloat16])
def test_gradients_take_the_layout_of_their_weights_and_are_copied_in_lists_of_one_dtype(shape, leaf_dtype):
    gradient = torch.randn(shape, dtype=leaf_dtype)
    leaf = torch.empty(shape, dtype=leaf_dtype)
    leaf = leaf.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else leaf
    laid_out = graphed.in_layout_of(leaf, gradient)
    assert laid_out.stride() == leaf.stride() and torch.equal(laid_out, gradient)
    assert (laid_out.data_ptr() == gradient.data_ptr()) == (shape not in [(6, 4, 3, 3)])
    others = [torch.randn(3), torch.randn(2, dtype=torch.bfloat16), laid_out]
    targets = [torch.empty_like(other, dtype=torch.float32) for other in others]
    graphed.copy_all(targets, others)
    assert all(torch.equal(target, other.float()) for target, other in zip(targets, others, strict=True))


def test_a_gradient_reaches_the_leaves_without_the_compiler():
    """Which torch.autograd.grad imports where it is given a gradient."""
    code = """
import sys, torch
from training.graphed import WithGradient
weight = torch.tensor([2.0, 3.0], requires_grad=True)
(found,) = torch.autograd.grad(WithGradient.apply(weight**2, torch.tensor([1.0, 10.0])), [weight])
assert found.tolist() == [4.0, 60.0] and "sympy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
