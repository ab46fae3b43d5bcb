"""The reimplementation's weights, by its names, as a config and weights of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genvs.compat.unofficial import UnofficialGeNVS
from genvs.config import UNOFFICIAL, DenoiserConfig, EncoderConfig, GeNVSConfig, RendererConfig
from genvs.errors import InputError

ENCODER, UNET, WEIGHTING = "pixel_nerf_net.encoder", "denoiser.model", "pixel_nerf_net.cam_weighter"

# Ours to theirs, in modules other than the U-Net's blocks; tried in this order, and the first that fits is taken.
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
    (r"renderer\.view_weights\.(.*)", rf"{WEIGHTING}.\1"),
)
STAGES = {"stage16": "stage1", "up8": "upconv1", "stage8": "stage2", "up4": "upconv2", "stage4": "stage3"}

# What theirs has and never uses: normalisation layers, which it bypasses, a head for segmentation, labels of
# augmentations; and constants.
UNUSED = re.compile(
    rf"{re.escape(ENCODER)}\.segmentation_head\..*|{re.escape(UNET)}\.map_augment\..*|.*\.resample_filter"
    r"|.*positional_encoder\._(freqs|phases)"
)
MAX_BLOCKS = 64  # of one kind
RESAMPLE_SHAPE = (1, 1, 2, 2)  # of the filter [1, 1], the only one that ours has


def published_name(name: str, config: GeNVSConfig) -> str:
    """What the reimplementation calls our parameter `name`."""
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
    """A convolution of ours is a module `0` in its own sequence; theirs are every second one of one sequence."""
    return f"{2 * int(rest[0])}.{rest[2]}" if len(rest) == 3 else ".".join(rest)


def _unet_place(rest: list[str], config: GeNVSConfig) -> list[str]:
    """Theirs for a path below our U-Net: ours counts the blocks that theirs names by resolution."""
    part, *rest = rest
    size, coarsest = config.resolution, config.resolution >> (len(config.denoiser.channel_mult) - 1)
    single = {"conv_in": f"enc.{size}x{size}_conv", "norm_out": f"dec.{size}x{size}_aux_norm"}
    single["conv_out"] = f"dec.{size}x{size}_aux_conv"
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


def config_of(weights: Mapping[str, Tensor]) -> GeNVSConfig:
    """The sizes that the weights have. Raises LookupError, and others, where they are not the reimplementation's."""

    def width(name: str, dimension: int = 0) -> int:
        return weights[f"{name}.weight"].shape[dimension]

    def numbers(pattern: str) -> list[int]:
        found = {int(match[1]) for name in weights if (match := re.match(pattern, name))}
        if len(found) > MAX_BLOCKS:
            raise ValueError("a network of so many blocks takes minutes to make, and is none of theirs")
        return sorted(found)

    unet, resnet, decoder = re.escape(UNET), f"{ENCODER}.encoder", f"{ENCODER}.decoder"
    sizes = numbers(rf"{unet}\.enc\.(\d+)x\1_block0\.")[::-1]
    channels, features = width(f"{UNET}.enc.{sizes[0]}x{sizes[0]}_conv"), width("pixel_nerf_net.mlp.layers.0", 1)
    layers = [f"{resnet}.layer{number}" for number in range(1, 5)]
    blocks = [len(numbers(rf"{re.escape(layer)}\.(\d+)\.")) for layer in layers]
    widths = [width(f"{layer}.0.conv1") for layer in layers]
    encoder = EncoderConfig(
        widths=(widths[0], widths[1], widths[2], widths[3]),
        blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
        decoder_channels=width(f"{decoder}.aspp.0.project.0"),
        low_level_channels=width(f"{decoder}.block1.0"),
        volume_channels=features,
        volume_depth=width(f"{ENCODER}.volume_head.reshape_conv") // features,
        volume_width=sizes[0],
    )
    denoiser = DenoiserConfig(
        model_channels=channels,
        channel_mult=tuple(width(f"{UNET}.enc.{size}x{size}_block0.conv1") // channels for size in sizes),
        blocks_per_level=len(numbers(rf"{unet}\.enc\.{sizes[0]}x{sizes[0]}_block(\d+)\.")),
        attention_resolutions=tuple(numbers(rf"{unet}\.enc\.(\d+)x\1_block0\.qkv\.")),
        residual_encoder=any(name.endswith("_aux_residual.weight") for name in weights),
    )
    renderer = RendererConfig(hidden_channels=width("pixel_nerf_net.mlp.layers.0"), render_width=sizes[0] // 2)
    return GeNVSConfig(
        resolution=sizes[0],
        numerics=UNOFFICIAL,
        view_weighting=view_weighting_of(weights),
        encoder=encoder,
        renderer=renderer,
        denoiser=denoiser,
    )


def view_weighting_of(weights: Mapping[str, Tensor]) -> str:
    """How its network weighs views, if that has weights; those without leave no trace, and the mean is the default."""
    known = {"query_layer": "learned_cross_attention", "multihead_attention": "relative_pose_self_attention"}
    parts = {name.removeprefix(f"{WEIGHTING}.").partition(".")[0] for name in weights if name.startswith(WEIGHTING)}
    return next((known[part] for part in sorted(parts) if part in known), "baseline_mean")


class Unfilled(TorchFunctionMode):
    """Within, nothing is filled with random numbers: what is made is there to be given weights."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        fills = getattr(func, "__module__", "") == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_)
        if fills:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def network_of(weights: Mapping[str, Tensor]) -> UnofficialGeNVS:
    """A network with the reimplementation's weights, given by its names.

    Raises InputError, without a file's name, where one is missing, of another shape or unknown.
    """
    check_plain(weights)
    try:
        config = config_of(weights)
        with torch.device("meta"), Unfilled():  # sizes without memory, to be compared with those of the weights
            net = UnofficialGeNVS(config)
    except (LookupError, ArithmeticError, ValueError, RuntimeError):
        raise InputError("its weights are not those of the published network, a DDPM++ U-Net on a ResNet") from None
    names = {name: published_name(name, config) for name in net.state_dict()}
    unknown = weights.keys() - set(names.values())
    for name in unknown:
        is_norm = f"{name.rpartition('.')[0]}.running_mean" in weights
        if not is_norm and not UNUSED.fullmatch(name):
            raise InputError(f"its weight {name!a:.80} is not known")
        if name.endswith(".resample_filter") and weights[name].shape != RESAMPLE_SHAPE:
            raise InputError(f"its filter {name!a:.80} is not [1, 1], the only one that this program has for it")
    state = {
        name: _converted(weights.get(names[name]), parameter.shape, names[name], config.encoder)
        for name, parameter in net.state_dict().items()
    }
    net.load_state_dict(state, assign=True)
    return net


def check_plain(weights: Mapping[str, Tensor]) -> None:
    """Raises InputError unless each is an array of numbers that is no larger than what its file holds for it.

    Two may be the same numbers, but not many, for each becomes a copy.
    """
    for name, weight in weights.items():
        usual = weight.layout == torch.strided and weight.device.type == "cpu" and not weight.is_quantized
        if not usual or weight.nbytes > weight.untyped_storage().nbytes():
            raise InputError(f"its weight {name!a:.80} is no usual tensor")
    held = {storage.data_ptr(): storage.nbytes() for storage in map(Tensor.untyped_storage, weights.values())}
    if sum(weight.nbytes for weight in weights.values()) > 2 * sum(held.values()):
        raise InputError("its weights are the same few numbers again and again")


def _converted(weight: Tensor | None, shape: torch.Size, theirs: str, encoder: EncoderConfig) -> Tensor:
    """The weight that they call `theirs` as our parameter, of `shape`, has it."""
    if weight is None:
        # Its convolutions have no bias where a normalisation layer follows, bypassed or not.
        if not theirs.startswith(ENCODER) or not theirs.endswith(".bias") or "_up." in theirs or "_head." in theirs:
            raise InputError(f"its weight {theirs} is missing")
        return torch.zeros(shape)
    is_head, is_bias = "reshape_conv" in theirs, len(shape) == 1
    wanted = (shape[0], encoder.decoder_channels, 1, 1) if is_head and not is_bias else tuple(shape)
    if tuple(weight.shape) != wanted:
        raise InputError(f"its weight {theirs} is of shape {tuple(weight.shape)}, and not {wanted}")
    weight = weight.float()
    if not is_head:
        return weight.clone()
    # The head's outputs have the channels for their slower index, and begin with the farthest depth. Ours sees the
    # image's colours besides, with weights that are 0 here.
    head = weight.reshape(encoder.volume_channels, encoder.volume_depth, -1).transpose(0, 1).flip(0)
    return head.flatten() if is_bias else F.pad(head.flatten(0, 1), (0, shape[1] - encoder.decoder_channels))
