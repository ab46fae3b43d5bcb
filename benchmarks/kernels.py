"""Where a training step's time on the GPU goes, by kind of kernel: what bounds it."""

from __future__ import annotations

from collections.abc import Iterator

import click
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import PRECISIONS, Meter, Result, benchmark, float32_products
from benchmarks.model import TrainingStep, in_memory_batches, training_config
from dnnlib.command import run_command

# A kernel is of the first kind that has one of these in its name.
KINDS = {
    "convolutions": ("cudnn", "xmma_fprop", "xmma_dgrad", "xmma_wgrad", "conv"),
    "matrix products": ("nvjet", "gemm", "cutlass", "splitK"),
    "optimizer, moving average, casts of weights": ("multi_tensor_apply",),
    "rendering": ("render_kernel", "field_gradient_kernel", "scatter_kernel"),
    "norms": (
        "norm_kernel",
        "norm_gradient_kernel",
        "apply_kernel",
        "sums_kernel",
        "coefficients_kernel",
        "input_gradient_kernel",
    ),
    "after convolutions": ("epilogue",),
    "resampling and joining": ("downsample", "upsample", "concat_kernel"),
    "sums": ("reduce_kernel",),
    "elementwise": ("elementwise",),
}
WARM_UP = 5


@click.option("--batch", type=click.IntRange(min=1), default=32)
@click.option("--views", type=click.IntRange(min=1), default=2, help="Input views of a sample.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="bf16", help="fp32 is strict.")
@benchmark("kernels")
def main(preset: str, meter: Meter, batch: int, views: int, precision: str) -> Iterator[Result]:
    """GPU time of one update, by kind of kernel, from torch's profiler."""
    if not meter.on_gpu:
        raise click.ClickException("no GPU: `kernels` looks at a GPU's")
    config = training_config(preset, batch=batch, views=views, precision=precision)
    with float32_products(precision):
        step = TrainingStep(config, in_memory_batches(config, meter.device), meter.device)
        for _ in range(WARM_UP):
            step()
        meter.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            step()
            meter.synchronize()
    kernels = [event for event in record.events() if event.device_type == DeviceType.CUDA]
    times: dict[str, list[float]] = {}
    for kernel in kernels:
        times.setdefault(kind_of(kernel.name), []).append(kernel.device_time / 1e3)
    whole = sum(map(sum, times.values()))
    yield Result("GPU time of an update", whole, "ms", precision, batch, note=f"{len(kernels)} kernels, {views} views")
    for kind, each in sorted(times.items(), key=lambda item: -sum(item[1])):
        note = f"{sum(each) / whole:.0%}, {len(each)} kernels"
        yield Result(f"GPU time of an update: {kind}", sum(each), "ms", precision, batch, note=note)


def kind_of(kernel: str) -> str:
    """A kind of KINDS, or "others"."""
    return next((kind for kind, marks in KINDS.items() if any(mark in kernel for mark in marks)), "others")


if __name__ == "__main__":
    run_command(main)
