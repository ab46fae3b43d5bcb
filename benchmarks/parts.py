"""The parts of the model and of an update alone."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import common, floors
from benchmarks.common import DEVICE, Result
from benchmarks.model import PATHS, TrainingStep, ops_option, part_option, random_batch, random_net, training_config
from genvs import random as stateless_random
from genvs.config import PRESETS
from genvs.models.precision import autocast

NUM_SETS = 3
PARTS = ("encode", "render", "denoise", "update")


def part(name: str, preset: str, batch: int, views: int, precision: str, training: bool, seconds: float) -> Result:
    """A part's forward pass, and with `training` its backward pass too: `batch` scenes with one target each."""
    net, config = random_net(preset), PRESETS[preset]
    batches = [random_batch(config, batch, views, 1, seed).to(DEVICE) for seed in range(NUM_SETS)]
    keys = stateless_random.sample_keys(0, torch.arange(batch, device=DEVICE)) if training else None
    in_precision = partial(autocast, DEVICE, torch.bfloat16 if precision == "bf16" else None)
    module: nn.Module
    forward: Callable[..., Tensor]
    sets: list[tuple[Tensor, ...]]
    if name == "encode":
        module, forward = net.encoders, partial(net.encode, cameras=None)
        sets = [(each.inputs.images,) for each in batches]
        work = floors.encode_work(config, batch=batch * views, training=training) * views
    elif name == "render":
        with torch.no_grad(), in_precision():
            volume = net.encode(batches[0].inputs.images)  # for its type and order in memory
        inputs, targets = batches[0].inputs.cameras, batches[0].targets.cameras
        forward = partial(net.render, inputs=inputs, targets=targets, keys=None if keys is None else keys[:, None])
        module, sets = net.renderer, [(torch.empty_like(volume).normal_().requires_grad_(training),) for _ in batches]
        work = floors.render_work(config, views, training=training)
    else:
        shape = (batch, config.encoder.volume_channels, config.resolution, config.resolution)
        features = [torch.randn(shape, device=DEVICE, requires_grad=training) for _ in batches]
        sigma = torch.rand(batch, 1, 1, 1, device=DEVICE) + 0.1
        sets = [(each.targets.images[:, 0], sigma, image) for each, image in zip(batches, features, strict=True)]
        module, forward = net.denoisers, partial(net.denoise, keys=keys)
        work = floors.denoise_work(config, batch=batch, training=training)

    def run(inputs: tuple[Tensor, ...]) -> None:
        with torch.set_grad_enabled(training):
            with in_precision():
                output = forward(*inputs)
            if training:
                wanted = [tensor for tensor in (*inputs, *module.parameters()) if tensor.requires_grad]
                torch.autograd.grad(output, wanted, torch.ones_like(output))

    took, spread = common.timed(common.rotating(run, sets), seconds)
    name, floor = name + (", forward + backward" if training else ""), floors.floor(work * batch, precision)
    return Result(name, took * 1e3, "ms", precision, batch, spread, floor)


def update(preset: str, seconds: float) -> Result:
    """What follows the gradients: finite check, optimizer, moving average."""
    step = TrainingStep(training_config(preset, 1, 1, "fp32"), iter(()))
    parameters = list(step.state.net.parameters())
    gradients = [torch.randn_like(parameter) * 1e-3 for parameter in parameters]

    def call() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        step.update()

    took, spread = common.timed(call, seconds)
    floor = floors.floor(floors.update_work(PRESETS[preset]))
    return Result("optimizer + EMA + finite check", took * 1e3, "ms", "fp32", 1, spread, floor)


@common.benchmark
@common.size_option("batch", 32, 2, "Scenes at a time.")
@common.views_option
@common.seconds_option
@common.precision_option
@ops_option
@part_option(PARTS)
def main(
    preset: str, seconds: float, batch: int, views: int, precision: str, ops: str, names: tuple[str, ...]
) -> Iterator[Result]:
    """Encoder, renderer and denoiser, and what follows the gradients."""
    common.set_precision(precision)
    with PATHS[ops]():
        for name in names:
            if name == "update":
                yield update(preset, seconds)
            else:
                for training in (False, True):
                    yield part(name, preset, batch, views, precision, training, seconds)
