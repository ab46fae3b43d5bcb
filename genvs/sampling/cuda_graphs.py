"""Functions of tensors as CUDA graphs: on a GPU a call starts all their kernels as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # calls before a recording, in which libraries choose their algorithms and kernels are compiled

T = TypeVar("T")


class Recorder:
    """Records CUDA graphs that share one pool of memory.

    Graphs that leave results for each other there must be replayed in the order in which they were recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], object]) -> None:
        """Call `function` a few times on the stream of the recording."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, function: Callable[[], T]) -> tuple[T, torch.cuda.CUDAGraph]:
        """What `function` returns, where each replay leaves its results, and the graph. Raises what `function` does."""
        graph = torch.cuda.CUDAGraph()
        failure: Exception | None = None
        try:
            # Calls of other threads, such as those that pin memory, do not spoil the recording.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                try:
                    result = function()
                except Exception as error:
                    failure = error
        finally:  # ending a recording in which something has failed may fail too
            if failure is not None:
                raise failure
        return result, graph


class CUDAGraphed:
    """`function`, of tensors to a tensor, without gradients: the same result.

    On a GPU the first call of each shape records its kernels in a CUDA graph, which later calls replay. A graph reads
    its inputs where they were during the recording: every call copies its inputs there, and its result out of there.
    On other devices `function` is called.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        # By shapes and dtypes of the inputs: where a graph reads and writes, and the graph.
        self._graphs: dict[tuple, tuple[tuple[Tensor, ...], Tensor, torch.cuda.CUDAGraph]] = {}
        self._recorder = Recorder(device) if device.type == "cuda" else None

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._recorder is None:
            return self._function(*inputs)
        with torch.cuda.device(self._device):
            key = tuple((part.shape, part.dtype) for part in inputs)
            if key not in self._graphs:
                own = tuple(part.clone() for part in inputs)
                self._recorder.warm_up(lambda: self._function(*own))
                self._graphs[key] = (own, *self._recorder.record(lambda: self._function(*own)))
            own, output, graph = self._graphs[key]
            for place, given in zip(own, inputs, strict=True):
                place.copy_(given)
            graph.replay()
            return output.clone()
