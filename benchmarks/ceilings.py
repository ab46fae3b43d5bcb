"""What the hardware reaches at best: memory bandwidth, and operations per second of large matrix products."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.common import PRECISIONS, Meter, Result, benchmark, float32_products, rotating
from dnnlib.command import run_command


@benchmark("ceilings")
def main(preset: str, meter: Meter) -> Iterator[Result]:
    """Bandwidth of a large copy (bytes read plus written), and TFLOP/s of a large matrix product in each precision."""
    size = 2**30 if meter.on_gpu else 2**22
    sources = [torch.randint(256, (size,), dtype=torch.uint8, device=meter.device) for _ in range(2)]
    timing = meter.time(rotating(torch.empty_like(sources[0]).copy_, sources))
    yield Result("copy", 2 * size / timing.seconds / 1e9, "GB/s", spread=timing.spread, note="read plus written")
    for precision in dict.fromkeys(meter.precision(name) for name in PRECISIONS):
        yield matmul_rate(meter, precision, 8192 if meter.on_gpu else 256)


def matmul_rate(meter: Meter, precision: str, size: int) -> Result:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    pairs = [torch.randn(2, size, size, device=meter.device).to(dtype) for _ in range(2)]
    with float32_products(precision):
        timing = meter.time(rotating(lambda pair: pair[0] @ pair[1], pairs))
    name, rate = f"matrix product, {precision}", 2 * size**3 / timing.seconds / 1e12
    return Result(name, rate, "TFLOP/s", precision, spread=timing.spread, note=f"{size} cubed")


if __name__ == "__main__":
    run_command(main)
