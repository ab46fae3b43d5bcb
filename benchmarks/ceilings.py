"""What the hardware reaches at best: memory bandwidth, and operations per second of large matrix products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.common import PRECISIONS, Meter, Result, benchmark, float32_products, rotating
from dnnlib.command import run_command
from genvs.config import PRESETS

COPY = "copy"


def matmul_name(precision: str) -> str:
    return f"matrix product, {precision}"


@benchmark("ceilings")
def main(preset: str, meter: Meter) -> Iterator[Result]:
    """Bandwidth of a large copy (bytes read plus written), and TFLOP/s of a large matrix product in each precision and
    of the 3x3 convolution that the encoder's volume head is made of."""
    yield copy_bandwidth(meter, 2**30 if meter.on_gpu else 2**22)
    for precision in dict.fromkeys(meter.precision(name) for name in PRECISIONS):
        yield matmul_rate(meter, precision, 8192 if meter.on_gpu else 256)
    yield from convolution_rate(meter, preset, 32 if meter.on_gpu else 1)


def copy_bandwidth(meter: Meter, size: int) -> Result:
    sources = [torch.randint(256, (size,), dtype=torch.uint8, device=meter.device) for _ in range(2)]
    timing = meter.time(rotating(torch.empty_like(sources[0]).copy_, sources))
    return Result(COPY, 2 * size / timing.seconds / 1e9, "GB/s", spread=timing.spread, note="read plus written")


def matmul_rate(meter: Meter, precision: str, size: int) -> Result:
    pairs = [[torch.randn(size, size, device=meter.device) for _ in range(2)] for _ in range(2)]
    if precision == "bf16":
        pairs = [[matrix.bfloat16() for matrix in pair] for pair in pairs]
    with float32_products(precision):
        timing = meter.time(rotating(lambda pair: pair[0] @ pair[1], pairs))
    rate = 2 * size**3 / timing.seconds / 1e12
    return Result(matmul_name(precision), rate, "TFLOP/s", precision, spread=timing.spread, note=f"{size} cubed")


def convolution_rate(meter: Meter, preset: str, batch: int) -> Iterator[Result]:
    """The last stage's convolution, channels last, with and without backward."""
    shape, precision = PRESETS[preset].encoder, meter.precision("bf16")
    channels, side = shape.decoder_channels, shape.volume_width
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.backends.cudnn.benchmark = True
    layer = nn.Conv2d(channels, channels, 3, padding=1, device=meter.device, dtype=dtype)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = [torch.randn(batch, channels, side, side, device=meter.device, dtype=dtype) for _ in range(3)]
    *sets, gradient = (image.to(memory_format=torch.channels_last).requires_grad_() for image in images)

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return layer(x)

    def both(x: torch.Tensor) -> None:
        torch.autograd.grad(layer(x), (x, layer.weight), gradient)

    calls: dict[str, tuple[Callable, int]] = {"forward": (forward, 1), "forward + backward": (both, 3)}
    for name, (call, passes) in calls.items():
        timing = meter.time(rotating(call, sets))
        rate = passes * 2 * batch * side**2 * 9 * channels**2 / timing.seconds / 1e12
        name = f"3x3 convolution, {channels} channels, {side} px, {name}"
        yield Result(name, rate, "TFLOP/s", precision, batch, timing.spread)


if __name__ == "__main__":
    run_command(main)
