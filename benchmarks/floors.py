"""How much work the model must do, and the shortest time that takes.

Operations are what torch's counter counts as the networks run on its meta device, which computes nothing: those of
convolutions and matrix products, a multiply-add counts two. A backward pass takes twice a forward one. Bytes are the
fewest that device memory must move: what comes in is read once, what goes out is written once. The floor is the longer
of operations over the arithmetic unit's rate and bytes over the memory's bandwidth.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Meter, Result, Work, benchmark
from benchmarks.model import random_cameras
from dnnlib.command import run_command
from genvs.config import PRESETS, GeNVSConfig
from genvs.models import GeNVS

FIGURES = json.loads(Path(__file__).with_name("reference_figures.json").read_text())
# Operations/s of an H200's large matrix products and bytes/s of its memory, read plus written, both measured.
RATES, BANDWIDTH = FIGURES["rates"], FIGURES["bandwidth"]
# Adam reads and writes a weight and two moments and reads the gradient; the moving average is read and written.
UPDATE_BYTES = 9 * 4


@functools.cache
def count(config: GeNVSConfig, views: int = 1) -> dict[str, tuple[int, int]]:
    """Operations forward and number of parameters of: encoding one of `views` input views, rendering one target from
    them, and one evaluation of the denoiser for one image."""
    with torch.device("meta"):
        net, size = GeNVS(config), config.resolution
        images, noisy, sigma = torch.empty(1, views, 3, size, size), torch.empty(1, 3, size, size), torch.ones(1)
    inputs, targets = (random_cameras(config, (1, n), torch.Generator()).to("meta") for n in (views, 1))

    def counted(call: Callable[[], Tensor], module: nn.Module) -> tuple[Tensor, tuple[int, int]]:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            result = call()
        return result, (counter.get_total_flops(), sum(parameter.numel() for parameter in module.parameters()))

    volume, encoder = counted(lambda: net.encode(images), net.encoder)
    features, renderer = counted(lambda: net.render(volume, inputs, targets), net.renderer)
    _, denoiser = counted(lambda: net.denoise(noisy, sigma, features[0]), net.denoiser)
    return {"encode": (encoder[0] // views, encoder[1]), "render": renderer, "denoise": denoiser}


def volume_bytes(config: GeNVSConfig, itemsize: int) -> int:
    """Of one input view's feature volume."""
    shape = config.encoder
    return shape.volume_channels * shape.volume_depth * shape.volume_width**2 * itemsize


def encode_work(config: GeNVSConfig, *, batch: float = 1, itemsize: int = 2, training: bool = False) -> Work:
    """One input view: its share of the weights is read, its volume is written.

    batch: views that share the weights. itemsize: bytes of a number.
    """
    operations, parameters = count(config)["encode"]
    moved = parameters / batch * itemsize + volume_bytes(config, itemsize)
    # Backward reads what forward read and wrote, and writes the gradients of what it read.
    return Work(operations, moved) * (3 if training else 1)


def render_work(config: GeNVSConfig, views: int, *, itemsize: int = 2, training: bool = False) -> Work:
    """One target: the input views' volumes are read, the small feature image is written.

    Whole volumes are counted, of which a target's rays miss about a third. Backward, the image's gradient is read and
    the volumes' are written; what forward read need not be read again.
    """
    image = config.encoder.volume_channels * config.renderer.render_width**2 * itemsize
    operations, moved = count(config, views)["render"][0], views * volume_bytes(config, itemsize) + image
    return Work(3 * operations, 2 * moved) if training else Work(operations, moved)


def denoise_work(config: GeNVSConfig, *, batch: int = 1, itemsize: int = 2, training: bool = False) -> Work:
    """One image and one evaluation. batch: images that share the weights."""
    operations, parameters = count(config)["denoise"]
    pixels = (2 * 3 + config.encoder.volume_channels) * config.resolution**2
    return Work(operations, (parameters / batch + pixels) * itemsize) * (3 if training else 1)


def update_work(config: GeNVSConfig) -> Work:
    """Optimizer step, moving average and finite check, once an update."""
    return Work(0, UPDATE_BYTES * sum(parameters for _, parameters in count(config).values()))


def training_work(config: GeNVSConfig, views: int, *, batch: int, targets: int = 1) -> Work:
    """One target image's share of an update: its scene's `views` are encoded once for all its `targets`."""
    per_scene = encode_work(config, batch=batch / targets * views, training=True) * views
    per_image = render_work(config, views, training=True) + denoise_work(config, batch=batch, training=True)
    return per_scene * (1 / targets) + per_image + update_work(config) * (1 / batch)


@click.option("--views", type=click.IntRange(min=1), default=2, help="Input views.")
@click.option("--batch", type=click.IntRange(min=1), default=32, help="Images that share weights.")
@benchmark("floors")
def main(preset: str, meter: Meter, views: int, batch: int) -> Iterator[Result]:
    """Operations, bytes and least times of the model's parts, at measured rates of an H200 in bf16."""
    config = PRESETS[preset]
    rows = {
        "encode, 1 view": encode_work(config, batch=batch * views),
        f"render, {views} views": render_work(config, views),
        "denoise, 1 evaluation": denoise_work(config, batch=batch),
        f"render, {views} views, forward + backward": render_work(config, views, training=True),
        "optimizer, EMA and finite check": update_work(config),
        f"training, 1 sample, {views} views": training_work(config, views, batch=batch),
        "25 Heun steps (49 evaluations), 1 view": denoise_work(config, batch=batch) * 49,
    }
    for name, work in rows.items():
        note = f"{work.operations / 1e9:.4g} GFLOP, {work.bytes / 1e6:.4g} MB"
        yield Result(f"floor: {name}", work.seconds(RATES["bf16"], BANDWIDTH) * 1e3, "ms", "bf16", batch, note=note)


if __name__ == "__main__":
    run_command(main)
