"""Networks with the weights of the unofficial implementation, and its names for them.

Its U-Nets have EDM's names (arXiv 2206.00364): a block is named by its resolution, kind and number. `published_names`
translates ours; `network_of` reads the sizes and the architecture from names and shapes.

CrossModalityDiffusion's network (arXiv 2501.09838) is one such network for each modality, under `genvs_<modality>.`. It
renders all of them with the field and the view weighting of rgb's, so that the others' are not needed.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genvs.compat.unofficial import UnofficialGeNVS
from genvs.config import UNOFFICIAL, GeNVSConfig, parse_view_weighting
from genvs.errors import InputError
from genvs.modalities import BY_NAME
from genvs.settings import from_dict

ENCODER, UNET, WEIGHTING = "pixel_nerf_net.encoder", "denoiser.model", "pixel_nerf_net.cam_weighter"
DECODER = f"{ENCODER}.decoder"
PREFIX = re.compile(r"genvs_(\w+)\.")  # of a modality's names

# Our names of modules, and theirs, in networks of all sizes; `published_names` adds the others.
NAMES = {
    "encoder.backbone": f"{ENCODER}.encoder",
    "encoder.aspp.pointwise.0": f"{DECODER}.aspp.0.convs.0.0",
    "encoder.aspp.pooled.0": f"{DECODER}.aspp.0.convs.4.1",
    "encoder.aspp.project.0": f"{DECODER}.aspp.0.project.0",
    "encoder.aspp.refine": f"{DECODER}.aspp.1",
    "encoder.low_level.0": f"{DECODER}.block1.0",
    "encoder.fuse": f"{DECODER}.block2.0",
    "encoder.to_volume": f"{ENCODER}.volume_head.reshape_conv",
    "denoiser.unet.embed0": f"{UNET}.map_layer0",
    "denoiser.unet.embed1": f"{UNET}.map_layer1",
    "denoiser.unet.frequencies": f"{UNET}.map_noise.freqs",  # NCSN++
    "renderer.view_weights": WEIGHTING,
    **{f"renderer.field.layers.{2 * index}": f"pixel_nerf_net.mlp.layers.{index}" for index in range(3)},
}

# Parts of the unofficial network that it never uses (a segmentation head, labels of augmentations), and constants. It
# also bypasses its normalisation layers.
UNUSED = re.compile(
    rf"{re.escape(ENCODER)}\.segmentation_head\..*|{re.escape(UNET)}\.map_augment\..*|.*\.resample_filter"
    r"|.*positional_encoder\._(freqs|phases)"
)


def published_names(names: Iterable[str], config: GeNVSConfig) -> dict[str, str]:
    """The unofficial implementation's names of our parameters and buffers `names`."""
    modules = {**NAMES, **_decoder_names(), **_unet_names(config)}

    def translated(name: str) -> str:
        name = re.sub(r"^(encoder|denoiser)s\.\w+\.", r"\1.", name)
        module = max((ours for ours in modules if f"{name}.".startswith(f"{ours}.")), key=len)
        rest = name.removeprefix(module).replace(".attention.norm", ".norm2").replace(".attention", "")
        return modules[module] + rest

    return {name: translated(name) for name in names}


def _decoder_names() -> dict[str, str]:
    """Each of our convolutions is module 0 of its own sequence; theirs are every second module of one sequence."""
    upsampling, head = f"{DECODER}.modified_up", f"{ENCODER}.volume_head.up"
    names = {"up8": f"{upsampling}.upconv1", "up4": f"{upsampling}.upconv2"}
    names |= {f"head_ups.{index}": f"{head}.upconv{index + 1}" for index in range(2)}
    names |= {f"aspp.atrous.{index}": f"{DECODER}.aspp.0.convs.{index + 1}.0" for index in range(3)}
    stages = {f"stage{size}": f"{upsampling}.stage{number}" for number, size in enumerate((16, 8, 4), start=1)}
    stages |= {f"head_stages.{index}": f"{head}.stage{index + 1}" for index in range(2)}
    names |= {f"{ours}.{conv}.0": f"{theirs}.{2 * conv}" for ours, theirs in stages.items() for conv in range(3)}
    return {f"encoder.{ours}": theirs for ours, theirs in names.items()}


def _unet_names(config: GeNVSConfig) -> dict[str, str]:
    """Our U-Net's blocks have numbers, theirs have the resolution, the kind and the number at that resolution."""
    sides = [config.resolution >> level for level in range(len(config.denoiser.channel_mult))]
    sizes = [f"{side}x{side}" for side in sides]
    blocks = [f"block{index}" for index in range(config.denoiser.blocks_per_level + 1)]
    is_adm = config.denoiser.arch == "adm"
    lists = {
        "encoder": [f"enc.{size}_{kind}" for size in sizes for kind in ("down", *blocks[:-1])][1:],
        "middle": [f"dec.{sizes[-1]}_in{index}" for index in range(2)],
        "decoder": [f"dec.{size}_{kind}" for size in reversed(sizes) for kind in ("up", *blocks)][1:],
        "residual_convs": [f"enc.{size}_aux_residual" for size in sizes[1:]],
    }
    names = {f"{part}.{index}": name for part, names in lists.items() for index, name in enumerate(names)}
    names["conv_in"] = f"enc.{sizes[0]}_conv"
    names["norm_out"] = "out_norm" if is_adm else f"dec.{sizes[0]}_aux_norm"
    names["conv_out"] = "out_conv" if is_adm else f"dec.{sizes[0]}_aux_conv"
    return {f"denoiser.unet.{ours}": f"{UNET}.{theirs}" for ours, theirs in names.items()}


def by_modality(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The weights of each modality's network, under the names that a single network has, which is rgb's.

    Raises InputError for a modality that is not known, and if there is none of rgb.
    """
    found: dict[str, dict[str, Tensor]] = {"rgb": {}}
    for name, weight in weights.items():
        prefix = PREFIX.match(name)
        if prefix and prefix[1] not in BY_NAME:
            raise InputError(f"its modality {prefix[1]!a:.80} is not known")
        modality = BY_NAME[prefix[1]] if prefix else "rgb"
        found.setdefault(modality, {})[name[prefix.end() if prefix else 0 :]] = weight
    if len(found) > 1 and not found["rgb"]:
        raise InputError("it has no weights under genvs_rgb, whose renderer all its modalities share")
    return found


def config_of(weights: Mapping[str, Tensor], view_weighting: str) -> GeNVSConfig:
    """The sizes that the weights have. Raises LookupError or ValueError if they are not the unofficial network's."""

    def width(name: str, dimension: int = 0) -> int:
        return weights[f"{name}.weight"].shape[dimension]

    def numbers(pattern: str) -> list[int]:
        return sorted({int(match[1]) for name in weights if (match := re.match(pattern, name))})

    unet, resnet = re.escape(UNET), f"{ENCODER}.encoder"
    sizes = numbers(rf"{unet}\.enc\.(\d+)x\1_block0\.")[::-1]
    channels, features = width(f"{UNET}.enc.{sizes[0]}x{sizes[0]}_conv"), width("pixel_nerf_net.mlp.layers.0", 1)
    layers = [f"{resnet}.layer{number}" for number in range(1, 5)]
    encoder = {
        "widths": [width(f"{layer}.0.conv1") for layer in layers],
        "blocks": [len(numbers(rf"{re.escape(layer)}\.(\d+)\.")) for layer in layers],
        "aspp_rates": (12, 24, 36),
        "decoder_channels": width(f"{DECODER}.aspp.0.project.0"),
        "low_level_channels": width(f"{DECODER}.block1.0"),
        "volume_channels": features,
        "volume_depth": width(f"{ENCODER}.volume_head.reshape_conv") // features,
        "volume_width": sizes[0],
    }
    marks = {"adm": "out_conv.weight", "ncsnpp": "map_noise.freqs"}
    denoiser = {
        "arch": next((arch for arch, mark in marks.items() if f"{UNET}.{mark}" in weights), "ddpmpp"),
        "model_channels": channels,
        "channel_mult": [width(f"{UNET}.enc.{size}x{size}_block0.conv1") // channels for size in sizes],
        "blocks_per_level": len(numbers(rf"{unet}\.enc\.{sizes[0]}x{sizes[0]}_block(\d+)\.")),
        "attention_resolutions": numbers(rf"{unet}\.enc\.(\d+)x\1_block0\.qkv\.")[::-1],
        "residual_encoder": any(name.endswith("_aux_residual.weight") for name in weights),
    }
    hidden = width("pixel_nerf_net.mlp.layers.0")
    renderer = {"hidden_channels": hidden, "num_samples": 64, "render_width": sizes[0] // 2}
    settings = {"resolution": sizes[0], "numerics": UNOFFICIAL, "view_weighting": view_weighting}
    return from_dict(GeNVSConfig, {**settings, "encoder": encoder, "renderer": renderer, "denoiser": denoiser})


def learned_view_weighting(weights: Mapping[str, Tensor]) -> str:
    """The view weighting that has such weights. Without any, it is the mean, which is the default."""
    known = {"query_layer": "learned_cross_attention", "multihead_attention": "relative_pose_self_attention"}
    parts = {name.removeprefix(f"{WEIGHTING}.").partition(".")[0] for name in weights if name.startswith(WEIGHTING)}
    return next((known[part] for part in sorted(parts) if part in known), "baseline_mean")


class WithoutNormal(TorchFunctionMode):
    """Skips normal initialisation, because on the meta device torch would first import for seconds."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return kwargs.get("tensor", *args[:1])
        return func(*args, **kwargs)


def network_of(weights: Mapping[str, Tensor], view_weighting: str | None = None) -> UnofficialGeNVS:
    """A network with the unofficial implementation's weights, which have its names.

    view_weighting: the method's name, if the file has it; otherwise it is recognised by its weights.
    Raises InputError, without the file's name, for a weight that is missing, unknown or of another shape.
    """
    parts = by_modality(weights)
    view_weighting = view_weighting or learned_view_weighting(parts["rgb"])
    parse_view_weighting(view_weighting)
    try:
        config = dataclasses.replace(config_of(parts["rgb"], view_weighting), modalities=tuple(parts))
        with torch.device("meta"), WithoutNormal():  # without memory, because all weights are replaced below
            net = UnofficialGeNVS(config)
        names = published_names(net.state_dict(), config)
        state = {
            ours: part[theirs].float().clone()
            for ours, theirs in names.items()
            if theirs in (part := parts.get(ours.split(".")[1], parts["rgb"]))  # the renderer is rgb's
        }
        for name, parameter in net.named_parameters():
            if not parameter.requires_grad:  # a bias that the unofficial network does not have
                state.setdefault(name, torch.zeros(parameter.shape))
        channels = config.encoder.volume_channels
        for modality in parts:
            weight, bias = (f"encoders.{modality}.to_volume.{kind}" for kind in ("weight", "bias"))
            state[bias] = _reordered(state[bias], channels)
            # Theirs does not see the image's colours.
            state[weight] = F.pad(_reordered(state[weight], channels).flatten(1), (0, 3))
        net.load_state_dict(state, assign=True)
    except (LookupError, ArithmeticError, ValueError, RuntimeError) as error:
        reason = str(error).rpartition("\n")[2].strip()  # torch lists weights below a heading
        raise InputError(f"its weights do not fit an encoder on a ResNet and EDM's U-Nets: {reason:.200}") from None
    for modality, part in parts.items():
        for name in part.keys() - set(names.values()):
            is_norm = f"{name.rpartition('.')[0]}.running_mean" in part
            if not is_norm and not UNUSED.fullmatch(name):
                where = f" of {modality}" if len(parts) > 1 else ""
                raise InputError(f"its weight {name!a:.80}{where} is not known")
    return net


def _reordered(outputs: Tensor, channels: int) -> Tensor:
    """Outputs of the head `[C * D, ...]`, channel-major from the farthest depth, as depth-major from the nearest."""
    return outputs.unflatten(0, (channels, -1)).transpose(0, 1).flip(0).flatten(0, 1)
