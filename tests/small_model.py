"""A network small enough for tests of everything around it, and cameras and batches to feed it."""

import dataclasses
import math
from pathlib import Path

import torch

import genvs
from genvs.config import PRESETS, GeNVSConfig
from genvs.data.types import ViewBatch, Views
from genvs.geometry import Cameras
from genvs.geometry.trajectories import spherical_c2w
from genvs.models import GeNVS

SIZE = 32


def small_config(num_classes: int = 0, modalities: tuple[str, ...] = ("rgb",), **denoiser) -> GeNVSConfig:
    """Every part of the model, at the smallest width that works; `denoiser` changes the U-Net's settings."""
    preset = PRESETS["cpu-demo"]
    unet = {"model_channels": 8, "channel_mult": (1, 2), "dropout": 0.1, "attention_resolutions": (16,)}
    unet |= {"sigma_min": None, "sigma_max": None, **denoiser}  # the preconditioning's own
    return dataclasses.replace(
        preset,
        modalities=modalities,
        scene=dataclasses.replace(preset.scene, num_classes=num_classes),
        encoder=dataclasses.replace(
            preset.encoder, widths=(8, 8, 8, 8), decoder_channels=8, low_level_channels=4, volume_depth=4
        ),
        renderer=dataclasses.replace(preset.renderer, hidden_channels=8, num_samples=8, render_width=8),
        denoiser=dataclasses.replace(preset.denoiser, **unet),
    )


def randomize(net: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight a value that is not zero, so that every part of the network has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            fan_in = max(1, parameter[0].numel())
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in))


def small_net(seed: int = 0, **config) -> GeNVS:
    """A network of random weights, in eval mode."""
    net = GeNVS(small_config(**config)).eval()
    randomize(net, seed)
    return net


def saved(path: Path, net: GeNVS, **notes) -> Path:
    """The path of a snapshot of a network."""
    genvs.save_snapshot(path, net.config, net.state_dict(), **notes)
    return path


def some_cameras(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, radius: float = 1.3) -> Cameras:
    """Cameras `[*shape]` around the origin, looking at it, with different focal lengths and principal points."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    intrinsics = torch.zeros(*shape, 3, 3, dtype=torch.float64)
    intrinsics[..., 0, 0], intrinsics[..., 1, 1] = uniform(0.8, 1.4), uniform(0.8, 1.4)
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = uniform(0.4, 0.6), uniform(0.4, 0.6)
    intrinsics[..., 2, 2] = 1
    c2w = spherical_c2w(uniform(0, 2 * math.pi), uniform(-1.5, 1.5), radius)
    near, far = uniform(0.7, 0.9), uniform(1.7, 1.9)
    return Cameras(c2w, intrinsics, near, far).to(dtype)


def some_batch(num_scenes: int, num_inputs: int = 2, num_targets: int = 2, seed: int = 0) -> ViewBatch:
    """A training batch of random images, as it reaches the loss; its samples are numbered from 10."""
    generator = torch.Generator().manual_seed(seed)

    def views(count: int, camera_seed: int) -> Views:
        images = torch.rand(num_scenes, count, 3, SIZE, SIZE, generator=generator) * 2 - 1
        return Views(images, some_cameras(num_scenes, count, seed=camera_seed))

    index = torch.arange(10, 10 + num_scenes)
    return ViewBatch(views(num_inputs, seed + 1), views(num_targets, seed + 2), index)


def part_of(batch: ViewBatch, index) -> ViewBatch:
    """Some of a batch's samples."""
    return ViewBatch(batch.inputs[index], batch.targets[index], batch.sample_index[index])
