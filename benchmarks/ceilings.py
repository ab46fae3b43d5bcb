"""What the hardware reaches at best: memory bandwidth, and operations per second of large matrix products."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.common import DEVICE, ON_GPU, PRECISIONS, Result, benchmark, float32_products, rotating, timed


def matmul_rate(precision: str, size: int, seconds: float) -> Result:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    pairs = [torch.randn(2, size, size, device=DEVICE).to(dtype) for _ in range(2)]
    with float32_products(precision):
        took, spread = timed(rotating(lambda pair: pair[0] @ pair[1], pairs), seconds)
    name, rate = f"matrix product, {precision}", 2 * size**3 / took / 1e12
    return Result(name, rate, "TFLOP/s", precision, spread=spread, note=f"{size} cubed")


@benchmark()
def main(preset: str, seconds: float) -> Iterator[Result]:
    """Bandwidth of a large copy (bytes read plus written), and TFLOP/s of a large matrix product in each precision."""
    size = 2**30 if ON_GPU else 2**22
    sources = [torch.randint(256, (size,), dtype=torch.uint8, device=DEVICE) for _ in range(2)]
    took, spread = timed(rotating(torch.empty_like(sources[0]).copy_, sources), seconds)
    yield Result("copy", 2 * size / took / 1e9, "GB/s", spread=spread, note="read plus written")
    for precision in PRECISIONS:
        yield matmul_rate(precision, 8192 if ON_GPU else 256, seconds)
