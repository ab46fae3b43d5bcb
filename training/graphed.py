"""The network's part of a training step as four CUDA graphs, because starting its thousands of kernels one by one takes
a CPU longer than a GPU needs to run them.

`torch.cuda.make_graphed_callables` does not fit: its recording fails when another thread uses the GPU, such as the one
that pins batches; it differentiates the weights themselves, whose hooks work on another stream; and the next replay
overwrites the gradients that it returns.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.models.precision import autocast, cast_weights
from genvs.ops.sums import sum_together
from genvs.sampling.cuda_graphs import Recorder, copy_all

# CUDA's error codes that only a recording can cause, from cudaErrorStreamCaptureUnsupported to
# cudaErrorStreamCaptureWrongThread.
CAPTURE_ERRORS = range(900, 909)
ALIGNMENT = 128  # in numbers: 512 bytes of float32, as torch aligns separate tensors
# What the two parts of a step take of the arguments of `GeNVS.forward`; the second takes the feature image before them.
RENDER_ARGUMENTS = ("input_images", "inputs", "targets", "keys")
DENOISE_ARGUMENTS = ("noisy", "sigma", "keep_conditioning", "keys", "labels")

pytree.register_dataclass(Cameras)


class GraphedGeNVS(nn.Module):
    """`GeNVS.forward` for training on a GPU: the same arguments, results and gradients.

    The first call with each shape records the step, under the current autocast, which must stay the same; later calls
    replay it. There are two parts, so that ranks can send the U-Net's gradients while the encoder's are computed. All
    shapes share one pool of memory: run the backward pass before the next forward pass, which overwrites results.
    Weights are read in place: they may be updated, but not replaced.

    Raises InputError where a shape does not fit into memory or cannot be recorded.
    """

    def __init__(self, net: GeNVS) -> None:
        super().__init__()
        self.net = net
        self._parts = parts_of(net)
        self._recorder = Recorder(next(net.parameters()).device)
        self._graphs: dict[tuple[torch.Size, ...], tuple[GraphedPart, GraphedPart]] = {}

    def forward(self, **given: Any) -> tuple[Tensor, Tensor]:
        """given: all arguments of `GeNVS.forward`, by name."""
        to_render, to_denoise = (
            tuple(given[name] for name in names) for names in (RENDER_ARGUMENTS, DENOISE_ARGUMENTS)
        )
        shapes = tuple(tensor.shape for tensor in tensors_in((to_render, to_denoise)))
        if shapes not in self._graphs:
            try:
                self._graphs[shapes] = self._record(to_render, to_denoise)
            except RuntimeError as error:
                out_of_memory = isinstance(error, torch.OutOfMemoryError)
                if not out_of_memory and getattr(error, "error_code", None) not in CAPTURE_ERRORS:
                    raise  # a bug, which would fail without a recording too
                raise InputError(
                    f"a step of {given['input_images'].shape[1]} input views cannot be recorded as CUDA graphs "
                    f"({str(error).splitlines()[0]}): choose a smaller `batch_gpu`, or `cuda_graphs`=False"
                ) from error
        render, denoise = self._graphs[shapes]
        feature_image = render(to_render)
        return denoise((feature_image, *to_denoise)), feature_image

    def _record(self, to_render: tuple, to_denoise: tuple) -> tuple[GraphedPart, GraphedPart]:
        # Without autocast's cache: the graph must contain the casts that it uses.
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        with torch.enable_grad(), autocast(torch.device("cuda"), dtype, cache_enabled=False):
            # In the order in which they run, because each reads the results of the earlier ones from the pool.
            render = GraphedPart(self._parts[0], to_render, self._recorder)
            feature_image = render.output.detach().requires_grad_(render.learns)
            denoise = GraphedPart(self._parts[1], (feature_image, *to_denoise), self._recorder)
            denoise.record_backward(self._recorder)
            render.record_backward(self._recorder)
        return render, denoise


def tensors_in(arguments: tuple) -> list[Tensor]:
    """All tensors in nested tuples and dataclasses, without members that are None."""
    return [leaf for leaf in pytree.tree_leaves(arguments) if leaf is not None]


class Part(nn.Module):
    """A function of tensors and cameras, and the modules whose parameters it uses. Autocast applies to `network`."""

    def __init__(self, function: Callable[..., Tensor], network: nn.Module, *others: nn.Module) -> None:
        super().__init__()
        self.function, self.network, self.others = function, network, nn.ModuleList(others)

    @functools.cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights for the recording in place of the parameters, so that their hooks are not recorded.

        They share the parameters' memory, except those that autocast would cast one by one: `cast` updates all of these
        at once, and their gradients are cast back at once.
        """
        weights = {name: parameter.detach() for name, parameter in self.named_parameters()}
        if torch.is_autocast_enabled("cuda"):
            cast = cast_weights(self.network, torch.get_autocast_dtype("cuda"))
            weights |= {f"network.{name}": weight for name, weight in cast.items()}
        return {name: weights[name].requires_grad_(p.requires_grad) for name, p in self.named_parameters()}

    def cast(self) -> None:
        """Update the casts of parameters."""
        parameters = dict(self.named_parameters())
        cast = [name for name, weight in self.weights.items() if weight.dtype != parameters[name].dtype]
        copy_all([self.weights[name].detach() for name in cast], [parameters[name].detach() for name in cast])

    def forward(self, *arguments) -> Tensor:
        return self.function(*arguments)


def parts_of(net: GeNVS) -> tuple[Part, Part]:
    """The two halves of `GeNVS.forward`."""
    return Part(net.render_targets, net.encoders, net.renderer), Part(net.denoise_targets, net.denoisers)


class GraphedPart:
    """A part's forward and backward pass as one CUDA graph each, which read and write where they were recorded."""

    def __init__(self, part: Part, arguments: tuple, recorder: Recorder) -> None:
        """Records the forward pass; `record_backward` has to follow."""
        self.parameters = tuple(part.parameters())
        own = pytree.tree_map_only(Tensor, lambda x: x.detach().clone().requires_grad_(x.requires_grad), arguments)
        self.inputs = tensors_in(own)
        self._leaves = [x for x in (*self.inputs, *part.weights.values()) if x.requires_grad]

        def run() -> Tensor:
            part.cast()
            return functional_call(part, part.weights, own)

        self.learns = bool(self._leaves)  # False where all weights are frozen, as the encoder's in distillation
        recorder.warm_up(lambda: self._gradients_of(output := run(), torch.zeros_like(output)))
        self._differentiable, self.forward_graph = recorder.record(run)
        self.output = self._differentiable.detach()
        self.output_gradient = torch.zeros_like(self.output)

    def record_backward(self, recorder: Recorder) -> None:
        if self.learns:
            self.gradients, self.backward_graph = recorder.record(
                lambda: self._gradients_of(self._differentiable, self.output_gradient)
            )
        del self._differentiable, self._leaves  # frees the graph of autograd that they hold

    def _gradients_of(self, output: Tensor, gradient: Tensor) -> list[Tensor]:
        """Gradients of the inputs and weights that need one, each in the memory layout of its tensor."""
        if not self.learns:
            return []
        found = sum_together(lambda: torch.autograd.grad(WithGradient.apply(output, gradient), self._leaves))
        return list(map(in_layout_of, self._leaves, found))

    def __call__(self, arguments: tuple) -> Tensor:
        return Replay.apply(self, *tensors_in(arguments), *self.parameters)


class WithGradient(torch.autograd.Function):
    """A number whose gradient with respect to `output` is `gradient`.

    Given a gradient, torch.autograd.grad would import torch's compiler, which takes a second or more.
    """

    @staticmethod
    def forward(ctx, output: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return output.new_zeros(())

    @staticmethod
    def backward(ctx, _: Tensor):
        return ctx.gradient, None


class Replay(torch.autograd.Function):
    """A `GraphedPart` as autograd sees it: a function of its inputs and parameters."""

    @staticmethod
    def forward(ctx, part: GraphedPart, *tensors: Tensor) -> Tensor:
        ctx.part = part
        for own, given in zip(part.inputs, tensors, strict=False):  # after them come parameters, read in place
            own.copy_(given)
        part.forward_graph.replay()
        return part.output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        part = ctx.part
        part.output_gradient.copy_(gradient)
        part.backward_graph.replay()
        # Copies, because autograd stores the first gradient as the weight's, and adds the next round's to it. The
        # weights' lie in one tensor, which ranks can send as it is.
        copies = [torch.empty_like(x) for x in part.inputs if x.requires_grad]
        copies += in_one_tensor([weight for weight in part.parameters if weight.requires_grad])
        copy_all(copies, part.gradients)
        remaining = iter(copies)
        return None, *(next(remaining) if x.requires_grad else None for x in (*part.inputs, *part.parameters))


def in_one_tensor(like: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Tensors with the shapes and strides of `like`, not initialised, one after the other in one storage.

    Each begins at a multiple of ALIGNMENT numbers, because kernels for lists of tensors are slower where one does not.
    """
    sizes = (-(-each.numel() // ALIGNMENT) * ALIGNMENT for each in like)
    *starts, size = itertools.accumulate(sizes, initial=0)
    whole = torch.empty(size, dtype=dtype, device=like[0].device if like else None)
    return [whole.as_strided(x.shape, x.stride(), start) for x, start in zip(like, starts, strict=True)]


def in_layout_of(leaf: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with the strides of its leaf: torch works on lists of tensors one by one if strides differ.

    It is copied only if its numbers lie in another order. Strides along sides of length 1 do not count.
    """
    if gradient.squeeze().stride() != leaf.squeeze().stride():
        gradient = torch.empty_like(leaf).copy_(gradient)
    return gradient.as_strided(leaf.shape, leaf.stride())
