"""How much work the model must do, from its config alone, and how long that takes at the least.

Operations are floating-point, a multiply-add counts two, of convolutions and matrix products (all else is below 1% of
them). Bytes are the fewest that device memory must move: what comes in is read once, what goes out is written once. The
floor is the longer of operations over the arithmetic unit's rate and bytes over the memory's bandwidth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import click

from benchmarks.common import Meter, Result, Work, benchmark
from dnnlib.command import run_command
from genvs.config import PRESETS, STEM_STRIDE, GeNVSConfig

RATES = {"bf16": 790e12}  # operations/s of an H200's large matrix products, measured
BANDWIDTH = 4.3e12  # bytes/s of its memory, read plus written, measured
COMPUTED = "none: an H200's rates"  # in place of the device, which computes floors but is not what they are of
# Adam reads and writes a weight and two moments and reads the gradient; the moving average is read and written.
UPDATE_BYTES = 9 * 4


@dataclass(frozen=True)
class Layers:
    """Of some layers: operations of a forward pass, parameters, and operations that a backward pass, twice a forward
    one, is spared (gradients that nobody needs).
    """

    operations: int = 0
    parameters: int = 0
    spared: int = 0

    def __add__(self, other: Layers) -> Layers:
        return Layers(
            self.operations + other.operations, self.parameters + other.parameters, self.spared + other.spared
        )

    @property
    def training(self) -> int:
        """Operations forward and backward: gradients of inputs and of weights each take as many as forward."""
        return 3 * self.operations - self.spared


def total(layers) -> Layers:
    return sum(layers, Layers())


def conv(inputs: int, outputs: int, side: int, kernel: int = 3, *, groups: int = 1, bias: bool = True) -> Layers:
    """A convolution whose output is `side` pixels wide."""
    weights = kernel**2 * inputs // groups * outputs
    return Layers(2 * weights * side**2, weights + bias * outputs)


def upsampling(inputs: int, outputs: int, side: int) -> Layers:
    """A 2x2 transposed convolution of stride 2, from `side` pixels to twice as many."""
    return Layers(2 * 4 * inputs * outputs * side**2, 4 * inputs * outputs + outputs)


def separable(inputs: int, outputs: int, side: int) -> Layers:
    return conv(inputs, inputs, side, groups=inputs, bias=False) + conv(inputs, outputs, side, 1)


def stage(inputs: int, outputs: int, side: int) -> Layers:
    return conv(inputs, outputs, side) + conv(outputs, outputs, side) + conv(outputs, outputs, side)


def norm(channels: int) -> Layers:
    return Layers(parameters=2 * channels)


def backbone(config: GeNVSConfig) -> Layers:
    """The ResNet, per input view."""
    widths, side = config.encoder.widths, config.resolution // 2
    stem = conv(3, widths[0], side, 7)
    # Images need no gradient.
    layers, channels, side = stem + Layers(spared=stem.operations), widths[0], side // 2
    for width, blocks, stride in zip(widths, config.encoder.blocks, (1, 2, 2, 1), strict=True):
        side //= stride
        if stride != 1 or channels != width:
            layers += conv(channels, width, side, 1)
        layers += conv(channels, width, side) + total([conv(width, width, side)] * (2 * blocks - 1))
        channels = width
    return layers


def encoder(config: GeNVSConfig) -> Layers:
    """Everything from an input image to its feature volume, per input view."""
    shape, size = config.encoder, config.resolution
    w1, w2, w3, w4 = shape.widths
    channels, rates = shape.decoder_channels, len(shape.aspp_rates)
    s4, s8, s16 = size // 4, size // 8, size // 16
    aspp = conv(w4, channels, s16, 1) + conv(w4, channels, 1, 1) + conv((rates + 2) * channels, channels, s16, 1)
    aspp += total([separable(w4, channels, s16)] * rates) + separable(channels, channels, s16)
    layers = backbone(config) + aspp
    layers += stage(w3 + w4 + channels, channels, s16) + upsampling(channels, channels, s16)
    layers += stage(w2 + channels, channels, s8) + upsampling(channels, channels, s8)
    layers += stage(w1 + channels, channels, s4)
    layers += conv(w1, shape.low_level_channels, s4, 1) + separable(channels + shape.low_level_channels, channels, s4)
    side, num_ups = s4, int(math.log2(shape.volume_width * STEM_STRIDE // size))
    for skip in (w1, 3)[:num_ups]:
        layers += upsampling(channels, channels, side)
        side *= 2
        layers += stage(skip + channels, channels, side)
    return layers + conv(channels + 3, shape.volume_channels * shape.volume_depth, side, 1)


def renderer(config: GeNVSConfig, views: int) -> Layers:
    """The field's MLP and the mean over input views at all samples of all rays, per target; interpolation is bytes."""
    shape, channels, hidden = config.renderer, config.encoder.volume_channels, config.renderer.hidden_channels
    weights = channels * hidden + hidden * hidden + hidden * (1 + channels)
    sample = 2 * (weights + views * channels) * shape.render_width**2
    return Layers(sample * shape.num_samples, weights + 2 * hidden + 1 + channels)


def denoiser(config: GeNVSConfig) -> Layers:
    """One evaluation of the U-Net for one image (its connections: genvs/models/unet.py)."""
    shape, size = config.denoiser, config.resolution
    base, blocks = shape.model_channels, shape.blocks_per_level
    widths = [base * factor for factor in shape.channel_mult]
    attends = [size >> level in shape.attention_resolutions for level in range(len(widths))]

    def block(inputs: int, outputs: int, side: int, *, resamples: bool = False, attention: bool = False) -> Layers:
        layers = norm(inputs) + conv(inputs, outputs, side) + norm(outputs) + conv(outputs, outputs, side)
        layers += conv(4 * base, outputs, 1, 1)  # a linear layer of the noise embedding
        if inputs != outputs or resamples:
            layers += conv(inputs, outputs, side, 1)
        if attention:
            layers += norm(outputs) + conv(outputs, 3 * outputs, side, 1) + conv(outputs, outputs, side, 1)
            layers += Layers(operations=2 * 2 * side**4 * outputs)  # query times key, and weights times value
        return layers

    layers = conv(base, 4 * base, 1, 1) + conv(4 * base, 4 * base, 1, 1)
    branch, channels = 3 + config.encoder.volume_channels, base
    layers += conv(branch, base, size)
    skips = [base]
    for level, width in enumerate(widths):
        if level > 0:
            layers += block(channels, channels, size >> level, resamples=True)
            if shape.residual_encoder:
                layers += conv(branch, channels, size >> (level - 1))
                branch = channels
            skips.append(channels)
        for _ in range(blocks):
            layers += block(channels, width, size >> level, attention=attends[level])
            channels = width
            skips.append(channels)
    coarsest = size >> (len(widths) - 1)
    layers += block(channels, channels, coarsest, attention=True) + block(channels, channels, coarsest)
    for level in reversed(range(len(widths))):
        if level < len(widths) - 1:
            layers += block(channels, channels, size >> level, resamples=True)
        for index in range(blocks + 1):
            attention = index == blocks and attends[level]
            layers += block(channels + skips.pop(), widths[level], size >> level, attention=attention)
            channels = widths[level]
    return layers + norm(channels) + conv(channels, 3, size)


def volume_bytes(config: GeNVSConfig, itemsize: int) -> int:
    """Of one input view's feature volume."""
    shape = config.encoder
    return shape.volume_channels * shape.volume_depth * shape.volume_width**2 * itemsize


def _work(layers: Layers, moved: float, training: bool) -> Work:
    """Backward reads what forward read and wrote, and writes the gradients of what it read."""
    return Work(layers.training, 3 * moved) if training else Work(layers.operations, moved)


def encode_work(config: GeNVSConfig, *, batch: float = 1, itemsize: int = 2, training: bool = False) -> Work:
    """One input view: its share of the weights is read, its volume is written.

    batch: views that share the weights. itemsize: bytes of a number.
    """
    layers = encoder(config)
    return _work(layers, layers.parameters / batch * itemsize + volume_bytes(config, itemsize), training)


def render_work(config: GeNVSConfig, views: int, *, itemsize: int = 2, training: bool = False) -> Work:
    """One target: the input views' volumes are read, the small feature image is written.

    Whole volumes are counted, of which a target's rays miss about a third. Backward, the image's gradient is read and
    the volumes' are written; what forward read need not be read again.
    """
    image = config.encoder.volume_channels * config.renderer.render_width**2 * itemsize
    layers, moved = renderer(config, views), views * volume_bytes(config, itemsize) + image
    return Work(layers.training, 2 * moved) if training else Work(layers.operations, moved)


def denoise_work(config: GeNVSConfig, *, batch: int = 1, itemsize: int = 2, training: bool = False) -> Work:
    """One image and one evaluation. batch: images that share the weights."""
    layers = denoiser(config)
    pixels = (2 * 3 + config.encoder.volume_channels) * config.resolution**2
    return _work(layers, (layers.parameters / batch + pixels) * itemsize, training)


def parameters(config: GeNVSConfig) -> int:
    return (encoder(config) + renderer(config, 1) + denoiser(config)).parameters


def update_work(config: GeNVSConfig) -> Work:
    """Optimizer step, moving average and finite check, once an update."""
    return Work(0, parameters(config) * UPDATE_BYTES)


def training_work(config: GeNVSConfig, views: int, *, batch: int, targets: int = 1) -> Work:
    """One target image's share of an update: its scene's `views` are encoded once for all its `targets`."""
    scenes = batch / targets
    per_scene = encode_work(config, batch=scenes * views, training=True) * views
    per_image = render_work(config, views, training=True) + denoise_work(config, batch=batch, training=True)
    return per_scene * (1 / targets) + per_image + update_work(config) * (1 / batch)


def sampling_work(config: GeNVSConfig, evaluations: int, *, batch: int) -> Work:
    """One view from its feature image."""
    return denoise_work(config, batch=batch) * evaluations


@click.option("--views", type=click.IntRange(min=1), default=2, show_default=True, help="Input views.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Images that share weights.")
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
        "25 Heun steps (49 evaluations), 1 view": sampling_work(config, 49, batch=batch),
    }
    for name, work in rows.items():
        note = f"{work.operations / 1e9:.4g} GFLOP, {work.bytes / 1e6:.4g} MB"
        seconds = work.seconds(RATES["bf16"], BANDWIDTH)
        yield Result(f"floor: {name}", seconds * 1e3, "ms", precision="bf16", batch=batch, note=note)


if __name__ == "__main__":
    run_command(main)
