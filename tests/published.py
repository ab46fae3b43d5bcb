"""Files as the unofficial implementation writes them: a pickler that can name anything, and a small network."""

import dataclasses
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genvs.compat import UnofficialGeNVS
from genvs.compat.weights import published_names
from genvs.config import UNOFFICIAL, GeNVSConfig
from tests.small_model import SIZE, small_config


class Named(NamedTuple):
    """A class or function, which need not exist."""

    module: str
    name: str


@dataclasses.dataclass(eq=False)
class Made:
    """An object of a class: its state, and its items if it is a kind of dict."""

    cls: Named
    state: Any = None
    items: dict | None = None


@dataclasses.dataclass(eq=False)
class Called:
    """What a function returns."""

    function: Any
    arguments: tuple


class Pickler(pickle._Pickler):  # the one in Python can be extended by names that do not exist
    def save_named(self, obj: Named) -> None:
        self.save(obj.module)
        self.save(obj.name)
        self.write(pickle.STACK_GLOBAL)

    def save_made(self, obj: Made) -> None:
        self.save(obj.cls)
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(obj)
        if obj.items is not None:
            self._batch_setitems(obj.items.items())
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    def save_called(self, obj: Called) -> None:
        self.save(obj.function)
        self.save(obj.arguments)
        self.write(pickle.REDUCE)

    dispatch = {**pickle._Pickler.dispatch, Named: save_named, Made: save_made, Called: save_called}


def pickled(content: Any) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=4).dump(content)
    return file.getvalue()


def easy_dict(**items: Any) -> Made:
    return Made(Named("dnnlib.util", "EasyDict"), items=items)


def persistent(class_name: str, source: str, state: dict) -> Called:
    """An object of a class with its source text in the file, which `pickle.load` executes."""
    meta = easy_dict(type="class", version=6, module_src=source, class_name=class_name, state=state)
    return Called(Named("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


def module_tree(weights: Mapping[str, Tensor], source: str, method_name: Any = None, path: str = "") -> Called:
    """The modules with the state dict `weights`. method_name: of the view weighting."""
    children: dict[str, dict[str, Tensor]] = {}
    parameters, buffers = {}, {}
    for name, tensor in weights.items():
        first, _, rest = name.partition(".")
        if rest:
            children.setdefault(first, {})[rest] = tensor
        elif first.startswith(("running", "num_batches", "resample_filter")):
            buffers[first] = tensor
        else:
            parameters[first] = torch.nn.Parameter(tensor, requires_grad=False)
    if method_name and path.endswith(".pixel_nerf_net"):
        children.setdefault("cam_weighter", {})
    state = {
        "training": False,
        "_parameters": {**parameters, "unused": None},
        "_buffers": buffers,
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": Called(Named("collections", "OrderedDict"), ()),
        "_modules": {
            name: module_tree(child, source, method_name, f"{path}.{name}") for name, child in children.items()
        },
        "skip_scale": np.sqrt(0.5),
        "sigma_max": float("inf"),
        "norm_layer": Named("torch.nn.modules.batchnorm", "BatchNorm2d"),
        "activation": Named("torch.nn.functional", "silu"),
        **({"method_name": method_name} if path.endswith(".cam_weighter") else {}),
    }
    if "running_mean" in buffers:
        layer = Made(Named("torch.nn.modules.batchnorm", "BatchNorm2d"), {**state, "eps": 1e-5})
        layer.state["forward"] = Called(Named("builtins", "getattr"), (layer, "identity"))
        return layer
    if "layers" in children:
        return Made(Named("their_package.models.mlp", "MLP"), state)
    return persistent("SongUNet", source, {**state, "_init_kwargs": easy_dict(img_resolution=SIZE)})


def write_snapshot(path: Path, weights: Mapping[str, Tensor], method_name: str | None = None) -> Path:
    source = "raise AssertionError"
    content = {
        "ema": module_tree(weights, source, method_name),
        "loss_fn": persistent("EDMLoss", source, {"P_mean": -1.2, "P_std": 1.2}),
        "augment_pipe": None,
        "dataset_kwargs": easy_dict(class_name="training.dataset.SRN", path="cars", resolution=SIZE),
    }
    path.write_bytes(pickled(content))
    return path


def joint_weights(networks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """CrossModalityDiffusion's names of the weights of single networks, by modality."""
    return {f"genvs_{modality}.{name}": weight for modality, part in networks.items() for name, weight in part.items()}


def published_config(**denoiser) -> GeNVSConfig:
    config = small_config(**{"centre_on_colours": False, "residual_encoder": True, **denoiser})
    encoder = dataclasses.replace(config.encoder, aspp_rates=(12, 24, 36), volume_width=SIZE)
    renderer = dataclasses.replace(config.renderer, num_samples=64, render_width=SIZE // 2)
    unet = dataclasses.replace(config.denoiser, dropout=0.13)
    return dataclasses.replace(config, numerics=UNOFFICIAL, encoder=encoder, renderer=renderer, denoiser=unet)


def published_weights(config: GeNVSConfig | None = None, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of a small network under the unofficial names, and those that only the unofficial one has."""
    config, generator = config or published_config(), torch.Generator().manual_seed(seed)
    channels = config.encoder.decoder_channels
    weights = {}

    def add(name: str, *shape: int) -> None:
        fan_in = max(1, torch.Size(shape[1:]).numel()) if shape else 1
        weights[name] = torch.randn(shape, generator=generator) / fan_in**0.5

    state = UnofficialGeNVS(config).state_dict()
    names = published_names(state, config)
    for name, tensor in state.items():
        theirs = names[name]
        if theirs.startswith("pixel_nerf_net.encoder.encoder") and theirs.endswith("bias"):
            continue  # their convolution has none, because a normalisation layer follows
        is_head = name == "encoders.rgb.to_volume.weight"
        add(theirs, *((len(tensor), channels, 1, 1) if is_head else tensor.shape))
    weights["pixel_nerf_net.mlp.layers.2.bias"][0] = 5.0  # density is a ReLU, which may start dead
    for name in ("weight", "bias", "running_mean", "running_var"):
        add(f"pixel_nerf_net.encoder.encoder.bn1.{name}", 8)
        add(f"pixel_nerf_net.encoder.decoder.block1.1.{name}", 4)
    weights["pixel_nerf_net.encoder.encoder.bn1.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    add("pixel_nerf_net.encoder.segmentation_head.0.weight", 1, channels, 1, 1)
    add("pixel_nerf_net.encoder.segmentation_head.0.bias", 1)
    add("denoiser.model.map_augment.weight", 8, 6)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if config.denoiser.arch == "ncsnpp" else [1.0, 1.0])
    smooth = (taps[:, None] * taps / taps.sum() ** 2)[None, None]
    weights[f"denoiser.model.enc.{SIZE // 2}x{SIZE // 2}_down.conv0.resample_filter"] = smooth
    return weights
