"""One image on the CPU, in fp32."""

from __future__ import annotations

from collections.abc import Iterator

import click
import torch

from benchmarks.common import Result, benchmark, clock, summarize
from benchmarks.model import PATHS, random_cameras, random_net, random_views
from genvs.sampling.synthesis import synthesize_views

CPU = torch.device("cpu")
REPEATS = 2


@benchmark(CPU)
@click.option("--threads", type=click.IntRange(min=1), default=2)
def main(preset: str, seconds: float, threads: int) -> Iterator[Result]:
    """Encode one view, render and draw another with 10 evaluations of the multistep solver, beside the plain path with
    49 of Heun's."""
    torch.set_num_threads(threads)
    net, generator = random_net(preset, CPU), torch.Generator().manual_seed(0)
    inputs = random_views(net.config, (1, 1), generator)
    target = random_cameras(net.config, (1, 1), generator)

    def times(path: str, sampler: str, num_steps: int) -> list[float]:
        def draw() -> None:
            with PATHS[path]():
                list(synthesize_views(net, inputs, target, sampler=sampler, num_steps=num_steps, progress=False))

        return [clock(draw) for _ in range(REPEATS)]

    times("fast", "heun", 1)  # libraries prepare themselves
    (fast, spread), (plain, _) = summarize(times("fast", "unipc", 10)), summarize(times("reference", "heun", 25))
    name, note = "CPU: one image, 10 evaluations", f"{threads} threads"
    yield Result(name, fast, "s", "fp32", 1, spread, None, plain, "plain path at 49", note)
