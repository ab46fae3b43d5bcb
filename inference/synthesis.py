"""From input views and target cameras to images: the one inference algorithm, for pictures and videos alike."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from genvs.data.types import Views
from genvs.diffusion.sampler import SAMPLERS
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from inference.fast_denoiser import FastDenoiser, autocast, has_native_bf16

COND_METHODS = ("autoreg", "normal")
MAX_GENERATED = 8  # generated frames that an autoregressive run keeps to condition on, besides all inputs


@torch.inference_mode()
def synthesize_views(
    net: GeNVS,
    inputs: Views,
    targets: Cameras,
    *,
    cond_method: str = "normal",
    sampler: str = "heun",
    num_steps: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    bf16: bool = True,
    progress: bool = True,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw one image for each target camera, in their order, on the device of `net`.

    inputs: `[1, V]`. targets: `[1, K]`. Yields K pairs, as soon as each is done: image `[3, H, W]` in [-1, 1] and
    feature image `[C, H, W]`, both float32 on the CPU. A GPU goes on with the next batch meanwhile.

    cond_method: 'normal' conditions every target on the inputs alone, `batch_size` targets at a time. 'autoreg' goes
    one target at a time and conditions it on the inputs and on the `MAX_GENERATED` frames generated last (GeNVS, arXiv
    2304.02602); the bound keeps memory constant however long a video is. No view is encoded twice.
    sampler: of `genvs.diffusion.sampler.SAMPLERS`. num_steps: its steps, by default its own number; 1 is the one-step
    estimate.
    seed: of the one noise that all views start from, so that a video does not flicker. It is drawn on the CPU: images
    depend neither on `batch_size` nor, up to rounding, on the device.
    bf16: run the networks in bf16 where a GPU has it; noise levels, integration and images stay float32 or better.
    """
    if cond_method not in COND_METHODS:
        raise InputError(f"cond_method={cond_method!r} is not known: choose one of {', '.join(COND_METHODS)}")
    sample = sampler_of(net, sampler, num_steps)
    device = next(net.parameters()).device
    bf16 = bf16 and has_native_bf16(device)
    inputs, targets = inputs.to(device), targets.to(device)
    resolution, num_targets = net.config.resolution, targets.shape[1]
    noise = torch.randn(1, 3, resolution, resolution, generator=torch.Generator().manual_seed(seed)).to(device)
    denoise = FastDenoiser(net, bf16=bf16)
    with autocast(device, bf16):
        volumes = [net.encode(images) for images in inputs.images.split(batch_size, dim=1)]
    autoreg = cond_method == "autoreg"
    known = KnownViews(volumes, inputs.cameras, MAX_GENERATED if autoreg else 0)
    del volumes

    def draw(start: int, stop: int) -> tuple[Tensor, Tensor]:
        cameras = targets[:, start:stop]
        with autocast(device, bf16):
            feature_images = net.render(known.volume, known.cameras, cameras)[0].float()
        start_noise = noise.expand(len(feature_images), -1, -1, -1)
        images = sample(functools.partial(denoise, feature_image=feature_images), start_noise).clamp(-1, 1)
        if autoreg and stop < num_targets:
            with autocast(device, bf16):
                known.add(net.encode(images[None]), cameras)
        return images, feature_images

    stride = 1 if autoreg else batch_size
    batches = (draw(start, start + stride) for start in range(0, num_targets, stride))
    with tqdm(total=num_targets, unit="view", disable=None if progress else True) as bar:
        for images, feature_images in on_the_cpu(batches):
            bar.update(len(images))
            yield from zip(images, feature_images, strict=True)


def sampler_of(net: GeNVS, name: str, num_steps: int | None = None) -> Callable[..., Tensor]:
    """`sample(denoise, noise)`: a sampler of the table, over the noise levels of `net`, with its own number of steps
    unless told. Raises InputError for a name that is not in the table.
    """
    if name not in SAMPLERS:
        raise InputError(f"sampler={name!r} is not known: choose one of {', '.join(SAMPLERS)}")
    return functools.partial(
        SAMPLERS[name].sample,
        num_steps=SAMPLERS[name].num_steps if num_steps is None else num_steps,
        sigma_min=net.config.denoiser.sigma_min,
        sigma_max=net.config.denoiser.sigma_max,
    )


class KnownViews:
    """The feature volumes and cameras that targets are conditioned on: all inputs, and the frames generated last.

    Volumes are large, so they lie in one tensor from the beginning, where a new frame takes the place of the oldest.
    """

    def __init__(self, volumes: Sequence[Tensor], cameras: Cameras, max_generated: int) -> None:
        """volumes: of the inputs, some at a time, each `[1, V_i, C, D, H, W]`. cameras: theirs, `[1, V]`."""
        self._inputs, self._max_generated = cameras, max_generated
        self._generated: list[Cameras] = []
        self._num_added = 0
        # Each volume keeps the order in memory that the encoder gives it.
        one = volumes[0][0, 0]
        slots = cameras.shape[1] + max_generated
        shape, strides = (1, slots, *one.shape), (slots * one.numel(), one.numel(), *one.stride())
        self._slots = torch.empty_strided(shape, strides, dtype=one.dtype, device=one.device)
        filled = 0
        for volume in volumes:
            self._slots[:, filled : filled + volume.shape[1]] = volume
            filled += volume.shape[1]

    @property
    def volume(self) -> Tensor:
        """`[1, K, C, D, H, W]`, without a copy."""
        return self._slots[:, : self._inputs.shape[1] + len(self._generated)]

    @property
    def cameras(self) -> Cameras:
        """`[1, K]`."""
        return Cameras.cat([self._inputs, *self._generated], dim=1)

    def add(self, volume: Tensor, camera: Cameras) -> None:
        """Remember a generated frame: volume `[1, 1, C, D, H, W]`, camera `[1, 1]`."""
        slot = self._num_added % self._max_generated
        self._generated[slot : slot + 1] = [camera]
        self._slots[:, self._inputs.shape[1] + slot] = volume[:, 0]
        self._num_added += 1


def on_the_cpu(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Batches of tensors, brought to the CPU, in their order.

    A GPU's batch is handed out after the next one has been begun, so that the GPU does not wait while the caller writes
    files.
    """
    begun: deque[tuple[tuple[Tensor, ...], torch.cuda.Event | None]] = deque()
    for batch in batches:
        copies = tuple(part.to("cpu", non_blocking=True) for part in batch)
        arrival = torch.cuda.current_stream(batch[0].device).record_event() if batch[0].is_cuda else None
        begun.append((copies, arrival))
        if arrival is None or len(begun) > 1:
            yield _arrived(*begun.popleft())
    if begun:
        yield _arrived(*begun.popleft())


def _arrived(copies: tuple[Tensor, ...], arrival: torch.cuda.Event | None) -> tuple[Tensor, ...]:
    if arrival is not None:
        arrival.synchronize()
    return copies
