"""The parts of the model and of an update alone, beside the plain torch path in strict fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import click
import torch
from torch import Tensor, nn

from benchmarks import floors
from benchmarks.common import PLAIN, PRECISIONS, Meter, Result, autocast, benchmark, float32_products, rotating
from benchmarks.model import PATHS, TrainingStep, random_batch, random_net, training_config
from dnnlib.command import run_command
from genvs import random as stateless_random
from genvs.config import PRESETS

NUM_SETS = 3
PARTS = ("encode", "render", "denoise", "update")


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
    for name in names:
        if name == "update":
            yield update(preset, batch, meter)
        else:
            for training in (False, True):
                yield part(name, preset, batch, views, precision, training, meter)


def part(name: str, preset: str, batch: int, views: int, precision: str, training: bool, meter: Meter) -> Result:
    """A part's forward pass, and with `training` its backward pass too: `batch` scenes with one target each."""
    net, config, device = random_net(preset, meter.device), PRESETS[preset], meter.device
    batches = [random_batch(config, batch, views, 1, seed).to(device) for seed in range(NUM_SETS)]
    keys = stateless_random.sample_keys(0, torch.arange(batch, device=device)) if training else None
    options: dict[str, Any] = {"itemsize": 2 if precision == "bf16" else 4, "training": training}
    forward: Callable[..., Tensor]
    sets: list[tuple[Tensor, ...]]
    module: nn.Module
    if name == "encode":
        sets = [(each.inputs.images,) for each in batches]
        forward, module = net.encode, net.encoder
        work = floors.encode_work(config, batch=batch * views, **options) * (batch * views)
    elif name == "render":
        with torch.no_grad(), autocast(precision, device):
            volume = net.encode(batches[0].inputs.images)  # for its type and order in memory
        sets = [(torch.empty_like(volume).normal_().requires_grad_(training),) for _ in batches]
        cameras = batches[0].inputs.cameras, batches[0].targets.cameras
        module, work = net.renderer, floors.render_work(config, views, **options) * batch

        def forward(volume: Tensor) -> Tensor:
            return net.render(volume, *cameras, keys=None if keys is None else keys[:, None])

    else:
        shape = (batch, config.encoder.volume_channels, config.resolution, config.resolution)
        sigma = torch.rand(batch, 1, 1, 1, device=device) + 0.1
        sets = [
            (each.targets.images[:, 0], torch.randn(shape, device=device, requires_grad=training)) for each in batches
        ]
        module, work = net.denoiser, floors.denoise_work(config, batch=batch, **options) * batch

        def forward(noisy: Tensor, feature_image: Tensor) -> Tensor:
            return net.denoise(noisy, sigma, feature_image, keys)

    weights = list(module.parameters()) if training else []
    fast = meter.time(rotating(partial(run, forward, weights, path="fast", precision=precision), sets))
    exact = [tuple(t.detach().float().requires_grad_(t.requires_grad) for t in each) for each in sets]
    plain = meter.time(rotating(partial(run, forward, weights, path="reference", precision="fp32"), exact), warmup=1)
    name += ", forward + backward" if training else ""
    return Result(name, fast.seconds * 1e3, "ms", precision, batch, fast.spread, work).beside(
        plain.seconds * 1e3, PLAIN
    )


def run(
    forward: Callable[..., Tensor], weights: Sequence[Tensor], inputs: tuple[Tensor, ...], *, path: str, precision: str
) -> None:
    """The output, and if there are weights, the gradients of these and of the inputs."""
    with PATHS[path](), float32_products(precision), torch.set_grad_enabled(bool(weights)):
        with autocast(precision, inputs[0].device):
            output = forward(*inputs)
        if weights:
            wanted = [tensor for tensor in (*inputs, *weights) if tensor.requires_grad]
            torch.autograd.grad(output, wanted, torch.ones_like(output))


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


if __name__ == "__main__":
    run_command(main)
