"""From input views and target cameras to images: the one inference algorithm, for pictures and videos alike."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from genvs.data.types import Views
from genvs.diffusion.sampler import sample_heun
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS

COND_METHODS = ("autoreg", "normal")
MAX_GENERATED = 8  # generated frames that an autoregressive run keeps to condition on, besides all inputs


@torch.inference_mode()
def synthesize_views(
    net: GeNVS,
    inputs: Views,
    targets: Cameras,
    *,
    cond_method: str = "normal",
    num_steps: int = 25,
    seed: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw one image for each target camera, in their order, on the device of `net`.

    inputs: `[1, V]`. targets: `[1, K]`. Yields K pairs, as soon as each is done: image `[3, H, W]` in [-1, 1] and
    feature image `[C, H, W]`, both on the CPU.

    cond_method: 'normal' conditions every target on the inputs alone, `batch_size` targets at a time. 'autoreg' goes
    one target at a time and conditions it on the inputs and on the `MAX_GENERATED` frames generated last (GeNVS, arXiv
    2304.02602); the bound keeps memory constant however long a video is. No view is encoded twice.
    num_steps: Heun steps of the sampler; 1 is the one-step estimate.
    seed: of the one noise that all views start from, so that a video does not flicker. It is drawn on the CPU: images
    depend neither on `batch_size` nor, up to rounding, on the device.
    """
    if cond_method not in COND_METHODS:
        raise InputError(f"cond_method={cond_method!r} is not known: choose one of {', '.join(COND_METHODS)}")
    device = next(net.parameters()).device
    inputs, targets = inputs.to(device), targets.to(device)
    resolution = net.config.resolution
    noise = torch.randn(1, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed)).to(device)
    volume = torch.cat([net.encode(images) for images in inputs.images.split(batch_size, dim=1)], dim=1)
    generated: deque[tuple[Tensor, Cameras]] = deque(maxlen=MAX_GENERATED)
    stride = 1 if cond_method == "autoreg" else batch_size
    num_targets = targets.shape[1]
    with tqdm(total=num_targets, unit="view", disable=None if progress else True) as bar:
        for start in range(0, num_targets, stride):
            cameras = targets[:, start : start + stride]
            known_volume = torch.cat([volume, *(frame for frame, _ in generated)], dim=1)
            known_cameras = Cameras.cat([inputs.cameras, *(camera for _, camera in generated)], dim=1)
            feature_images = net.render(known_volume, known_cameras, cameras)[0]
            denoise = functools.partial(net.denoise, feature_image=feature_images)
            start_noise = noise.expand(len(feature_images), -1, -1, -1)
            images = sample_heun(
                denoise,
                start_noise,
                num_steps=num_steps,
                sigma_min=net.config.denoiser.sigma_min,
                sigma_max=net.config.denoiser.sigma_max,
            ).clamp(-1, 1)
            if cond_method == "autoreg":
                generated.append((net.encode(images[None]), cameras))
            bar.update(len(images))
            yield from zip(images.cpu(), feature_images.float().cpu(), strict=True)
