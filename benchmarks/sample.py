"""Drawing views: in batches with Heun and the multistep solver, one at a time, and frame after frame."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
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
    autocast,
    benchmark,
    check,
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


class Studio:
    """A network, with what inference draws with it."""

    def __init__(self, preset: str, precision: str, views: int, device: torch.device) -> None:
        self.net, self.precision = random_net(preset, device), precision
        self.config, self.device = self.net.config, device
        self.fast = FastDenoiser(self.net, bf16=precision == "bf16")
        self.generator = torch.Generator().manual_seed(0)
        self.inputs = random_views(self.config, (1, views), self.generator).to(device)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device)

    def sets(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Feature images `[batch, C, H, W]`, and the noise that samples start from."""
        size, channels = self.config.resolution, self.config.encoder.volume_channels
        return [(self.random(batch, channels, size, size), self.random(batch, 3, size, size)) for _ in range(NUM_SETS)]

    def draw(self, inputs: tuple[Tensor, Tensor], *, sampler: str, num_steps: int) -> Tensor:
        feature_image, noise = inputs
        sample = sampler_of(self.net, sampler, num_steps)
        return sample(partial(self.fast, feature_image=feature_image), noise)

    def draw_plainly(self, inputs: tuple[Tensor, Tensor], *, num_steps: int, precision: str) -> Tensor:
        """Heun with the plain path, as slow as it is."""
        feature_image, noise = inputs
        with PATHS["reference"](), float32_products(precision), autocast(precision, self.device):
            sample = sampler_of(self.net, "heun", num_steps)
            return sample(partial(self.net.denoise, feature_image=feature_image), noise)

    def gate(self, batch: int) -> None:
        """Raises ClickException where what is fast draws something else than the plain path."""
        sample = self.sets(batch)[0]
        fast = self.draw(sample, sampler="heun", num_steps=2)
        plain, exact = (
            self.draw_plainly(sample, num_steps=2, precision=precision) for precision in (self.precision, "fp32")
        )
        check("sampling", *({"output": [images]} for images in (fast, plain, exact)))


@click.option("--batch", type=click.IntRange(min=1), help="Views at a time.", show_default="16, 2 on a CPU")
@click.option("--views", type=click.IntRange(min=1), default=2, show_default=True, help="Input views of the scene.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="bf16", show_default=True, help="fp32 is strict.")
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
            theirs = Result("", batch / meter.time(call, warmup=1).seconds, "views/s")
    with torch.inference_mode(), float32_products(precision):
        studio = Studio(preset, precision, views, meter.device)
        studio.gate(batch)
        yield from batches(studio, batch, meter, theirs)
        yield from single_views(studio, meter)
    yield video(studio, meter)


def batches(studio: Studio, batch: int, meter: Meter, theirs: Result | None) -> Iterator[Result]:
    """Many views at a time, from their feature images."""
    sets = studio.sets(batch)
    for name, sampler, num_steps in (
        (f"{HEUN_STEPS} Heun steps", "heun", HEUN_STEPS),
        ("multistep, 12 evaluations", "unipc", 12),
        ("multistep, 10 evaluations", "unipc", 10),
    ):
        meter.start_memory_peak()
        timing = meter.time(rotating(partial(studio.draw, sampler=sampler, num_steps=num_steps), sets), warmup=2)
        work = floors.sampling_work(studio.config, SAMPLERS[sampler].evaluations(num_steps), batch=batch)
        result = Result(name, batch / timing.seconds, "views/s", studio.precision, batch, timing.spread, work)
        yield result.beside(theirs, REFERENCE) if theirs else result
        peak = meter.memory_peak()
        if peak is not None:
            yield Result(f"{name}: peak memory", peak, "GB", studio.precision, batch)


def single_views(studio: Studio, meter: Meter) -> Iterator[Result]:
    """One view of a scene whose inputs are encoded already."""
    net, config, inputs = studio.net, studio.config, studio.inputs
    with studio.fast.autocast():
        volume = net.encode(inputs.images)
    noises = [noise for _, noise in studio.sets(1)]
    cameras = [random_cameras(config, (1, 1), studio.generator).to(studio.device) for _ in noises]

    def view(given: tuple, sampler: str, num_steps: int) -> Tensor:
        camera, noise = given
        with studio.fast.autocast():
            feature_image = net.render(volume, inputs.cameras, camera)[0].float()
        return studio.draw((feature_image, noise), sampler=sampler, num_steps=num_steps)

    for sampler, num_steps in (("heun", HEUN_STEPS), ("unipc", 10), ("heun", 1)):
        call = rotating(partial(view, sampler=sampler, num_steps=num_steps), list(zip(cameras, noises, strict=True)))
        timing, evaluations = meter.time(call), SAMPLERS[sampler].evaluations(num_steps)
        work = floors.render_work(config, inputs.shape[1]) + floors.sampling_work(config, evaluations, batch=1)
        name = f"one view, {evaluations} evaluation" + "s" * (evaluations > 1)
        yield Result(name, timing.seconds * 1e3, "ms", studio.precision, 1, timing.spread, work)


def video(studio: Studio, meter: Meter) -> Result:
    """Frames conditioned on those before them, one denoiser evaluation each, as inference yields them; beside encoding
    all that is known again for every frame, plainly."""
    net, config, inputs = studio.net, studio.config, studio.inputs
    known, warmup = inputs.shape[1] + MAX_GENERATED, MAX_GENERATED + 3
    frames = warmup + (60 if meter.on_gpu else 4)
    targets = random_cameras(config, (1, frames), studio.generator)
    with float32_products(studio.precision):
        views = synthesize_views(
            net, inputs, targets, cond_method="autoreg", num_steps=1, bf16=studio.precision == "bf16", progress=False
        )
        marks = [time.perf_counter() for _ in itertools.islice(views, frames)]
    timing = summarize([after - before for before, after in itertools.pairwise(marks[warmup:-1])])
    plain = meter.time(plain_frame(studio, known), warmup=1)
    work = floors.encode_work(config) + floors.render_work(config, known) + floors.denoise_work(config)
    return Result(
        "autoregressive video, one step a frame",
        1 / timing.seconds,
        "frames/s",
        studio.precision,
        1,
        timing.spread,
        work,
        baseline=1 / plain.seconds,
        baseline_name=f"{PLAIN}, encoding all {known} views",
    )


def plain_frame(studio: Studio, known: int) -> Callable[[], Tensor]:
    net, config = studio.net, studio.config
    views = random_views(config, (1, known), studio.generator).to(studio.device)
    target = random_cameras(config, (1, 1), studio.generator).to(studio.device)
    noise = studio.sets(1)[0][1]

    @torch.inference_mode()
    def frame() -> Tensor:
        with PATHS["reference"](), float32_products("fp32"):
            feature_image = net.render(net.encode(views.images), views.cameras, target)[0]
        return studio.draw_plainly((feature_image, noise), num_steps=1, precision="fp32")

    return frame


if __name__ == "__main__":
    run_command(main)
