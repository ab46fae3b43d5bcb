"""The network's part of a training step as CUDA graphs: thousands of kernels, which a CPU takes longer to start than a
GPU to run, start as four.

`torch.cuda.make_graphed_callables` does not serve here: it lets every other thread that talks to the GPU meanwhile (the
one that pins the loader's batches) spoil a recording, it differentiates the weights themselves, to which
DistributedDataParallel has tied work on another stream, and the gradients it returns change with the next replay.
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

# CUDA's errors that a recording alone can cause: cudaErrorStreamCaptureUnsupported to cudaErrorCapturedEvent, and
# cudaErrorStreamCaptureWrongThread.
CAPTURE_ERRORS = range(900, 909)

pytree.register_dataclass(Cameras)


class GraphedGeNVS(nn.Module):
    """`GeNVS.forward` for training on a GPU: the same arguments, results and gradients.

    The first call of each shape records it, in the autocast that all calls are made in; later calls replay that. There
    are two parts, so that DistributedDataParallel, around this, sends the U-Net's gradients while the encoder's are
    computed. All shapes share one memory: a forward pass's backward pass comes before the next forward pass, and what
    a call returns holds until then. Weights are read where they are: they may change in place, but not move.

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
        # What autocast casts has to be in the graph, not taken from the casts that it keeps.
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        with autocast(torch.device("cuda"), dtype, cache_enabled=False):
            # In the order in which they run: what one leaves in the shared memory, the next finds there.
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
        """Weights to record with: what hangs on the parameters (DDP's hooks) stays out of the graphs.

        They need gradients where the parameters do, and share their memory, but for those that autocast would cast one
        by one, the products': `cast` makes these, all at once; so are their gradients cast on the way back.
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
        del self._differentiable, self._leaves  # and with them what they keep

    def _gradients_of(self, output: Tensor, gradient: Tensor | None = None) -> list[Tensor]:
        """With respect to inputs that need one and to weights, each laid out in memory as what it belongs to."""
        gradient = torch.zeros_like(output) if gradient is None else gradient
        found = torch.autograd.grad(output, self._leaves, gradient)
        pairs = zip(found, self._leaves, strict=True)
        return [g if g.stride() == leaf.stride() else torch.empty_like(leaf).copy_(g) for g, leaf in pairs]

    def __call__(self, arguments: tuple) -> Tensor:
        return Replay.apply(self, *tensors_in(arguments), *self._parameters)

    def replay_forward(self, tensors: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self._inputs, tensors, strict=False):  # parameters come last, and are where they are
            own.copy_(given)
        self._forward.replay()
        return self.output.detach()

    def replay_backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Gradients of all inputs and of all parameters, None where none is needed."""
        self._output_gradient.copy_(gradient)
        self._backward.replay()
        # Copies: autograd makes the first gradient that it gets the weight's own, and adds the next round's to it.
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
