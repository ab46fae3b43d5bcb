"""Drawing views: in batches with Heun and the multistep solver, one at a time, and frame after frame."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common, floors
from benchmarks.common import Result
from benchmarks.model import PATHS, random_cameras, random_net, random_views
from genvs.diffusion.samplers import SAMPLERS
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import MAX_GENERATED, sampler_of, synthesize_views

HEUN_STEPS = 25
NUM_SETS = 3


class Sampling:
    """A network, its fast denoiser, and random inputs."""

    def __init__(self, preset: str, precision: str, views: int, seconds: float) -> None:
        self.net, self.precision, self.seconds = random_net(preset, common.DEVICE), precision, seconds
        self.config, self.fast = self.net.config, FastDenoiser(self.net, bf16=precision == "bf16")
        self.generator = torch.Generator().manual_seed(0)
        self.inputs = random_views(self.config, (1, views), self.generator).to(common.DEVICE)

    def sets(self, batch: int) -> list[tuple[Tensor, Tensor]]:
        """Feature images `[batch, C, H, W]`, and the noise that samples start from."""
        size, channels = self.config.resolution, self.config.encoder.volume_channels
        shapes = ((batch, channels, size, size), (batch, 3, size, size))
        draw = partial(torch.randn, generator=self.generator)
        return [(draw(shapes[0]).to(common.DEVICE), draw(shapes[1]).to(common.DEVICE)) for _ in range(NUM_SETS)]

    def draw(self, inputs: tuple[Tensor, Tensor], sampler: str, num_steps: int) -> Tensor:
        feature_image, noise = inputs
        return sampler_of(self.net, sampler, num_steps)(partial(self.fast, feature_image=feature_image), noise)

    def batches(self, batch: int, theirs: float | None) -> Iterator[Result]:
        """Many views at a time, from their feature images."""
        sets, precision = self.sets(batch), self.precision
        for name, sampler, num_steps in (
            (f"{HEUN_STEPS} Heun steps", "heun", HEUN_STEPS),
            ("multistep, 12 evaluations", "unipc", 12),
            ("multistep, 10 evaluations", "unipc", 10),
        ):
            call = common.rotating(partial(self.draw, sampler=sampler, num_steps=num_steps), sets)
            evaluations = SAMPLERS[sampler].evaluations(num_steps)
            floor = floors.floor(floors.denoise_work(self.config, batch=batch) * evaluations, precision)
            blank = Result(name, 0, "views/s", precision, batch, None, floor, theirs, common.REFERENCE)
            yield from common.throughput(call, blank, self.seconds)

    def single_views(self) -> Iterator[Result]:
        """One view of a scene whose inputs are encoded already."""
        with self.fast.autocast():
            volume = self.net.encode(self.inputs.images)
        noises = [noise for _, noise in self.sets(1)]
        cameras = [random_cameras(self.config, (1, 1), self.generator).to(common.DEVICE) for _ in noises]

        def view(given: tuple, sampler: str, num_steps: int) -> Tensor:
            camera, noise = given
            with self.fast.autocast():
                feature_image = self.net.render(volume, self.inputs.cameras, camera)[0].float()
            return self.draw((feature_image, noise), sampler, num_steps)

        sets = list(zip(cameras, noises, strict=True))
        for sampler, num_steps in (("heun", HEUN_STEPS), ("unipc", 10), ("heun", 1)):
            call = common.rotating(partial(view, sampler=sampler, num_steps=num_steps), sets)
            took, spread = common.timed(call, self.seconds)
            evaluations = SAMPLERS[sampler].evaluations(num_steps)
            work = floors.render_work(self.config, self.inputs.shape[1])
            floor = floors.floor(work + floors.denoise_work(self.config) * evaluations, self.precision)
            name = f"one view, {evaluations} evaluation" + "s" * (evaluations > 1)
            yield Result(name, took * 1e3, "ms", self.precision, 1, spread, floor)

    def video(self) -> Result:
        """Frames conditioned on those before them, one denoiser evaluation each, as inference yields them; beside the
        plain path, which encodes all known views again for every frame."""
        net, config, precision = self.net, self.config, self.precision
        known, warmup = self.inputs.shape[1] + MAX_GENERATED, MAX_GENERATED + 3
        frames = warmup + (60 if common.ON_GPU else 4)
        targets = random_cameras(config, (1, frames), self.generator)
        draw = partial(synthesize_views, cond_method="autoreg", num_steps=1, bf16=precision == "bf16", progress=False)
        with common.float32_products(precision):
            marks = [time.perf_counter() for _ in draw(net, self.inputs, targets)]
        took, spread = common.summarize([after - before for before, after in itertools.pairwise(marks[warmup:-1])])
        given, noise = random_views(config, (1, known), self.generator).to(common.DEVICE), self.sets(1)[0][1]

        @torch.inference_mode()
        def plain_frame() -> Tensor:
            with PATHS["reference"](), common.float32_products("fp32"):
                feature_image = net.render(net.encode(given.images), given.cameras, given.cameras[:, :1])[0]
                return sampler_of(net, "heun", 1)(partial(net.denoise, feature_image=feature_image), noise)

        baseline = 1 / common.timed(plain_frame, self.seconds, warmup=1)[0]
        work = floors.encode_work(config) + floors.render_work(config, known) + floors.denoise_work(config)
        name, floor = "autoregressive video, one step a frame", floors.floor(work, precision)
        slow, rate = f"{common.PLAIN}, encoding all {known} views", 1 / took
        return Result(name, rate, "frames/s", precision, 1, spread, floor, baseline, slow)


@common.benchmark()
@common.size_option("batch", 16, 2, "Views at a time.")
@common.views_option
@common.precision_option
@common.reference_option
def main(
    preset: str, seconds: float, batch: int, views: int, precision: str, reference: Path | None
) -> Iterator[Result]:
    """views/s from given feature images; ms for one view from a scene that is encoded, rendering included; frames/s of
    a video that is conditioned on its own frames."""
    torch.backends.cudnn.benchmark = True
    theirs = None
    if reference is not None:
        call = common.adapter_function(reference, "sampler")(batch, HEUN_STEPS, common.DEVICE)
        with common.float32_products("fp32"):
            theirs = batch / common.timed(call, seconds, warmup=1)[0]
    with torch.inference_mode(), common.float32_products(precision):
        sampling = Sampling(preset, precision, views, seconds)
        yield from sampling.batches(batch, theirs)
        yield from sampling.single_views()
    yield sampling.video()
