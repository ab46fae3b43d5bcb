"""Drawing views: in batches with Heun and the multistep solver, one at a time, and frame after frame."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor

from benchmarks import floors
from benchmarks.common import (
    PLAIN,
    PRECISIONS,
    REFERENCE,
    Meter,
    Result,
    adapter_function,
    benchmark,
    float32_products,
    rotating,
    summarize,
)
from benchmarks.model import PATHS, random_cameras, random_net, random_views
from dnnlib.command import run_command
from genvs.diffusion.samplers import SAMPLERS
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import MAX_GENERATED, sampler_of, synthesize_views

HEUN_STEPS = 25
NUM_SETS = 3


class Sampling:
    """A network, its fast denoiser, and random inputs."""

    def __init__(self, preset: str, precision: str, views: int, device: torch.device) -> None:
        self.net, self.precision, self.device = random_net(preset, device), precision, device
        self.config, self.fast = self.net.config, FastDenoiser(self.net, bf16=precision == "bf16")
        self.generator = torch.Generator().manual_seed(0)
        self.inputs = random_views(self.config, (1, views), self.generator).to(device)

    def sets(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Feature images `[batch, C, H, W]`, and the noise that samples start from."""
        size, channels = self.config.resolution, self.config.encoder.volume_channels

        def random(channels: int) -> Tensor:
            return torch.randn(batch, channels, size, size, generator=self.generator).to(self.device)

        return [(random(channels), random(3)) for _ in range(NUM_SETS)]

    def draw(self, inputs: tuple[Tensor, Tensor], *, sampler: str, num_steps: int) -> Tensor:
        feature_image, noise = inputs
        return sampler_of(self.net, sampler, num_steps)(partial(self.fast, feature_image=feature_image), noise)


@click.option("--batch", type=click.IntRange(min=1), help="Views at a time.", show_default="16, 2 on a CPU")
@click.option("--views", type=click.IntRange(min=1), default=2, help="Input views of the scene.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="bf16", help="fp32 is strict.")
@click.option("--reference", type=click.Path(path_type=Path), help="Folder of an adapter.py (benchmarks/README.md).")
@benchmark("sample")
def main(
    preset: str, meter: Meter, batch: int | None, views: int, precision: str, reference: Path | None
) -> Iterator[Result]:
    """views/s from given feature images; ms for one view from a scene that is encoded, rendering included; frames/s of
    a video that is conditioned on its own frames."""
    batch, precision = batch or (16 if meter.on_gpu else 2), meter.precision(precision)
    torch.backends.cudnn.benchmark = True
    theirs = None
    if reference is not None:
        call = adapter_function(reference, "sampler")(batch, HEUN_STEPS, meter.device)
        with float32_products("fp32"):
            theirs = batch / meter.time(call, warmup=1).seconds
    with torch.inference_mode(), float32_products(precision):
        sampling = Sampling(preset, precision, views, meter.device)
        yield from batches(sampling, batch, meter, theirs)
        yield from single_views(sampling, meter)
    yield video(sampling, meter)


def batches(sampling: Sampling, batch: int, meter: Meter, theirs: float | None) -> Iterator[Result]:
    """Many views at a time, from their feature images."""
    sets, precision = sampling.sets(batch), sampling.precision
    for name, sampler, num_steps in (
        (f"{HEUN_STEPS} Heun steps", "heun", HEUN_STEPS),
        ("multistep, 12 evaluations", "unipc", 12),
        ("multistep, 10 evaluations", "unipc", 10),
    ):
        meter.start_memory_peak()
        timing = meter.time(rotating(partial(sampling.draw, sampler=sampler, num_steps=num_steps), sets), warmup=2)
        work = floors.denoise_work(sampling.config, batch=batch) * SAMPLERS[sampler].evaluations(num_steps)
        result = Result(name, batch / timing.seconds, "views/s", precision, batch, timing.spread, work)
        yield result.beside(theirs, REFERENCE) if theirs else result
        if meter.on_gpu:
            yield Result(f"{name}: peak memory", meter.memory_peak(), "GB", precision, batch)


def single_views(sampling: Sampling, meter: Meter) -> Iterator[Result]:
    """One view of a scene whose inputs are encoded already."""
    net, config, inputs = sampling.net, sampling.config, sampling.inputs
    with sampling.fast.autocast():
        volume = net.encode(inputs.images)
    noises = [noise for _, noise in sampling.sets(1)]
    cameras = [random_cameras(config, (1, 1), sampling.generator).to(sampling.device) for _ in noises]

    def view(given: tuple, sampler: str, num_steps: int) -> Tensor:
        camera, noise = given
        with sampling.fast.autocast():
            feature_image = net.render(volume, inputs.cameras, camera)[0].float()
        return sampling.draw((feature_image, noise), sampler=sampler, num_steps=num_steps)

    for sampler, num_steps in (("heun", HEUN_STEPS), ("unipc", 10), ("heun", 1)):
        call = rotating(partial(view, sampler=sampler, num_steps=num_steps), list(zip(cameras, noises, strict=True)))
        timing, evaluations = meter.time(call), SAMPLERS[sampler].evaluations(num_steps)
        work = floors.render_work(config, inputs.shape[1]) + floors.denoise_work(config) * evaluations
        name = f"one view, {evaluations} evaluation" + "s" * (evaluations > 1)
        yield Result(name, timing.seconds * 1e3, "ms", sampling.precision, 1, timing.spread, work)


def video(sampling: Sampling, meter: Meter) -> Result:
    """Frames conditioned on those before them, one denoiser evaluation each, as inference yields them; beside encoding
    all known views again for every frame, plainly."""
    net, config, inputs, precision = sampling.net, sampling.config, sampling.inputs, sampling.precision
    known, warmup = inputs.shape[1] + MAX_GENERATED, MAX_GENERATED + 3
    frames = warmup + (60 if meter.on_gpu else 4)
    targets = random_cameras(config, (1, frames), sampling.generator)
    draw = partial(synthesize_views, cond_method="autoreg", num_steps=1, bf16=precision == "bf16", progress=False)
    with float32_products(precision):
        views = draw(net, inputs, targets)
        marks = [time.perf_counter() for _ in itertools.islice(views, frames)]
    timing = summarize([after - before for before, after in itertools.pairwise(marks[warmup:-1])])
    given = random_views(config, (1, known), sampling.generator).to(sampling.device)
    noise = sampling.sets(1)[0][1]

    @torch.inference_mode()
    def plain_frame() -> Tensor:
        with PATHS["reference"](), float32_products("fp32"):
            feature_image = net.render(net.encode(given.images), given.cameras, given.cameras[:, :1])[0]
            return sampler_of(net, "heun", 1)(partial(net.denoise, feature_image=feature_image), noise)

    plain = meter.time(plain_frame, warmup=1)
    work = floors.encode_work(config) + floors.render_work(config, known) + floors.denoise_work(config)
    name, rate = "autoregressive video, one step a frame", 1 / timing.seconds
    figure = Result(name, rate, "frames/s", precision, 1, timing.spread, work)
    return figure.beside(1 / plain.seconds, f"{PLAIN}, encoding all {known} views")


if __name__ == "__main__":
    run_command(main)
