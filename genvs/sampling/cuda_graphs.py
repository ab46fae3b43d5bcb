"""Functions of tensors as CUDA graphs: on a GPU a call starts all their kernels as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WARM_UP = 3  # calls before a recording, in which libraries choose their algorithms and kernels are compiled


class Recorded:
    """`function`, of tensors to a tensor, without gradients: the same result.

    On a GPU the first call of each shape records its kernels in a CUDA graph, which later calls start as one. A graph
    reads its inputs where they were when it was recorded: every call copies its own there, and its result out.
    Elsewhere `function` is called.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        self._graphs: dict[tuple, _Graph] = {}
        if device.type == "cuda":
            with torch.cuda.device(device):
                # All graphs use the same memory: one runs at a time, and nothing in it outlives a call.
                self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return self._function(*inputs)
        with torch.cuda.device(self._device):
            key = tuple((part.shape, part.dtype) for part in inputs)
            if key not in self._graphs:
                self._graphs[key] = self._record(inputs)
            return self._graphs[key].replay(inputs)

    def _record(self, examples: tuple[Tensor, ...]) -> _Graph:
        inputs = tuple(part.clone() for part in examples)
        # Recording has to happen beside the default stream, and so the calls that prepare for it.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            output = self._function(*inputs)
        return _Graph(graph, inputs, output)


@dataclass(frozen=True)
class _Graph:
    """A recorded call, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor

    def replay(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.output.clone()
