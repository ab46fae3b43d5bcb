"""Where a training step's time on the GPU goes, by kind of kernel: what bounds it."""

from __future__ import annotations

from collections.abc import Iterator

import click
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import common
from benchmarks.common import Result
from benchmarks.model import TrainingStep, in_memory_batches, training_config

# A kernel belongs to the first kind that has one of these words in its name.
KINDS = {
    "convolutions": ("cudnn", "xmma_fprop", "xmma_dgrad", "xmma_wgrad", "conv"),
    "matrix products": ("nvjet", "gemm", "cutlass", "splitK"),
    "optimizer, moving average, casts of weights": ("multi_tensor_apply",),
    "rendering": ("render_kernel", "field_gradient_kernel", "scatter_kernel"),
    "norms": ("norm", "apply_kernel", "sums_kernel", "coefficients_kernel", "input_gradient"),
    "after convolutions": ("epilogue",),
    "resampling and joining": ("downsample", "upsample", "concat_kernel"),
    "sums": ("reduce_kernel",),
    "elementwise": ("elementwise",),
}
WARM_UP = 5


def kind_of(kernel: str) -> str:
    """A kind of KINDS, or "others"."""
    return next((kind for kind, marks in KINDS.items() if any(mark in kernel for mark in marks)), "others")


@common.benchmark()
@common.size_option("batch", 32, 32, "Images of an update.")
@common.views_option
@common.precision_option
def main(preset: str, seconds: float, batch: int, views: int, precision: str) -> Iterator[Result]:
    """GPU time of one update, by kind of kernel, from torch's profiler."""
    if not common.ON_GPU:
        raise click.ClickException("there is no GPU, whose kernels this benchmark measures")
    config = training_config(preset, batch, views, precision)
    with common.float32_products(precision):
        step = TrainingStep(config, in_memory_batches(config))
        for _ in range(WARM_UP):
            step()
        common.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            step()
            common.synchronize()
    kernels = [event for event in record.events() if event.device_type == DeviceType.CUDA]
    times: dict[str, list[float]] = {}
    for kernel in kernels:
        times.setdefault(kind_of(kernel.name), []).append(kernel.device_time / 1e3)
    whole = sum(map(sum, times.values()))
    yield Result("GPU time of an update", whole, "ms", precision, batch, note=f"{len(kernels)} kernels, {views} views")
    for kind, each in sorted(times.items(), key=lambda item: -sum(item[1])):
        note = f"{sum(each) / whole:.0%}, {len(each)} kernels"
        yield Result(f"GPU time of an update: {kind}", sum(each), "ms", precision, batch, note=note)
