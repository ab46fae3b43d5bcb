"""Drawing views: in batches with Heun and the multistep solver, one at a time, an orbit, and frame after frame."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks import common, floors
from benchmarks.common import DEVICE, Result
from benchmarks.model import PATHS, ops_option, part_option, random_cameras, random_net, random_views
from genvs.diffusion.samplers import SAMPLERS
from genvs.geometry import Cameras
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import MAX_GENERATED, Conditioned, sampler_of, synthesize_views
from genvs.visualize import to_uint8

NUM_SETS = 3
ORBIT_FRAMES = 256 if common.ON_GPU else 4
PARTS = ("batches", "single", "orbit", "video")


class Sampling:
    """A network, its fast denoiser, and random inputs; a method for each of PARTS."""

    def __init__(self, preset: str, precision: str, batch: int, views: int, seconds: float) -> None:
        self.net, self.precision, self.batch, self.seconds = random_net(preset), precision, batch, seconds
        self.config, self.fast = self.net.config, FastDenoiser(self.net, bf16=precision == "bf16")
        self.generator = torch.Generator().manual_seed(0)
        self.inputs = random_views(self.config, (1, views), self.generator).to(DEVICE)

    def noise(self, batch: int, channels: int = 3) -> list[Tensor]:
        shape = (batch, channels, self.config.resolution, self.config.resolution)
        return [torch.randn(shape, generator=self.generator).to(DEVICE) for _ in range(NUM_SETS)]

    def draw(self, inputs: tuple[Tensor, Tensor], sampler: str, num_steps: int) -> Tensor:
        feature_image, noise = inputs
        return sampler_of(self.net, sampler, num_steps)(partial(self.fast, feature_image=feature_image), noise)

    @torch.inference_mode()
    def batches(self) -> Iterator[Result]:
        """Many views at a time, from their feature images."""
        batch, precision, channels = self.batch, self.precision, self.config.encoder.volume_channels
        sets = list(zip(self.noise(batch, channels), self.noise(batch), strict=True))
        for name, sampler, num_steps in (
            ("25 Heun steps", "heun", 25),
            ("multistep, 12 evaluations", "unipc", 12),
            ("multistep, 10 evaluations", "unipc", 10),
        ):
            call = common.rotating(partial(self.draw, sampler=sampler, num_steps=num_steps), sets)
            evaluations = SAMPLERS[sampler].evaluations(num_steps)
            floor = floors.floor(floors.denoise_work(self.config, batch=batch) * evaluations, precision)
            yield from common.throughput(call, Result(name, 0, "views/s", precision, batch, None, floor), self.seconds)

    @torch.inference_mode()
    def single(self) -> Iterator[Result]:
        """One view of a scene whose inputs are encoded already."""
        scene = Conditioned(self.fast, self.inputs, batch_size=self.inputs.shape[1])
        sets = [(random_cameras(self.config, (1, 1), self.generator).to(DEVICE), noise) for noise in self.noise(1)]

        def view(given: tuple[Cameras, Tensor], sampler: str, num_steps: int) -> Tensor:
            return self.draw((scene.render(given[0]), given[1]), sampler, num_steps)

        for sampler, num_steps in (("heun", 25), ("unipc", 10), ("heun", 1)):
            call = common.rotating(partial(view, sampler=sampler, num_steps=num_steps), sets)
            took, spread = common.timed(call, self.seconds)
            evaluations = SAMPLERS[sampler].evaluations(num_steps)
            work = floors.render_work(self.config, self.inputs.shape[1])
            floor = floors.floor(work + floors.denoise_work(self.config) * evaluations, self.precision)
            name = f"one view, {evaluations} evaluation" + "s" * (evaluations > 1)
            yield Result(name, took * 1e3, "ms", self.precision, 1, spread, floor)
        shown = [(cameras.to("cpu"), noise) for cameras, noise in sets]

        def picture(given: tuple[Cameras, Tensor]) -> np.ndarray:
            return to_uint8(view((given[0].to(DEVICE), given[1]), "heun", 1))

        took, spread = common.timed(common.rotating(picture, shown), self.seconds)
        name = "one view, 1 evaluation, from a camera to a picture on the host"
        yield Result(name, took * 1e3, "ms", self.precision, 1, spread, floor)

    def orbit(self) -> Iterator[Result]:
        """Frames that do not depend on each other, one denoiser evaluation each, as inference yields them."""
        targets = random_cameras(self.config, (1, ORBIT_FRAMES), self.generator)
        draw = partial(synthesize_views, num_steps=1, batch_size=self.batch, denoise=self.fast, progress=False)
        took, spread = common.timed(lambda: deque(draw(self.net, self.inputs, targets), maxlen=0), self.seconds)
        frame = floors.render_work(self.config, self.inputs.shape[1]) + floors.denoise_work(self.config)
        floor = floors.floor(frame, self.precision)
        name = f"orbit of {ORBIT_FRAMES} frames, 1 evaluation each"
        yield Result(name, ORBIT_FRAMES / took, "frames/s", self.precision, self.batch, spread, floor)

    def video(self) -> Iterator[Result]:
        """Frames conditioned on those before them, one denoiser evaluation each, as inference yields them."""
        known, warmup = self.inputs.shape[1] + MAX_GENERATED, MAX_GENERATED + 3
        targets = random_cameras(self.config, (1, warmup + (60 if common.ON_GPU else 4)), self.generator)
        draw = partial(synthesize_views, cond_method="autoreg", num_steps=1, denoise=self.fast, progress=False)
        marks = [time.perf_counter() for _ in draw(self.net, self.inputs, targets)]
        took, spread = common.summarize([after - before for before, after in itertools.pairwise(marks[warmup:-1])])
        encode, denoise = floors.encode_work(self.config), floors.denoise_work(self.config)
        floor = floors.floor(encode + floors.render_work(self.config, known) + denoise, self.precision)
        name = "autoregressive video, one step a frame"
        yield Result(name, 1 / took, "frames/s", self.precision, 1, spread, floor)


@common.benchmark
@common.size_option("batch", 16, 2, "Views at a time.")
@common.views_option
@common.seconds_option
@common.precision_option
@ops_option
@part_option(PARTS)
def main(
    preset: str, seconds: float, batch: int, views: int, precision: str, ops: str, names: tuple[str, ...]
) -> Iterator[Result]:
    """views/s from given feature images; ms for one view from a scene that is encoded, rendering included; frames/s of
    an orbit, inputs' encoding included, and of a video that is conditioned on its own frames."""
    common.set_precision(precision)
    with PATHS[ops]():
        sampling = Sampling(preset, precision, batch, views, seconds)
        for name in names:
            yield from getattr(sampling, name)()
