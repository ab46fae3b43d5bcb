"""The network's part of a training step as CUDA graphs: thousands of kernels, which a CPU takes longer to start than a
GPU to run, start as four.

`torch.cuda.make_graphed_callables` does not serve here: it lets every other thread that talks to the GPU meanwhile (the
one that pins the loader's batches) spoil a recording, it differentiates the weights themselves, to which
DistributedDataParallel has tied work on another stream, and the gradients it returns change with the next replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS

WARM_UP = 3  # evaluations before a recording, in which libraries choose their algorithms and kernels are compiled
CAMERA_TENSORS = len(fields(Cameras))

T = TypeVar("T")


class GraphedGeNVS(nn.Module):
    """`GeNVS.forward` for training on a GPU: the same arguments, results and gradients.

    The first call of each shape records it, in the autocast that all calls are made in; later calls replay that. There
    are two parts, so that DistributedDataParallel, around this, sends the U-Net's gradients while the encoder's are
    computed. All shapes share one memory: a forward pass's backward pass comes before the next forward pass, and what
    a call returns holds until then. Weights are read where they are: they may change in place, but not move.

    Raises InputError where a shape cannot be recorded, most likely for want of memory.
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
        views = (input_images, keys, *camera_tensors(inputs), *camera_tensors(targets))
        others = (noisy, sigma, keep_conditioning, keys, *(() if labels is None else (labels,)))
        shapes = tuple(part.shape for part in (*views, *others))
        if shapes not in self._graphs:
            self._graphs[shapes] = self._record(views, others)
        render, denoise = self._graphs[shapes]
        feature_image = render(*views)
        return denoise(feature_image, *others), feature_image

    def _record(self, views: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[GraphedPart, GraphedPart]:
        # What autocast casts has to be in the graph, not taken from the casts that it keeps.
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        try:
            with torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
                # In the order in which they run: what one leaves in the shared memory, the next finds there.
                render = GraphedPart(self._parts[0], views, self._recorder)
                feature_image = render.output.detach().requires_grad_()
                denoise = GraphedPart(self._parts[1], (feature_image, *others), self._recorder)
                denoise.record_backward(self._recorder)
                render.record_backward(self._recorder)
        except RuntimeError as error:
            raise InputError(
                f"a step of {views[0].shape[1]} input views cannot be recorded as CUDA graphs ({first_cause(error)}): "
                "pass --cuda-graphs false, or a smaller --batch-gpu"
            ) from error
        return render, denoise


class Part(nn.Module):
    """A function of tensors, with the modules whose parameters it uses: a network, and others."""

    def __init__(self, function: Callable[..., Tensor], network: nn.Module, *others: nn.Module) -> None:
        super().__init__()
        self.function, self.network, self.others = function, network, nn.ModuleList(others)

    @functools.cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights to record with: what hangs on the parameters (DDP's hooks) stays out of the graphs.

        They need gradients where the parameters do, and share their memory, but for those that autocast would cast one
        by one, the products': `cast` makes these, all at once; so are their gradients cast on the way back.
        """
        weights = {name: w.detach().requires_grad_(w.requires_grad) for name, w in self.named_parameters()}
        if torch.is_autocast_enabled("cuda"):
            dtype, products = torch.get_autocast_dtype("cuda"), (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
            for name, module in self.network.named_modules(prefix="network"):
                if isinstance(module, products):
                    cast = module.weight.detach().to(dtype)
                    weights[f"{name}.weight"] = cast.requires_grad_(module.weight.requires_grad)
        return weights

    def cast(self) -> None:
        """Bring the casts of parameters up to date."""
        copies, originals = [], []
        for name, parameter in self.named_parameters():
            if self.weights[name].dtype != parameter.dtype:
                copies.append(self.weights[name].detach())
                originals.append(parameter.detach())
        if copies:
            torch._foreach_copy_(copies, originals)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def parts_of(net: GeNVS) -> tuple[Part, Part]:
    """What `GeNVS.forward` consists of: `render_views`, and `GeNVS.denoise_targets`."""
    render = Part(functools.partial(render_views, net), net.encoder, net.renderer)
    return render, Part(net.denoise_targets, net.denoiser)


def camera_tensors(cameras: Cameras) -> tuple[Tensor, ...]:
    """What `Cameras(*tensors)` puts together again."""
    return tuple(getattr(cameras, field.name) for field in fields(cameras))


def render_views(net: GeNVS, images: Tensor, keys: Tensor, *cameras: Tensor) -> Tensor:
    """Feature images `[B, T, C, H, W]` from input images. cameras: the tensors of the inputs', then the targets'."""
    inputs, targets = Cameras(*cameras[:CAMERA_TENSORS]), Cameras(*cameras[CAMERA_TENSORS:])
    return net.render(net.encode(images), inputs, targets, keys)


class GraphedPart:
    """A part's forward and backward pass as one CUDA graph each, which read and write where they were recorded."""

    def __init__(self, part: Part, examples: Sequence[Tensor], recorder: Recorder) -> None:
        """Records the forward pass; `record_backward` has to follow."""
        self._parameters = tuple(part.parameters())
        self._inputs = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in examples)
        self._leaves = [x for x in (*self._inputs, *part.weights.values()) if x.requires_grad]

        def run() -> Tensor:
            part.cast()
            return functional_call(part, part.weights, self._inputs)

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

    def __call__(self, *inputs: Tensor) -> Tensor:
        return Replay.apply(self, *inputs, *self._parameters)

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


class Recorder:
    """Records CUDA graphs that share memory. They must be replayed in the order in which they were recorded."""

    def __init__(self, device: torch.device) -> None:
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], object]) -> None:
        """Beside the default stream, as the recording will be."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, function: Callable[[], T]) -> tuple[T, torch.cuda.CUDAGraph]:
        """The graph, and where it leaves what `function` returned."""
        graph = torch.cuda.CUDAGraph()
        # What other threads ask of the GPU meanwhile is none of the recording's.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            result = function()
        return result, graph


def first_cause(error: BaseException) -> str:
    """The first line of what went wrong first: ending a recording that failed is an error as well."""
    while error.__context__ is not None:
        error = error.__context__
    return str(error).partition("\n")[0]
