"""Checks `only_compiling` without a GPU, for which Triton can compile, but where it fails to start a kernel.

    python -m tests.compile_ahead

Triton's interpreter must be off.
"""

import threading

import pytest
import torch
import triton
from triton.compiler.errors import CompilationError
from triton.runtime import driver

from genvs import ops
from genvs.ops.triton_kernels import compile_ahead
from genvs.ops.triton_kernels.compile_ahead import only_compiling
from tests.compile_kernels import AbsentGPU


@triton.jit
def wrong_kernel(x_ptr):
    no_such_function(x_ptr)  # noqa: F821


def check_that_it_starts(x: torch.Tensor) -> None:
    with pytest.raises(AttributeError, match="launcher"):
        ops.upsample(x)


def check_that_each_is_compiled_once_and_not_run(x: torch.Tensor) -> None:
    compiled = []
    triton.knobs.compilation.listener = lambda *, src, **given: compiled.append((src.name, threading.current_thread()))
    with only_compiling():
        for operation in (ops.downsample, ops.upsample, ops.downsample):
            thread = threading.Thread(target=operation, args=[x])  # as a backward pass has one of its own
            thread.start()
            thread.join()
        ops.upsample(x)
    names, threads = zip(*compiled, strict=True)
    assert sorted(names) == ["downsample_kernel", "upsample_kernel"]
    assert all("ThreadPool" in thread.name for thread in threads)
    check_that_it_starts(x)
    assert len(compiled) == 2


def check_that_errors_are_raised(x: torch.Tensor) -> None:
    """And that what was still to be compiled then is compiled later."""
    compile_ahead.usable_cores = lambda: 1
    with pytest.raises(CompilationError), only_compiling():
        wrong_kernel[1,](x)
        for operation in (ops.concat, ops.downsample, ops.upsample):
            operation(x)
    with pytest.raises(CompilationError):
        wrong_kernel[1,](x)
    check_that_it_starts(x)


if __name__ == "__main__":
    ops.uses_kernels = lambda x: True
    driver.set_active(AbsentGPU(90))
    check_that_each_is_compiled_once_and_not_run(torch.zeros(1, 32, 8, 8))
    check_that_errors_are_raised(torch.zeros(1, 32, 8, 8, dtype=torch.bfloat16))
