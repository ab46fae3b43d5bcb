"""Compiles kernels on all cores at once. Triton alone compiles each where it is first called, one after the other."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import triton
from triton.runtime.jit import JITFunction

from genvs.machine import get_local_world_size, usable_cores


@contextlib.contextmanager
def only_compiling() -> Iterator[None]:
    """Inside, Triton's kernels are compiled instead of run, whichever thread calls them; at the end, all are compiled.

    Raises the first error of a compilation. The kernels that remain after an error are compiled when they are called.
    """
    launcher, called = JITFunction.__getitem__, set[JITFunction]()
    # Triton keeps its mode in a context. On a GPU, a backward pass runs in a thread of its own, which does not have it.
    context = contextvars.copy_context()

    def compiler(kernel: JITFunction, grid: object) -> Callable[..., object]:
        called.add(kernel)
        return functools.partial(context.copy().run, kernel.run, grid=grid, warmup=True)

    # Processes of one machine share its cores.
    with ThreadPoolExecutor(max(1, usable_cores() // get_local_world_size())) as pool:
        mode = triton.AsyncCompileMode(pool)
        context.run(mode.__enter__)
        JITFunction.__getitem__ = compiler
        try:
            yield
            context.run(mode.__exit__, None, None, None)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # a signal that stops the run does not wait for them all
            for kernel in called:
                kernel.device_caches.clear()  # Triton 3.7 keeps what failed, and a later call would fail again
            raise
        finally:
            JITFunction.__getitem__ = launcher
