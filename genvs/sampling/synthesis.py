"""From input views and target cameras to images: the one inference algorithm, for pictures and videos alike."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genvs import random as stateless_random
from genvs.data.types import Views
from genvs.diffusion.samplers import SAMPLERS, Denoise
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.models.labels import label_of_class
from genvs.sampling.fast_denoiser import FastDenoiser, autocast, has_native_bf16

COND_METHODS = ("autoreg", "normal")
NOISES = ("fixed", "fresh")
MAX_GENERATED = 8  # frames that an autoregressive run keeps to condition on, so that a long video takes no more memory


@torch.inference_mode()
def synthesize_views(
    net: GeNVS,
    inputs: Views,
    targets: Cameras,
    *,
    cond_method: str = "normal",
    sampler: str = "heun",
    num_steps: int | None = None,
    guidance: float = 1.0,
    noise: str = "fixed",
    churn: float = 0.0,
    class_id: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    bf16: bool = True,
    progress: bool = True,
    denoise: FastDenoiser | None = None,
    guide: FastDenoiser | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw one image for each target camera, in their order, on the device of `net`.

    inputs: `[1, V]`. targets: `[1, K]`. Yields K pairs, as soon as each is done: image `[3, H, W]` in [-1, 1] and
    feature image `[C, H, W]`, both float32 on the CPU. A GPU goes on with the next batch meanwhile.
    cond_method: 'normal', every target from the inputs alone, `batch_size` at a time; 'autoreg', one at a time, from
    the inputs and the `MAX_GENERATED` frames generated last (GeNVS, arXiv 2304.02602). No view is encoded twice.
    sampler, num_steps, churn, seed: as in `sampler_of`; 1 step is the one-step estimate. guidance: as in `guided`, 1 is
    off; `guide` is of the worse network, by default `net` is, without its conditioning. noise, seed: as in StartNoise.
    Without churn images depend neither on `batch_size` nor, up to rounding, on the device.
    class_id: what the network is told that the object is, for one that was trained with classes (`--cond`).
    bf16: run the networks in bf16 where a GPU has it; noise levels, integration and images stay float32 or better.
    denoise: of `net`, for callers that draw many scenes; by default it is made anew. It decides about bf16 and class.
    """
    if cond_method not in COND_METHODS:
        raise InputError(f"cond_method={cond_method!r} is not known: choose one of {', '.join(COND_METHODS)}")
    device = next(net.parameters()).device
    sample = sampler_of(net, sampler, num_steps, churn=churn, seed=seed)
    inputs, targets = inputs.to(device), targets.to(device)
    num_targets, autoreg = targets.shape[1], cond_method == "autoreg"
    noises = StartNoise(noise, seed, (3, net.config.resolution, net.config.resolution), device)
    labels = None if class_id is None else label_of_class(class_id, net.config)
    denoise = denoise or FastDenoiser(net, bf16=bf16 and has_native_bf16(device), labels=labels)
    sizes = {"batch_size": batch_size, "max_generated": MAX_GENERATED if autoreg else 0}
    better = Conditioned(denoise, inputs, **sizes)
    worse = Conditioned(guide, inputs, **sizes) if guide is not None and guidance != 1 else None

    def draw(start: int, stop: int) -> tuple[Tensor, Tensor]:
        cameras = targets[:, start:stop]
        feature_images = better.render(cameras)
        denoised = guided(better, worse, cameras, feature_images, guidance, seed)
        images = sample(denoised, noises.of(start, start + len(feature_images))).clamp(-1, 1)
        if autoreg and stop < num_targets:
            for network in filter(None, (better, worse)):
                network.add(images, cameras)
        return images, feature_images

    stride = 1 if autoreg else batch_size
    with tqdm(total=num_targets, unit="view", disable=None if progress else True) as bar:
        for images, feature_images in on_the_cpu(draw(at, at + stride) for at in range(0, num_targets, stride)):
            bar.update(len(images))
            yield from zip(images, feature_images, strict=True)


def sampler_of(
    net: GeNVS, name: str, num_steps: int | None = None, *, churn: float = 0.0, seed: int = 0
) -> Callable[..., Tensor]:
    """`sample(denoise, noise)`: one of `genvs.diffusion.samplers.SAMPLERS`, over the noise levels of `net`, with its
    own number of steps unless told. churn: S_churn of the stochastic sampler (EDM, algorithm 2), for 'heun' alone; its
    noise is a function of the seed. Raises InputError for a name that is not in the table.
    """
    if name not in SAMPLERS:
        raise InputError(f"sampler={name!r} is not known: choose one of {', '.join(SAMPLERS)}")
    stochastic: dict[str, Any] = {}
    if churn:
        generator = torch.Generator(next(net.parameters()).device).manual_seed(seed)
        stochastic = {"S_churn": churn, "rng": generator}
    return functools.partial(
        SAMPLERS[name].sample,
        num_steps=SAMPLERS[name].num_steps if num_steps is None else num_steps,
        sigma_min=net.config.denoiser.sigma_min,
        sigma_max=net.config.denoiser.sigma_max,
        **stochastic,
    )


def guided(
    better: Conditioned,
    worse: Conditioned | None,
    cameras: Cameras,
    feature_images: Tensor,
    guidance: float,
    seed: int,
) -> Denoise:
    """Of the views of cameras `[1, K]`, whose feature images `better` has rendered: `worse.lerp(better, guidance)`.

    Above 1 it leads away from what a worse denoiser says, at an evaluation of that one too; 1 is off. The worse one is
    of a worse network, such as an earlier snapshot (autoguidance, arXiv 2406.02507); None is the same network without
    its conditioning (classifier-free guidance, arXiv 2207.12598). seed: as in `Conditioned.unconditioned`.
    """
    denoised = better.denoiser(feature_images)
    if guidance == 1:
        return denoised
    led_from = worse.denoiser(worse.render(cameras)) if worse else better.unconditioned(feature_images, seed)

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        return led_from(noisy, sigma).lerp(denoised(noisy, sigma), guidance)

    return denoise


class StartNoise:
    """The unit Gaussian noise, each of `shape`, that views start from.

    kind: of NOISES. 'fixed': all from the one noise of the seed, so that a video does not flicker; 'fresh': each from
    its own, a function of seed and view.
    """

    def __init__(self, kind: str, seed: int, shape: tuple[int, ...], device: torch.device) -> None:
        if kind not in NOISES:
            raise InputError(f"noise={kind!r} is not known: choose one of {', '.join(NOISES)}")
        self._seed, self._shape, self._device = seed, shape, device
        self._fixed: Tensor | None = None
        if kind == "fixed":
            self._fixed = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)).to(device)

    def of(self, start: int, stop: int) -> Tensor:
        """Of the views from `start` up to `stop`: `[stop - start, *shape]`."""
        if self._fixed is not None:
            return self._fixed.expand(stop - start, *self._shape)
        keys = stateless_random.sample_keys(self._seed, torch.arange(start, stop, device=self._device))
        return stateless_random.normal(keys, self._shape)


class Conditioned:
    """A network that is conditioned on the views of a scene."""

    def __init__(self, denoise: FastDenoiser, inputs: Views, *, batch_size: int, max_generated: int) -> None:
        """denoise: of the network. inputs: `[1, V]`, on its device, encoded `batch_size` at a time.

        max_generated: how many of the frames added last it keeps.
        """
        self._denoise, self._net = denoise, denoise.net
        with autocast(denoise.device, denoise.bf16):
            volumes = [self._net.encode(images) for images in inputs.images.split(batch_size, dim=1)]
        self._known = KnownViews(volumes, inputs.cameras, max_generated)

    def render(self, cameras: Cameras) -> Tensor:
        """The feature images of cameras `[1, K]`: `[K, C, H, W]`, float32."""
        with autocast(self._denoise.device, self._denoise.bf16):
            return self._net.render(self._known.volume, self._known.cameras, cameras)[0].float()

    def denoiser(self, feature_images: Tensor) -> Denoise:
        """Of the views of these feature images, for a sampler."""
        return functools.partial(self._denoise, feature_image=feature_images)

    def unconditioned(self, feature_images: Tensor, seed: int) -> Denoise:
        """Of as many views, without their feature images, as training shows them to the network where it drops them.

        Where that is noise, it is one for all views, so that a video does not flicker, and a function of the seed.
        """
        views = torch.zeros(len(feature_images), dtype=torch.int64, device=feature_images.device)
        keys = stateless_random.sample_keys(seed, views)
        return self.denoiser(self._net.without_conditioning(feature_images, keys))

    def add(self, images: Tensor, cameras: Cameras) -> None:
        """Remember a generated frame: image `[1, 3, H, W]`, camera `[1, 1]`."""
        self._known.add(self._denoise.encode(images[None]), cameras)


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
