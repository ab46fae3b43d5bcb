"""The denoiser made fast for many evaluations: bf16 weights and CUDA graphs on a GPU, channels last on a CPU."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genvs.models import GeNVS

WARM_UP = 3  # evaluations before a capture, in which libraries choose their algorithms and kernels are compiled


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is fast there; elsewhere, on CPUs and old GPUs, it would be emulated."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, bf16: bool) -> torch.autocast:
    """What a network runs in: bf16 where `bf16`, and its own precision where not, whatever the caller's own context."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False)


class FastDenoiser:
    """`GeNVS.denoise` for inference: the same arguments, the same result up to rounding, and no gradients.

    bf16: run under autocast, with weights that are converted once, here, instead of in every evaluation. Noise levels,
    what EDM's preconditioning adds and multiplies, and the result stay float32.

    On a GPU an evaluation is hundreds of kernels, which, as long as batches are small, take less time to run than a CPU
    takes to start them. So the first call of each shape records them in a CUDA graph, which later calls start as one. A
    graph reads its inputs where they were when it was recorded: every call copies its own there, and its result out.

    Weights are those that `net` has now: make another one after a change. The rest of the network stays at `net`.
    """

    def __init__(self, net: GeNVS, *, bf16: bool, labels: Tensor | None = None) -> None:
        """labels: `[1, L]`, what the network is told of all images (genvs.models.labels), for one that can be."""
        self.net, self.device, self.bf16 = net, next(net.parameters()).device, bf16
        self._denoise: nn.Module = net.denoiser
        if bf16:
            self._denoise = with_bf16_weights(net.denoiser)
        elif self.device.type == "cpu":
            # Faster by a tenth or more. Of a copy, because the network itself may learn again, and for channels last on
            # CPUs torch 2.13's backward damages its heap.
            self._denoise = copy.deepcopy(net.denoiser)
            self._denoise.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._labels = None if labels is None else labels.to(self.device, copy=True)
        self._graphs: dict[tuple, _Graph] = {}
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                # All graphs use the same memory: one runs at a time, and nothing in it outlives a call.
                self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def tell(self, labels: Tensor | None) -> None:
        """Tell the network other `labels` from now on, where it was told some at first; None changes nothing."""
        if labels is not None and self._labels is not None:
            self._labels.copy_(labels)

    @torch.inference_mode()
    def __call__(self, noisy: Tensor, sigma: Tensor, feature_image: Tensor) -> Tensor:
        """noisy: `[N, 3, H, W]`; sigma: a scalar or `[N, 1, 1, 1]`; feature_image: `[N, C, H, W]`.

        Returns the denoised `[N, 3, H, W]`, float32.
        """
        inputs = (noisy, sigma, feature_image)
        if self.device.type != "cuda":
            return self._evaluate(*inputs)
        with torch.cuda.device(self.device):
            key = tuple((part.shape, part.dtype) for part in inputs)
            if key not in self._graphs:
                self._graphs[key] = self._record(inputs)
            return self._graphs[key].replay(inputs)

    def _evaluate(self, noisy: Tensor, sigma: Tensor, feature_image: Tensor) -> Tensor:
        labels = None if self._labels is None else self._labels.expand(len(noisy), -1)
        with autocast(self.device, self.bf16):
            return self._denoise(noisy, sigma, feature_image, labels=labels)

    def _record(self, examples: tuple[Tensor, ...]) -> _Graph:
        inputs = tuple(part.clone() for part in examples)
        # Recording has to happen beside the default stream, and so the evaluations that prepare for it.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._evaluate(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            output = self._evaluate(*inputs)
        return _Graph(graph, inputs, output)


@dataclass(frozen=True)
class _Graph:
    """A recorded evaluation, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()


def with_bf16_weights(network: nn.Module) -> nn.Module:
    """A copy of `network` whose convolutions and linear layers have the weights that autocast would make of them.

    Under autocast it computes the same. Biases and norms, which fused operations may want in float32, stay as they are.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.weight = nn.Parameter(module.weight.detach().to(torch.bfloat16), requires_grad=False)
    return network
