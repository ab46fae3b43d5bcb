"""The parts of the model and of an update alone, beside the plain torch path in strict fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import click
import torch
from torch import Tensor, nn

from benchmarks import floors
from benchmarks.common import (
    PLAIN,
    PRECISIONS,
    Meter,
    Result,
    Work,
    autocast,
    benchmark,
    float32_products,
    rotating,
)
from benchmarks.model import PATHS, TrainingStep, random_batch, random_net, training_config
from dnnlib.command import run_command
from genvs import random as stateless_random
from genvs.config import PRESETS

NUM_SETS = 3
PARTS = ("encode", "render", "denoise", "update")


class Part:
    """forward: inputs to an output. sets: inputs to take in turn. module: the part whose weights get gradients.

    training: measure backward too. work: of a call.
    """

    def __init__(
        self, name: str, forward: Callable[..., Tensor], sets: list, module: nn.Module, work: Work, training: bool
    ) -> None:
        self.name = name + (", forward + backward" if training else "")
        self.forward, self.sets, self.work, self.training = forward, sets, work, training
        self.weights = list(module.parameters())
        self.gradient: Tensor | None = None

    def run(self, inputs: tuple[Tensor, ...], *, path: str, precision: str) -> None:
        """The output, and the gradients if they are wanted."""
        with PATHS[path](), float32_products(precision), torch.set_grad_enabled(self.training):
            with autocast(precision, inputs[0].device):
                output = self.forward(*inputs)
            if self.training:
                if self.gradient is None or self.gradient.dtype != output.dtype:
                    self.gradient = torch.randn_like(output)
                wanted = [tensor for tensor in (*inputs, *self.weights) if tensor.requires_grad]
                torch.autograd.grad(output, wanted, self.gradient)

    def measure(self, precision: str, batch: int, meter: Meter) -> Result:
        """Time the fast path, and the plain path in strict fp32."""
        fast = partial(self.run, path="fast", precision=precision)
        plain = partial(self.run, path="reference", precision="fp32")
        sets = [tuple(t.detach().float().requires_grad_(t.requires_grad) for t in each) for each in self.sets]
        timing, baseline = meter.time(rotating(fast, self.sets)), meter.time(rotating(plain, sets), warmup=1)
        figure = Result(self.name, timing.seconds * 1e3, "ms", precision, batch, timing.spread, self.work)
        return figure.beside(baseline.seconds * 1e3, PLAIN)


def parts(preset: str, batch: int, views: int, precision: str, device: torch.device) -> dict[str, Callable]:
    """By name, a function of `training` that makes a part: `batch` scenes of `views` input views and one target."""
    net, config = random_net(preset, device), PRESETS[preset]
    itemsize = 2 if precision == "bf16" else 4
    batches = [random_batch(config, batch, views, 1, seed).to(device) for seed in range(NUM_SETS)]
    keys = stateless_random.sample_keys(0, torch.arange(batch, device=device))

    def encode(training: bool) -> Part:
        work = floors.encode_work(config, batch=batch * views, itemsize=itemsize, training=training)
        sets = [(each.inputs.images,) for each in batches]
        return Part("encode", net.encode, sets, net.encoder, work * (batch * views), training)

    def render(training: bool) -> Part:
        with torch.no_grad(), autocast(precision, device):
            volume = net.encode(batches[0].inputs.images)  # for its type and order in memory
        sets = [(torch.empty_like(volume).normal_().requires_grad_(training),) for _ in batches]
        inputs, targets = batches[0].inputs.cameras, batches[0].targets.cameras
        forward = partial(net.render, inputs=inputs, targets=targets, keys=keys[:, None] if training else None)
        work = floors.render_work(config, views, itemsize=itemsize, training=training)
        return Part("render", forward, sets, net.renderer, work * batch, training)

    def denoise(training: bool) -> Part:
        size, channels = config.resolution, config.encoder.volume_channels
        sigma = torch.rand(batch, 1, 1, 1, device=device) + 0.1

        def forward(noisy: Tensor, feature_image: Tensor) -> Tensor:
            return net.denoise(noisy, sigma, feature_image, keys if training else None)

        features = [torch.randn(batch, channels, size, size, device=device) for _ in batches]
        sets = [
            (each.targets.images[:, 0], image.requires_grad_(training))
            for each, image in zip(batches, features, strict=True)
        ]
        work = floors.denoise_work(config, batch=batch, itemsize=itemsize, training=training)
        return Part("denoise", forward, sets, net.denoiser, work * batch, training)

    return {"encode": encode, "render": render, "denoise": denoise}


def update(preset: str, batch: int, meter: Meter) -> Result:
    """What follows the gradients: finite check, optimizer, moving average."""
    config = training_config(preset, batch=batch, views=1, precision="fp32")
    step = TrainingStep(config, iter(()), meter.device)
    parameters = list(step.state.net.parameters())
    gradients = [torch.randn_like(parameter) * 1e-3 for parameter in parameters]

    def call() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        step.update()

    timing, work = meter.time(call), floors.update_work(PRESETS[preset])
    return Result("optimizer + EMA + finite check", timing.seconds * 1e3, "ms", "fp32", 1, timing.spread, work)


@click.option("--batch", type=click.IntRange(min=1), help="Scenes at a time.", show_default="32, 2 on a CPU")
@click.option("--views", type=click.IntRange(min=1), default=2, help="Input views of a scene.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="bf16")
@click.option("--part", "names", type=click.Choice(PARTS), multiple=True, default=PARTS, show_default="all")
@benchmark("parts")
def main(
    preset: str, meter: Meter, batch: int | None, views: int, precision: str, names: tuple[str, ...]
) -> Iterator[Result]:
    """Encoder, renderer and denoiser, beside the plain path in strict fp32, and what follows the gradients."""
    batch, precision = batch or (32 if meter.on_gpu else 2), meter.precision(precision)
    torch.backends.cudnn.benchmark = True
    make = parts(preset, batch, views, precision, meter.device)
    for name in names:
        if name == "update":
            yield update(preset, batch, meter)
        else:
            for training in (False, True):
                yield make[name](training).measure(precision, batch, meter)


if __name__ == "__main__":
    run_command(main)
