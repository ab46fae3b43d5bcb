"""The network's part of a training step as CUDA graphs: thousands of kernels, which take a CPU longer to start than a
GPU to run, start as four.

`torch.cuda.make_graphed_callables` does not fit: other threads that use the GPU meanwhile, such as the one that pins
batches, break its recording; it differentiates the weights themselves, whose hooks of DistributedDataParallel work on
another stream; and the gradients that it returns are overwritten by the next replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.models.precision import autocast, cast_weights
from genvs.sampling.cuda_graphs import Recorder

# CUDA's error codes that only a recording can cause, from cudaErrorStreamCaptureUnsupported to
# cudaErrorStreamCaptureWrongThread.
CAPTURE_ERRORS = range(900, 909)

pytree.register_dataclass(Cameras)


class GraphedGeNVS(nn.Module):
    """`GeNVS.forward` for training on a GPU: the same arguments, results and gradients.

    The first call of each shape records it, under the current autocast, which must stay the same; later calls replay
    it. There are two parts, so that DistributedDataParallel around this module sends the U-Net's gradients while the
    encoder's are computed. All shapes share one pool of memory: run the backward pass before the next forward pass,
    which overwrites results. Weights are read in place: they may be updated, but not replaced.

    Raises InputError where a shape does not fit into memory or cannot be recorded.
    """

    def __init__(self, net: GeNVS) -> None:
        super().__init__()
        self.net = net
        self._parts = parts_of(net)
        self._recorder = Recorder(next(net.parameters()).device)
        self._graphs: dict[tuple[torch.Size, ...], tuple[GraphedPart, GraphedPart]] = {}

    def forward(
        self,
        input_images: Tensor,
        inputs: Cameras,
        targets: Cameras,
        noisy: Tensor,
        sigma: Tensor,
        keep_conditioning: Tensor,
        keys: Tensor,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        views, others = (input_images, inputs, targets, keys), (noisy, sigma, keep_conditioning, keys, labels)
        shapes = tuple(tensor.shape for tensor in tensors_in((views, others)))
        if shapes not in self._graphs:
            try:
                self._graphs[shapes] = self._record(views, others)
            except RuntimeError as error:
                if not prevents_recording(error):
                    raise
                raise InputError(
                    f"a step of {input_images.shape[1]} input views cannot be recorded as CUDA graphs "
                    f"({str(error).splitlines()[0]}): choose a smaller `batch_gpu`, or `cuda_graphs`=False"
                ) from error
        render, denoise = self._graphs[shapes]
        feature_image = render(views)
        return denoise((feature_image, *others)), feature_image

    def _record(self, views: tuple, others: tuple) -> tuple[GraphedPart, GraphedPart]:
        # Without autocast's cache: the graph must contain the casts that it uses.
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        with autocast(torch.device("cuda"), dtype, cache_enabled=False):
            # In the order in which they run, because each finds in the pool what those before it have left there.
            render = GraphedPart(self._parts[0], views, self._recorder)
            feature_image = render.output.detach().requires_grad_()
            denoise = GraphedPart(self._parts[1], (feature_image, *others), self._recorder)
            denoise.record_backward(self._recorder)
            render.record_backward(self._recorder)
        return render, denoise


def prevents_recording(error: RuntimeError) -> bool:
    """Whether CUDA lacks memory or cannot record a step, so that the step may well run without a recording."""
    out_of_memory = isinstance(error, torch.OutOfMemoryError)
    return out_of_memory or getattr(error, "error_code", None) in CAPTURE_ERRORS


def tensors_in(arguments: tuple) -> list[Tensor]:
    """All tensors in nested tuples and dataclasses; the members that are None are left out."""
    return [leaf for leaf in pytree.tree_leaves(arguments) if leaf is not None]


class Part(nn.Module):
    """A function of tensors and cameras, with the modules whose parameters it uses: a network, and others."""

    def __init__(self, function: Callable[..., Tensor], network: nn.Module, *others: nn.Module) -> None:
        super().__init__()
        self.function, self.network, self.others = function, network, nn.ModuleList(others)

    @functools.cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights to record with in place of the parameters, so that these' hooks, which are DDP's, are not recorded.

        They share the parameters' memory, except those that autocast would cast one by one: `cast` makes all of these
        at once, and their gradients are cast back likewise.
        """
        weights = {name: parameter.detach() for name, parameter in self.named_parameters()}
        if torch.is_autocast_enabled("cuda"):
            cast = cast_weights(self.network, torch.get_autocast_dtype("cuda"))
            weights |= {f"network.{name}": weight for name, weight in cast.items()}
        return {name: weights[name].requires_grad_(p.requires_grad) for name, p in self.named_parameters()}

    def cast(self) -> None:
        """Bring the casts of parameters up to date."""
        parameters = dict(self.named_parameters())
        cast = [name for name, weight in self.weights.items() if weight.dtype != parameters[name].dtype]
        if cast:
            copies, originals = [self.weights[name].detach() for name in cast], [parameters[name] for name in cast]
            torch._foreach_copy_(copies, [parameter.detach() for parameter in originals])

    def forward(self, *arguments) -> Tensor:
        return self.function(*arguments)


def parts_of(net: GeNVS) -> tuple[Part, Part]:
    """The two halves of `GeNVS.forward`: its feature images, and `GeNVS.denoise_targets`."""

    def render(input_images: Tensor, inputs: Cameras, targets: Cameras, keys: Tensor) -> Tensor:
        return net.render(net.encode(input_images), inputs, targets, keys)

    return Part(render, net.encoder, net.renderer), Part(net.denoise_targets, net.denoiser)


class GraphedPart:
    """A part's forward and backward pass as one CUDA graph each, which read and write where they were recorded."""

    def __init__(self, part: Part, arguments: tuple, recorder: Recorder) -> None:
        """Records the forward pass; `record_backward` has to follow."""
        self._parameters = tuple(part.parameters())
        own = pytree.tree_map_only(Tensor, lambda x: x.detach().clone().requires_grad_(x.requires_grad), arguments)
        self._inputs = tensors_in(own)
        self._leaves = [x for x in (*self._inputs, *part.weights.values()) if x.requires_grad]

        def run() -> Tensor:
            part.cast()
            return functional_call(part, part.weights, own)

        recorder.warm_up(lambda: self._gradients_of(run()))
        self._differentiable, self._forward = recorder.record(run)
        self.output = self._differentiable.detach()
        self._output_gradient = torch.zeros_like(self.output)

    def record_backward(self, recorder: Recorder) -> None:
        self._gradients, self._backward = recorder.record(
            lambda: self._gradients_of(self._differentiable, self._output_gradient)
        )
        del self._differentiable, self._leaves  # frees the graph of autograd that they hold

    def _gradients_of(self, output: Tensor, gradient: Tensor | None = None) -> list[Tensor]:
        """Of inputs and weights that need one, each in the memory layout of what it belongs to."""
        gradient = torch.zeros_like(output) if gradient is None else gradient
        found = torch.autograd.grad(output, self._leaves, gradient)
        pairs = zip(found, self._leaves, strict=True)
        return [g if g.stride() == leaf.stride() else torch.empty_like(leaf).copy_(g) for g, leaf in pairs]

    def __call__(self, arguments: tuple) -> Tensor:
        return Replay.apply(self, *tensors_in(arguments), *self._parameters)

    def replay_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=False):  # parameters follow, which are read in place
            own.copy_(given)
        self._forward.replay()
        return self.output.detach()

    def replay_backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Gradients of all inputs and of all parameters, None where none is needed."""
        self._output_gradient.copy_(gradient)
        self._backward.replay()
        # Copies, because autograd keeps the first gradient that it gets as the weight's, and adds the next round's.
        copies = [torch.empty_like(x) if x.requires_grad else None for x in (*self._inputs, *self._parameters)]
        torch._foreach_copy_([copy for copy in copies if copy is not None], self._gradients)
        return copies


class Replay(torch.autograd.Function):
    """A `GraphedPart` as autograd sees it: a function of its inputs and parameters."""

    @staticmethod
    def forward(ctx, graphs: GraphedPart, *tensors: Tensor) -> Tensor:
        ctx.graphs = graphs
        return graphs.replay_forward(tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        return None, *ctx.graphs.replay_backward(gradient)
