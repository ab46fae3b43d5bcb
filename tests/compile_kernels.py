"""Prints the names of all fused kernels that compile for an NVIDIA GPU, without such a GPU.

    python -m tests.compile_kernels 90

The number is the GPU's compute capability, as in sm_90. No kernel runs: operations on CPU tensors only compile them.
Triton's interpreter must be off.
"""

import functools
import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from genvs import ops
from tests.fused_checks import image, normal, render, some_field, some_known, some_places, some_rays, some_volume


class AbsentGPU:
    """The part of a driver that Triton needs to compile."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(capability: int) -> set[str]:
    """Make operations compile their kernels instead of running them. Returns a set that collects their names."""
    names: set[str] = set()
    run = JITFunction.run

    @functools.wraps(run)
    def compiled(self: JITFunction, *args: object, **options: object) -> object:
        kernel = run(self, *args, **options | {"warmup": True})  # type: ignore[arg-type]
        assert kernel.asm["cubin"], self
        names.add(self.__name__)
        return kernel

    JITFunction.run = compiled  # type: ignore[method-assign]
    driver.set_active(AbsentGPU(capability))  # type: ignore[arg-type]
    ops.uses_kernels = lambda x: True
    return names


def every_operation(precision: torch.dtype) -> None:
    """Forward and backward, in two sizes of `srn128` for which different kernels normalise."""
    whole, tiled = (image(1, 128, size, size, precision=precision).requires_grad_() for size in (8, 128))
    weight, bias, keys = normal(128).requires_grad_(), normal(128).requires_grad_(), torch.zeros(1, dtype=torch.int64)
    settings, shift = ops.NormSettings(groups=32, eps=1e-5, dropout=0.1), normal(1, 128, precision=precision)
    norms = [ops.group_norm_silu(x, weight, bias, settings, shift, keys)[0] for x in (whole, tiled)]
    resampled = [ops.downsample(tiled), ops.upsample(whole), ops.concat(whole, whole)]
    epilogues = [ops.conv_epilogue(whole, bias, residual=whole, scale=0.7, relu=True)]
    volume, field = some_volume(2, 16, precision), some_field(16, 64)
    scene, rays = [x.requires_grad_() for x in (volume, *field)], some_rays(2, 128)
    known = some_known(3, rays, 2)
    # Summed over half a tile of rays and over two, with and without known channels.
    variants = [(None, None), (None, known), (32, None), (128, known)]
    rendered = [render(rays, *scene, elevations=elevations, known=given) for elevations, given in variants]
    resampled += [ops.resample_volume(volume[:, 0], some_places(2, 4, 6, 7))]
    results = norms + resampled + epilogues + rendered
    torch.autograd.backward(results, [torch.zeros_like(x) for x in results])


if __name__ == "__main__":
    compiled = compile_only(int(sys.argv[1]))
    every_operation(torch.bfloat16)
    print(*sorted(compiled), sep="\n")
