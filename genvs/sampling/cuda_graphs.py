"""Functions of tensors as CUDA graphs: on a GPU a call starts all their kernels at once."""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from genvs import ops

WARM_UP = 3  # calls before a recording, in which libraries choose their algorithms

T = TypeVar("T")


class Recorder:
    """Records CUDA graphs that share one pool of memory. Replay graphs that use each other's results in that order."""

    def __init__(self, device: torch.device) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def warm_up(self, function: Callable[[], object]) -> None:
        """Compile the kernels of `function`, and call it a few times on the stream of the recording."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            ops.compile_kernels(function)
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, function: Callable[[], T]) -> tuple[T, torch.cuda.CUDAGraph]:
        """The result of `function`, which each replay overwrites, and the graph. Raises what `function` raises."""
        graph = torch.cuda.CUDAGraph()
        failure: Exception | None = None
        try:
            # Calls from other threads, such as those that pin memory, do not disturb the recording.
            how: dict[str, Any] = {"pool": self._pool, "stream": self._stream, "capture_error_mode": "thread_local"}
            with without_collections(), torch.cuda.graph(graph, **how):
                try:
                    result = function()
                except Exception as error:
                    failure = error
        finally:  # after a failure, ending the recording may fail too
            if failure is not None:
                raise failure
        return result, graph


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Python collects no garbage. An older graph that is freed during a recording would break it (pytorch 161037)."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source to its target, those of one dtype at a time: a mixed list is copied one by one."""
    for dtype in {source.dtype for source in sources}:
        chosen = [number for number, source in enumerate(sources) if source.dtype == dtype]
        torch._foreach_copy_([targets[number] for number in chosen], [sources[number] for number in chosen])


class CUDAGraphed:
    """A function from tensors to a tensor, without gradients.

    On a GPU the first call with each shape records a CUDA graph, which later calls replay. A graph always reads and
    writes the same memory, so every call copies its inputs and its result. On other devices `function` is called.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        # By shapes and dtypes of the inputs: the graph's own inputs, its result, and the graph.
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
            copy_all(own, inputs)
            graph.replay()
            return output.clone()
