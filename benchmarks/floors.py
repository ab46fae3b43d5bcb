"""What the hardware reaches, how much work the model must do, and the shortest time that takes on an H200.

Work is an array of two numbers: operations and bytes. Operations are what torch's counter counts as the networks run on
its meta device, which computes nothing: those of convolutions and matrix products, two for a multiply-add. A backward
pass takes twice a forward one. Bytes, of bf16 numbers, are the fewest that device memory must move: each input is read
once and each output is written once. The floor is the longer of operations over the arithmetic unit's rate and bytes
over the memory's bandwidth.
"""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common
from benchmarks.common import DEVICE, ON_GPU, Result
from benchmarks.model import random_cameras
from genvs.config import PRESETS, GeNVSConfig
from genvs.models import GeNVS

# Operations/s of an H200's large matrix products in bf16, and bytes/s of its memory, read plus written: both measured.
RATE, BANDWIDTH = 790e12, 4.3e12
ITEMSIZE = 2
# Adam reads and writes a weight and two moments and reads the gradient; the moving average is read and written.
UPDATE_BYTES = 9 * 4


def floor(work: np.ndarray, precision: str = "bf16") -> float | None:
    """The shortest time in seconds; None for operations in a precision whose rate is not known."""
    if work[0] and precision != "bf16":
        return None
    return float(max(work / (RATE, BANDWIDTH)))


@functools.cache
def count(config: GeNVSConfig, views: int = 1) -> dict[str, tuple[int, int]]:
    """Operations forward and number of parameters of: encoding `views` input views, rendering one target from them,
    and one evaluation of the denoiser for one image."""
    with torch.device("meta"):
        net, size = GeNVS(config), config.resolution
        images, noisy, sigma = torch.empty(1, views, 3, size, size), torch.empty(1, 3, size, size), torch.ones(1)
    inputs, targets = (random_cameras(config, (1, n), torch.Generator()).to("meta") for n in (views, 1))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.denoise(noisy, sigma, net.render(net.encode(images, inputs), inputs, targets)[0])
    operations = {name: sum(each.values()) for name, each in counter.get_flop_counts().items()}
    modules = {"encode": net.encoders["rgb"], "render": net.renderer, "denoise": net.denoisers["rgb"]}
    return {
        name: (operations[type(module).__name__], sum(parameter.numel() for parameter in module.parameters()))
        for name, module in modules.items()
    }


def volume_bytes(config: GeNVSConfig) -> int:
    """Bytes of one input view's feature volume."""
    shape = config.encoder
    return shape.volume_channels * shape.volume_depth * shape.volume_width**2 * ITEMSIZE


def encode_work(config: GeNVSConfig, *, batch: float = 1, training: bool = False) -> np.ndarray:
    """Work for one of `batch` input views that share the weights."""
    operations, parameters = count(config)["encode"]
    # Backward reads what forward read and wrote, and writes the gradients of what it read.
    return np.array([operations, parameters / batch * ITEMSIZE + volume_bytes(config)]) * (3 if training else 1)


def render_work(config: GeNVSConfig, views: int, *, training: bool = False) -> np.ndarray:
    """Work for one target: the input views' volumes are read, the small feature image is written.

    Whole volumes are counted, of which a target's rays miss about a third. Backward, the image's gradient is read and
    the volumes' are written; what forward read need not be read again.
    """
    image = config.encoder.volume_channels * config.renderer.render_width**2 * ITEMSIZE
    work = np.array([count(config, views)["render"][0], views * volume_bytes(config) + image])
    return work * ([3, 2] if training else 1)


def denoise_work(config: GeNVSConfig, *, batch: int = 1, training: bool = False) -> np.ndarray:
    """Work for one evaluation of one of `batch` images that share the weights."""
    operations, parameters = count(config)["denoise"]
    pixels = (2 * 3 + config.encoder.volume_channels) * config.resolution**2
    return np.array([operations, (parameters / batch + pixels) * ITEMSIZE]) * (3 if training else 1)


def update_work(config: GeNVSConfig) -> np.ndarray:
    """Work for an update's optimizer step, moving average and finite check."""
    return np.array([0, UPDATE_BYTES * sum(parameters for _, parameters in count(config).values())])


def training_work(config: GeNVSConfig, views: int, *, batch: int, targets: int = 1) -> np.ndarray:
    """One target image's share of an update: its scene's `views` are encoded once for all its `targets`."""
    per_scene = encode_work(config, batch=batch / targets * views, training=True) * views
    per_image = render_work(config, views, training=True) + denoise_work(config, batch=batch, training=True)
    return per_scene / targets + per_image + update_work(config) / batch


def hardware(seconds: float) -> Iterator[Result]:
    """Bandwidth of a large copy (bytes read plus written), and the rate of a large matrix product in each precision."""
    size, side = (2**30, 8192) if ON_GPU else (2**22, 256)
    sources = [torch.randint(256, (size,), dtype=torch.uint8, device=DEVICE) for _ in range(2)]
    took, spread = common.timed(common.rotating(torch.empty_like(sources[0]).copy_, sources), seconds)
    yield Result("copy", 2 * size / took / 1e9, "GB/s", spread=spread, note="read plus written")
    for precision in common.PRECISIONS:
        common.set_precision(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        pairs = [torch.randn(2, side, side, device=DEVICE).to(dtype) for _ in range(2)]
        took, spread = common.timed(common.rotating(lambda pair: pair[0] @ pair[1], pairs), seconds)
        rate = 2 * side**3 / took / 1e12
        yield Result("matrix product", rate, "TFLOP/s", precision, spread=spread, note=f"{side} cubed")


@common.benchmark
@common.seconds_option
@common.views_option
@common.size_option("batch", 32, 32, "Images that share weights.")
def main(preset: str, seconds: float, views: int, batch: int) -> Iterator[Result]:
    """What this device reaches. Then operations, bytes and shortest times of the model's parts, at an H200's measured
    rates in bf16."""
    yield from hardware(seconds)
    config = PRESETS[preset]
    for name, work in (
        ("encode, 1 view", encode_work(config, batch=batch * views)),
        (f"render, {views} views", render_work(config, views)),
        ("denoise, 1 evaluation", denoise_work(config, batch=batch)),
        (f"render, {views} views, forward + backward", render_work(config, views, training=True)),
        ("optimizer, EMA and finite check", update_work(config)),
        (f"training, 1 sample, {views} views", training_work(config, views, batch=batch)),
        ("25 Heun steps (49 evaluations), 1 view", denoise_work(config, batch=batch) * 49),
    ):
        note = f"{work[0] / 1e9:.4g} GFLOP, {work[1] / 1e6:.4g} MB"
        yield Result(f"floor: {name}", (floor(work) or 0) * 1e3, "ms", "bf16", batch, note=note)
