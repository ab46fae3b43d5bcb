"""The parts of the model and of an update alone, beside the plain torch path in strict fp32.

Before anything is timed, each fast part must agree with the plain path: from the plain path in strict fp32 it may be no
further than twice what the plain path itself loses by the same precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import click
import torch
from torch import Tensor

from benchmarks import floors
from benchmarks.common import (
    PLAIN,
    PRECISIONS,
    Meter,
    Result,
    Work,
    autocast,
    benchmark,
    check,
    float32_products,
    rotating,
)
from benchmarks.model import PATHS, TrainingStep, random_batch, random_net, training_config
from dnnlib.command import run_command
from genvs import random as stateless_random
from genvs.config import PRESETS

NUM_SETS = 3
PARTS = ("encode", "render", "denoise", "update")


@dataclass(frozen=True)
class Part:
    """forward: inputs to an output. sets: inputs to take in turn. weights: gradients are taken of these and of the
    inputs that ask for it; None for forward alone. work: of a call.
    """

    name: str
    forward: Callable[..., Tensor]
    sets: list[tuple[Tensor, ...]]
    work: Work
    weights: list[Tensor] | None
    gradient: dict[torch.Size, Tensor] = field(default_factory=dict)

    def run(self, inputs: tuple[Tensor, ...], *, path: str, precision: str) -> dict[str, list[Tensor]]:
        """The output, and the gradients where they are wanted."""
        with PATHS[path](), float32_products(precision), torch.set_grad_enabled(self.weights is not None):
            with autocast(precision, inputs[0].device):
                output = self.forward(*inputs)
            if self.weights is None:
                return {"output": [output]}
            # The same gradient comes in at every call, whatever path it takes.
            gradient = self.gradient.setdefault(output.shape, torch.randn_like(output.float())).to(output.dtype)
            wanted = [tensor for tensor in (*inputs, *self.weights) if tensor.requires_grad]
            return {"output": [output], "gradients": list(torch.autograd.grad(output, wanted, gradient))}


class Parts:
    """The parts of the preset's network, at `batch` scenes of `views` input views and one target."""

    def __init__(self, preset: str, batch: int, views: int, precision: str, device: torch.device) -> None:
        self.net, self.config, self.device = random_net(preset, device), PRESETS[preset], device
        self.batch, self.views, self.precision = batch, views, precision
        self.itemsize = 2 if precision == "bf16" else 4
        self.batches = [random_batch(self.config, batch, views, 1, seed).to(device) for seed in range(NUM_SETS)]
        self.keys = stateless_random.sample_keys(0, torch.arange(batch, device=device))

    def make(self, name: str, training: bool) -> Part:
        forward, sets, work = getattr(self, name)(training)
        module = {"encode": self.net.encoder, "render": self.net.renderer, "denoise": self.net.denoiser}[name]
        weights: list[Tensor] | None = list(module.parameters()) if training else None
        return Part(name + (", forward + backward" if training else ""), forward, sets, work, weights)

    def encode(self, training: bool) -> tuple:
        work = floors.encode_work(self.config, batch=self.batch * self.views, itemsize=self.itemsize, training=training)
        sets = [(batch.inputs.images,) for batch in self.batches]
        return self.net.encode, sets, work * (self.batch * self.views)

    def render(self, training: bool) -> tuple:
        with torch.no_grad(), autocast(self.precision, self.device):
            volume = self.net.encode(self.batches[0].inputs.images)  # for its type and order in memory
        sets = [(torch.empty_like(volume).normal_().requires_grad_(training),) for _ in self.batches]
        inputs, targets = self.batches[0].inputs.cameras, self.batches[0].targets.cameras
        forward = partial(
            self.net.render, inputs=inputs, targets=targets, keys=self.keys[:, None] if training else None
        )
        work = floors.render_work(self.config, self.views, itemsize=self.itemsize, training=training)
        return forward, sets, work * self.batch

    def denoise(self, training: bool) -> tuple:
        size, channels = self.config.resolution, self.config.encoder.volume_channels
        sigma = torch.rand(self.batch, 1, 1, 1, device=self.device) + 0.1
        keys = self.keys if training else None

        def forward(noisy: Tensor, feature_image: Tensor) -> Tensor:
            return self.net.denoise(noisy, sigma, feature_image, keys)

        sets = []
        for batch in self.batches:
            features = torch.randn(self.batch, channels, size, size, device=self.device)
            sets.append((batch.targets.images[:, 0], features.requires_grad_(training)))
        work = floors.denoise_work(self.config, batch=self.batch, itemsize=self.itemsize, training=training)
        return forward, sets, work * self.batch


def measure(part: Part, precision: str, batch: int, meter: Meter) -> Result:
    """Check the part, then time its fast path, and the plain path in strict fp32."""
    fast = partial(part.run, path="fast", precision=precision)
    exact = partial(part.run, path="reference", precision="fp32")
    sets = [
        tuple(tensor.detach().float().requires_grad_(tensor.requires_grad) for tensor in each) for each in part.sets
    ]
    outcomes = fast(part.sets[0]), part.run(part.sets[0], path="reference", precision=precision), exact(sets[0])
    check(part.name, *outcomes)
    del outcomes
    timing, plain = meter.time(rotating(fast, part.sets)), meter.time(rotating(exact, sets), warmup=1)
    return Result(
        part.name,
        timing.seconds * 1e3,
        "ms",
        precision,
        batch,
        timing.spread,
        part.work,
        baseline=plain.seconds * 1e3,
        baseline_name=PLAIN,
    )


@torch.no_grad()
def changes(now: Iterable[Tensor], before: Iterable[Tensor]) -> list[Tensor]:
    return [new - old for new, old in zip(now, before, strict=True)]


def update(preset: str, batch: int, meter: Meter) -> Result:
    """What follows the gradients, beside the same tensor by tensor: finite check, torch's Adam, moving average."""
    # A limit that no gradient reaches: then both do the same.
    config = training_config(preset, batch=batch, views=1, precision="fp32", max_grad_norm=1e9)
    step = TrainingStep(config, iter(()), meter.device)
    step.state.cur_nimg = 10 * batch  # the average moves, and fast enough to see more of it than rounding
    born = list(step.state.net.parameters())
    gradients = [torch.randn_like(parameter) * 1e-3 for parameter in born]
    assert config.ema_rampup_ratio is not None
    beta = 0.5 ** (batch / (step.state.cur_nimg * config.ema_rampup_ratio))
    weights, averages = ([parameter.detach().clone() for parameter in born] for _ in range(2))
    optimizer = torch.optim.Adam(weights, lr=config.lr)

    def hand_over(parameters: list) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def fast() -> None:
        hand_over(born)
        step.update()

    @torch.no_grad()
    def plain() -> None:
        hand_over(weights)
        for weight in weights:
            if weight.grad is not None:
                torch.nan_to_num(weight.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=weight.grad)
        optimizer.step()
        for average, weight in zip(averages, weights, strict=True):
            average.copy_(weight.lerp(average, beta))

    start = [weight.clone() for weight in weights]
    fast()
    plain()
    ours, exact = (
        {"change of weights": changes(now, start), "change of averages": changes(averaged, start)}
        for now, averaged in ((born, step.state.ema.net.parameters()), (weights, averages))
    )
    check("optimizer and EMA", ours, exact, exact)
    timing, baseline = meter.time(fast), meter.time(plain)
    return Result(
        "optimizer + EMA + finite check",
        timing.seconds * 1e3,
        "ms",
        "fp32",
        1,
        timing.spread,
        floors.update_work(PRESETS[preset]),
        baseline=baseline.seconds * 1e3,
        baseline_name="plain way",
    )


@click.option("--batch", type=click.IntRange(min=1), help="Scenes at a time.", show_default="32, 2 on a CPU")
@click.option("--views", type=click.IntRange(min=1), default=2, show_default=True, help="Input views of a scene.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="bf16", show_default=True)
@click.option("--part", "names", type=click.Choice(PARTS), multiple=True, default=PARTS, show_default="all")
@benchmark("parts")
def main(
    preset: str, meter: Meter, batch: int | None, views: int, precision: str, names: tuple[str, ...]
) -> Iterator[Result]:
    """Encoder, renderer, denoiser, and what follows the gradients, each beside the plain path in strict fp32."""
    batch, precision = batch or (32 if meter.on_gpu else 2), meter.precision(precision)
    torch.backends.cudnn.benchmark = True
    parts = Parts(preset, batch, views, precision, meter.device)
    for name in names:
        if name == "update":
            yield update(preset, batch, meter)
        else:
            for training in (False, True):
                yield measure(parts.make(name, training), precision, batch, meter)


if __name__ == "__main__":
    run_command(main)
