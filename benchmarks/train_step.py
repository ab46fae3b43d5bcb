"""Images a second, peak memory and kernels of whole updates, on random batches in memory."""

from collections.abc import Iterator

import click
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks import common, floors
from benchmarks.common import Result
from benchmarks.model import PATHS, TrainingStep, in_memory_batches, ops_option, training_config
from genvs.config import PRESETS
from genvs.settings import set_by_path

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
    "others": ("",),
}


def kernel_times(step: TrainingStep, blank: Result) -> Iterator[Result]:
    """The GPU's time for one update: all, and by kind of kernel. blank: the result without these figures."""
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        step()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {"all": []}
    for event in record.events():
        if event.device_type == DeviceType.CUDA:
            kind = next(kind for kind, words in KINDS.items() if any(word in event.name for word in words))
            for name in ("all", kind):
                times.setdefault(name, []).append(event.device_time / 1e3)
    for kind, each in sorted(times.items(), key=lambda item: -sum(item[1])):
        note = f"{sum(each) / sum(times['all']):.0%}, {len(each)} kernels"
        yield blank._replace(name=f"GPU time of an update: {kind}", value=sum(each), unit="ms", floor=None, note=note)


@common.benchmark
@common.size_option("batch", 32, 2, "Images of an update.")
@common.views_option
@common.sizes("--targets", type=click.IntRange(min=1), default=1, help="Target views that share their scene.")
@common.sizes("--modalities", default="rgb", metavar="LIST", help="Of inputs and targets, with commas between.")
@common.sizes("--resolution", type=click.IntRange(min=32), show_default="the preset's", help="Side, pixels.")
@common.seconds_option
@common.precision_option
@ops_option
def main(
    preset: str,
    seconds: float,
    batch: int,
    views: int,
    targets: int,
    modalities: str,
    resolution: int | None,
    precision: str,
    ops: str,
) -> Iterator[Result]:
    """Forward, backward, finite check, optimizer and moving average: training without its loader. On a GPU also the
    time of its kernels by kind, from torch's profiler."""
    common.set_precision(precision)
    side = resolution or PRESETS[preset].resolution
    net = set_by_path(PRESETS[preset], {"modalities": modalities, "resolution": side})
    config = training_config(preset, batch, views, precision, num_targets=targets, net=net)
    config.rounds(world_size=1)  # refuses a batch that does not divide
    name = f"training step, {precision}" + (", plain path" if ops == "reference" else "")
    name += f", {targets} targets a scene" if targets > 1 else ""
    name += f", {modalities}" if modalities != "rgb" else ""
    name += f", {side} px" if resolution else ""
    floor = None  # known for photos alone
    if net.modalities == ("rgb",):
        floor = floors.floor(floors.training_work(net, views, batch=batch, targets=targets), precision)
    blank = Result(name, 0, "images/s", precision, batch, floor=floor, note=f"{views} views")
    with PATHS[ops]():
        step = TrainingStep(config, in_memory_batches(config))
        yield from common.throughput(step, blank, seconds)
        if common.ON_GPU:
            yield from kernel_times(step, blank)
