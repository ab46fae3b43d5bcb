"""The unofficial implementation's names of its weights, and a network of ours with its weights.

Its U-Nets have the names that EDM gave them (arXiv 2206.00364): a block is named by its resolution, its kind and its
number. `published_name` is the table; `network_of` reads the sizes and the architecture from the names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genvs.compat.unofficial import UnofficialGeNVS
from genvs.config import UNOFFICIAL, DenoiserConfig, EncoderConfig, GeNVSConfig, RendererConfig, parse_view_weighting
from genvs.errors import InputError

ENCODER, UNET, WEIGHTING = "pixel_nerf_net.encoder", "denoiser.model", "pixel_nerf_net.cam_weighter"

# Ours to theirs, in modules other than the U-Net's blocks. The first that matches is taken.
NAMES = (
    (r"encoder\.backbone\.(.*)", rf"{ENCODER}.encoder.\1"),
    (r"encoder\.aspp\.pointwise\.0\.(.*)", rf"{ENCODER}.decoder.aspp.0.convs.0.0.\1"),
    (r"encoder\.aspp\.pooled\.0\.(.*)", rf"{ENCODER}.decoder.aspp.0.convs.4.1.\1"),
    (r"encoder\.aspp\.project\.0\.(.*)", rf"{ENCODER}.decoder.aspp.0.project.0.\1"),
    (r"encoder\.aspp\.refine\.(.*)", rf"{ENCODER}.decoder.aspp.1.\1"),
    (r"encoder\.low_level\.0\.(.*)", rf"{ENCODER}.decoder.block1.0.\1"),
    (r"encoder\.fuse\.(.*)", rf"{ENCODER}.decoder.block2.0.\1"),
    (r"encoder\.to_volume\.(.*)", rf"{ENCODER}.volume_head.reshape_conv.\1"),
    (r"denoiser\.unet\.embed(\d)\.(.*)", rf"{UNET}.map_layer\1.\2"),
    (r"denoiser\.unet\.frequencies", rf"{UNET}.map_noise.freqs"),  # NCSN++
    (r"renderer\.view_weights\.(.*)", rf"{WEIGHTING}.\1"),
)
STAGES = {"stage16": "stage1", "up8": "upconv1", "stage8": "stage2", "up4": "upconv2", "stage4": "stage3"}

# What the unofficial network has and never uses (normalisation layers, which it bypasses, a segmentation head, labels
# of augmentations), and constants.
UNUSED = re.compile(
    rf"{re.escape(ENCODER)}\.segmentation_head\..*|{re.escape(UNET)}\.map_augment\..*|.*\.resample_filter"
    r"|.*positional_encoder\._(freqs|phases)"
)
RESAMPLE_TAPS = {"ddpmpp": 2, "ncsnpp": 4, "adm": 2}  # of the filters [1, 1] and [1, 3, 3, 1]


def published_name(name: str, config: GeNVSConfig) -> str:
    """The unofficial implementation's name of our parameter or buffer `name`."""
    for ours, theirs in NAMES:
        if match := re.fullmatch(ours, name):
            return match.expand(theirs)
    part, *rest = name.split(".")[1:]
    if part == "aspp":
        return f"{ENCODER}.decoder.aspp.0.convs.{int(rest[1]) + 1}.0.{'.'.join(rest[2:])}"
    if part in STAGES:
        return f"{ENCODER}.decoder.modified_up.{STAGES[part]}.{_in_stage(rest)}"
    if part in ("head_ups", "head_stages"):
        stage = "upconv" if part == "head_ups" else "stage"
        return f"{ENCODER}.volume_head.up.{stage}{int(rest[0]) + 1}.{_in_stage(rest[1:])}"
    if part == "field":
        return f"pixel_nerf_net.mlp.layers.{int(rest[1]) // 2}.{rest[2]}"
    block, *rest = _unet_place(rest, config)
    rest = [{"norm": "norm2"}.get(layer, layer) for layer in rest if layer != "attention"]
    return ".".join([UNET, block, *rest])


def _in_stage(rest: list[str]) -> str:
    """Our convolutions are each module `0` of a sequence of their own; theirs are every second module of one."""
    return f"{2 * int(rest[0])}.{rest[2]}" if len(rest) == 3 else ".".join(rest)


def _unet_place(rest: list[str], config: GeNVSConfig) -> list[str]:
    """The path in their U-Net of `rest` in ours, where blocks are numbered and not named by their resolution."""
    part, *rest = rest
    size, coarsest = config.resolution, config.resolution >> (len(config.denoiser.channel_mult) - 1)
    single = {"conv_in": f"enc.{size}x{size}_conv", "norm_out": f"dec.{size}x{size}_aux_norm"}
    single["conv_out"] = f"dec.{size}x{size}_aux_conv"
    if config.denoiser.arch == "adm":
        single |= {"norm_out": "out_norm", "conv_out": "out_conv"}
    if part in single:
        return [single[part], *rest]
    index = int(rest[0])
    if part == "residual_convs":
        return [f"enc.{size >> (index + 1)}x{size >> (index + 1)}_aux_residual", *rest[1:]]
    if part == "middle":
        return [f"dec.{coarsest}x{coarsest}_in{index}", *rest[1:]]
    return [list(_blocks(part, config))[index], *rest[1:]]


def _blocks(part: str, config: GeNVSConfig) -> Iterator[str]:
    """Their names of the blocks of our `encoder` or `decoder`, in order."""
    levels, blocks = len(config.denoiser.channel_mult), config.denoiser.blocks_per_level
    for step in range(levels):
        size = config.resolution >> (step if part == "encoder" else levels - 1 - step)
        prefix = f"{part[:3]}.{size}x{size}"
        if step > 0:
            yield f"{prefix}_{'down' if part == 'encoder' else 'up'}"
        yield from (f"{prefix}_block{index}" for index in range(blocks + (part == "decoder")))


def config_of(weights: Mapping[str, Tensor], view_weighting: str) -> GeNVSConfig:
    """The sizes that the weights have. Raises LookupError or ValueError if they are not the unofficial network's."""

    def width(name: str, dimension: int = 0) -> int:
        return weights[f"{name}.weight"].shape[dimension]

    def numbers(pattern: str) -> list[int]:
        return sorted({int(match[1]) for name in weights if (match := re.match(pattern, name))})

    unet, resnet, decoder = re.escape(UNET), f"{ENCODER}.encoder", f"{ENCODER}.decoder"
    sizes = numbers(rf"{unet}\.enc\.(\d+)x\1_block0\.")[::-1]
    channels, features = width(f"{UNET}.enc.{sizes[0]}x{sizes[0]}_conv"), width("pixel_nerf_net.mlp.layers.0", 1)
    layers = [f"{resnet}.layer{number}" for number in range(1, 5)]
    blocks = [len(numbers(rf"{re.escape(layer)}\.(\d+)\.")) for layer in layers]
    widths = [width(f"{layer}.0.conv1") for layer in layers]
    encoder = EncoderConfig(
        widths=(widths[0], widths[1], widths[2], widths[3]),
        blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
        aspp_rates=(12, 24, 36),
        decoder_channels=width(f"{decoder}.aspp.0.project.0"),
        low_level_channels=width(f"{decoder}.block1.0"),
        volume_channels=features,
        volume_depth=width(f"{ENCODER}.volume_head.reshape_conv") // features,
        volume_width=sizes[0],
    )
    marks = {"adm": "out_conv.weight", "ncsnpp": "map_noise.freqs"}
    denoiser = DenoiserConfig(
        arch=next((arch for arch, mark in marks.items() if f"{UNET}.{mark}" in weights), "ddpmpp"),
        model_channels=channels,
        channel_mult=tuple(width(f"{UNET}.enc.{size}x{size}_block0.conv1") // channels for size in sizes),
        blocks_per_level=len(numbers(rf"{unet}\.enc\.{sizes[0]}x{sizes[0]}_block(\d+)\.")),
        attention_resolutions=tuple(numbers(rf"{unet}\.enc\.(\d+)x\1_block0\.qkv\.")[::-1]),
        residual_encoder=any(name.endswith("_aux_residual.weight") for name in weights),
    )
    hidden = width("pixel_nerf_net.mlp.layers.0")
    renderer = RendererConfig(hidden_channels=hidden, num_samples=64, render_width=sizes[0] // 2)
    return GeNVSConfig(
        resolution=sizes[0],
        numerics=UNOFFICIAL,
        view_weighting=view_weighting,
        encoder=encoder,
        renderer=renderer,
        denoiser=denoiser,
    )


def learned_view_weighting(weights: Mapping[str, Tensor]) -> str:
    """The view weighting that has such weights; the mean, which is the default, where there are none."""
    known = {"query_layer": "learned_cross_attention", "multihead_attention": "relative_pose_self_attention"}
    parts = {name.removeprefix(f"{WEIGHTING}.").partition(".")[0] for name in weights if name.startswith(WEIGHTING)}
    return next((known[part] for part in sorted(parts) if part in known), "baseline_mean")


class WithoutNormal(TorchFunctionMode):
    """Skips normal initialisation, for which torch would import for seconds on the meta device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return kwargs.get("tensor", *args[:1])
        return func(*args, **kwargs)


def network_of(weights: Mapping[str, Tensor], view_weighting: str | None = None) -> UnofficialGeNVS:
    """A network with the unofficial implementation's weights, given by its names.

    view_weighting: its name, where the file states it; otherwise it is recognised by its weights.
    Raises InputError, without a file's name, where a weight is missing, of another shape or unknown.
    """
    view_weighting = view_weighting or learned_view_weighting(weights)
    parse_view_weighting(view_weighting)
    try:
        config = config_of(weights, view_weighting)
        with torch.device("meta"), WithoutNormal():  # shapes without memory, to compare with the weights
            net = UnofficialGeNVS(config)
    except (LookupError, ArithmeticError, ValueError, RuntimeError):
        raise InputError("its weights are not those of an encoder on a ResNet and one of EDM's U-Nets") from None
    names = {name: published_name(name, config) for name in net.state_dict()}
    taps = RESAMPLE_TAPS[config.denoiser.arch]
    for name in weights.keys() - set(names.values()):
        is_norm = f"{name.rpartition('.')[0]}.running_mean" in weights
        if not is_norm and not UNUSED.fullmatch(name):
            raise InputError(f"its weight {name!a:.80} is not known")
        if name.endswith(".resample_filter") and weights[name].shape != (1, 1, taps, taps):
            raise InputError(f"its filter {name!a:.80} is not of {taps}x{taps} taps, as that U-Net's is here")
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    state = {
        name: torch.zeros(ours.shape)  # a bias that the unofficial network does not have
        if name in frozen and names[name] not in weights
        else _converted(weights.get(names[name]), ours.shape, names[name], config.encoder)
        for name, ours in net.state_dict().items()
    }
    net.load_state_dict(state, assign=True)
    return net


def _converted(weight: Tensor | None, shape: torch.Size, theirs: str, encoder: EncoderConfig) -> Tensor:
    """The weight that they call `theirs`, as our parameter of `shape` has it."""
    if weight is None:
        raise InputError(f"its weight {theirs} is missing")
    is_head, is_bias = "reshape_conv" in theirs, len(shape) == 1
    wanted = (shape[0], encoder.decoder_channels, 1, 1) if is_head and not is_bias else tuple(shape)
    if tuple(weight.shape) != wanted:
        raise InputError(f"its weight {theirs} is of shape {tuple(weight.shape)}, and not {wanted}")
    if weight.layout != torch.strided or weight.is_meta:
        raise InputError(f"its weight {theirs} is no usual tensor")
    weight = weight.float()
    if not is_head:
        return weight.clone()
    # The head's outputs have the channels for their slower index, and begin with the farthest depth. Ours also sees
    # the image's colours, with weights that are 0 here.
    head = weight.reshape(encoder.volume_channels, encoder.volume_depth, -1).transpose(0, 1).flip(0)
    return head.flatten() if is_bias else F.pad(head.flatten(0, 1), (0, shape[1] - encoder.decoder_channels))
