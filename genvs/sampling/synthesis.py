"""Images at target cameras, drawn from the input views of a scene."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from genvs import random as stateless_random
from genvs.data.types import Views
from genvs.diffusion.samplers import SAMPLERS, Denoise, Sampler
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.modalities import MODALITIES
from genvs.models import GeNVS
from genvs.models.colours import as_stored
from genvs.sampling.fast_denoiser import FastDenoiser

COND_METHODS = ("autoreg", "normal")
NOISES = ("fixed", "fresh")
MAX_GENERATED = 8  # frames that autoregression keeps to condition on, so that a long video needs no more memory


@torch.inference_mode()
def synthesize_views(
    net: GeNVS,
    inputs: Views,
    targets: Cameras,
    *,
    cond_method: str = "normal",
    sampler: str | None = None,
    num_steps: int | None = None,
    guidance: float = 1.0,
    noise: str = "fixed",
    churn: float = 0.0,
    class_id: int | None = None,
    modality: str | None = None,
    seed: int = 0,
    first_view: int = 0,
    batch_size: int = 8,
    bf16: bool | None = None,
    progress: bool = True,
    denoise: FastDenoiser | None = None,
    guide: FastDenoiser | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw one image for each target camera, in their order, on the device of `net`.

    inputs: `[1, V]`. targets: `[1, K]`. Yields K pairs, each as soon as it is done: image `[3, H, W]` in [-1, 1] and
    feature image `[C, H, W]`, both float32 on the CPU. Raises InputError, with the first image, for options that do not
    fit. cond_method: 'normal' draws from the inputs alone, `batch_size` at a time; 'autoreg' one at a time, and also
    from the `MAX_GENERATED` frames drawn last (GeNVS, arXiv 2304.02602). sampler, num_steps, churn, seed: as in
    `sampler_of`. guidance: as in `guided`, 1 is off; the worse network is `guide`, or `net` without its conditioning.
    noise: as in `start_noise`; first_view: the first target's number there. modality: of the targets, by default the
    network's first. bf16: as in `FastDenoiser`. denoise: of `net`, instead of `class_id`, `modality` and `bf16`.
    """
    if cond_method not in COND_METHODS:
        raise InputError(f"`cond_method`={cond_method} is not known: choose one of {', '.join(COND_METHODS)}")
    autoreg = cond_method == "autoreg"
    device, side = next(net.parameters()).device, net.config.resolution
    sample = sampler_of(net, sampler, num_steps, churn=churn, seed=seed)
    noise_of = start_noise(noise, seed, (3, side, side), device)
    denoise = denoise or FastDenoiser(net, bf16=bf16, class_id=class_id, modality=modality)
    inputs, targets, num_targets = inputs.to(device), targets.to(device), targets.shape[1]
    room = {"batch_size": batch_size, "max_generated": MAX_GENERATED if autoreg else 0}
    network = Conditioned(denoise, inputs, **room)
    worse = Conditioned(guide, inputs, **room) if guide is not None and guidance != 1 else None

    def draw(start: int, stop: int) -> tuple[Tensor, Tensor]:
        cameras = targets[:, start:stop]
        feature_images = network.render(cameras)
        denoised = network.denoiser(feature_images)
        if guidance != 1:
            away_from = worse.denoiser(worse.render(cameras)) if worse else network.unconditioned(feature_images, seed)
            denoised = guided(denoised, away_from, guidance)
        noisy = noise_of(first_view + start, len(feature_images))
        images = as_stored(sample(denoised, noisy).clamp(-1, 1), denoise.modality)
        if autoreg and stop < num_targets:
            for each in (network, worse) if worse else (network,):
                each.add(images, cameras)
        return images, feature_images

    stride = 1 if autoreg else batch_size
    yield from one_by_one((draw(at, at + stride) for at in range(0, num_targets, stride)), num_targets, progress)


def known_sampler(name: str, churn: float = 0.0) -> Sampler:
    """A sampler by its name. Raises InputError for an unknown one, or one that `churn` has no effect on."""
    if name not in SAMPLERS:
        raise InputError(f"`sampler`={name} is not known: choose one of {', '.join(SAMPLERS)}")
    if churn and not SAMPLERS[name].stochastic:
        raise InputError(f"`churn`={churn:g} has no effect with `sampler`={name}: leave it out, or choose heun")
    return SAMPLERS[name]


def usual_sampling(net: GeNVS, name: str | None = None, num_steps: int | None = None) -> tuple[str, int]:
    """The given sampler and number of steps or, by default, those that `net` is for.

    They are 'unipc' and the number `unipc_steps` in its notes, or 12; but for a few-step network
    (`training.distillation`) 'consistency' and the number `num_steps` in its notes. Raises InputError for an unknown
    sampler, and for more steps of 'consistency' than that.
    """
    few = net.notes.get("num_steps", 0)
    name = name or ("consistency" if few else "unipc")
    noted = {"consistency": few, "unipc": net.notes.get("unipc_steps", 0)}.get(name, 0)
    num_steps = num_steps or noted or known_sampler(name).num_steps
    if name == "consistency" and num_steps > few:
        if not few:
            raise InputError("`sampler`=consistency: the network is not a few-step network: choose another `sampler`")
        fault = f"the network is for {few}: choose fewer, or another `sampler`"
        raise InputError(f"`sampler`=consistency, `num_steps`={num_steps}: {fault}")
    return name, num_steps


def sampler_of(
    net: GeNVS, name: str | None = None, num_steps: int | None = None, *, churn: float = 0.0, seed: int = 0
) -> Callable[[Denoise, Tensor], Tensor]:
    """`sample(denoise, noise)`: a sampler of `genvs.diffusion.samplers.SAMPLERS` over the noise levels of `net`.

    name, num_steps: as in `usual_sampling`. churn: S_churn of stochastic sampling (EDM, algorithm 2), whose noise is a
    function of the seed. Raises InputError as `usual_sampling` and `known_sampler` do.
    """
    name, steps = usual_sampling(net, name, num_steps)
    sampler, unet = known_sampler(name, churn), net.config.denoiser
    sample = functools.partial(sampler.sample, num_steps=steps, sigma_min=unet.sigma_min, sigma_max=unet.sigma_max)
    if not churn:
        return sample
    rng = torch.Generator(next(net.parameters()).device).manual_seed(seed)
    return functools.partial(sample, S_churn=churn, rng=rng)


def guided(denoised: Denoise, away_from: Denoise, guidance: float) -> Denoise:
    """The denoiser `away_from.lerp(denoised, guidance)`: guidance by a worse one (arXiv 2207.12598, 2406.02507)."""
    return lambda noisy, sigma: away_from(noisy, sigma).lerp(denoised(noisy, sigma), guidance)


def start_noise(kind: str, seed: int, shape: tuple[int, ...], device: torch.device) -> Callable[[int, int], Tensor]:
    """`noise(first, count)`: the unit Gaussian noise `[count, *shape]` that views are sampled from.

    kind: 'fixed' is one noise for all views, so that a video does not flicker; 'fresh' is a function of the seed and of
    each view's number, from `first` on. Raises InputError for another kind.
    """
    if kind not in NOISES:
        raise InputError(f"`noise`={kind} is not known: choose one of {', '.join(NOISES)}")
    if kind == "fixed":
        fixed = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)).to(device)
        return lambda first, count: fixed.expand(count, *shape)

    def fresh(first: int, count: int) -> Tensor:
        numbers = torch.arange(first, first + count, device=device)
        return stateless_random.normal(stateless_random.sample_keys(seed, numbers), shape)

    return fresh


class Conditioned:
    """A network that is conditioned on the views of one scene: its inputs and, at most, some frames added last.

    volume: the views' feature volumes, `[1, K, C, D, H, W]`. cameras: theirs, `[1, K]`. Volumes are large, so one
    tensor is allocated for all of them; a new frame overwrites the oldest one.
    """

    def __init__(self, denoise: FastDenoiser, inputs: Views, *, batch_size: int, max_generated: int = 0) -> None:
        """inputs: `[1, V]`, on the network's device, encoded `batch_size` at a time."""
        self._denoise, self._net = denoise, denoise.net
        self._num_inputs, slots = inputs.shape[1], inputs.shape[1] + max_generated
        for start in range(0, self._num_inputs, batch_size):
            part = inputs[:, start : start + batch_size]
            with torch.cuda.device_of(part.images), denoise.autocast():  # where Triton starts its kernels
                volumes = self._net.encode(part.images, part.cameras)
            if not start:  # each volume keeps the memory layout that the encoder gives it
                one = volumes[0, 0]
                shape, strides = (1, slots, *one.shape), (slots * one.numel(), one.numel(), *one.stride())
                self._slots = torch.empty_strided(shape, strides, dtype=one.dtype, device=one.device)
            self._slots[:, start : start + volumes.shape[1]] = volumes
        self.volume, self.cameras = self._slots[:, : self._num_inputs], inputs.cameras
        self._num_added = 0

    def render(self, cameras: Cameras) -> Tensor:
        """The feature images at cameras `[1, K]`: `[K, C, H, W]`, float32."""
        return self._denoise.render(self.volume, self.cameras, cameras)[0].float()

    def denoiser(self, feature_images: Tensor) -> Denoise:
        """The denoiser of the views that have these feature images."""
        return functools.partial(self._denoise, feature_image=feature_images)

    def unconditioned(self, feature_images: Tensor, seed: int) -> Denoise:
        """The denoiser of as many views that sees what conditioning dropout shows instead of their feature images.

        Where that is noise, it is the same for all views, so that a video does not flicker, and a function of the seed.
        """
        views = torch.zeros(len(feature_images), dtype=torch.int64, device=feature_images.device)
        keys = stateless_random.sample_keys(seed, views)
        return self.denoiser(self._net.without_conditioning(feature_images, keys))

    def add(self, images: Tensor, camera: Cameras) -> None:
        """Condition on a generated frame too: image `[1, 3, H, W]`, camera `[1, 1]`."""
        slot = self._num_inputs + self._num_added % (self._slots.shape[1] - self._num_inputs)
        self._slots[:, slot] = self._denoise.encode(images, camera[0])
        self._num_added += 1
        index = MODALITIES[self._denoise.modality].index
        camera = replace(camera, modality=torch.full_like(camera.modality, index))
        self.cameras = Cameras.cat([self.cameras[:, :slot], camera, self.cameras[:, slot + 1 :]], dim=1)
        self.volume = self._slots[:, : self.cameras.shape[1]]


def one_by_one(
    batches: Iterable[tuple[Tensor, Tensor]], num_views: int, progress: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The views of all batches on the CPU, with a progress bar if `progress`."""
    with tqdm(total=num_views, unit="view", disable=None if progress else True) as bar:
        for images, feature_images in on_the_cpu(batches):
            bar.update(len(images))
            yield from zip(images, feature_images, strict=True)


def on_the_cpu(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Copy batches of tensors to the CPU, in their order.

    A batch from a GPU is yielded once the next one has been started, so that the GPU does not wait for the caller.
    """
    begun: deque[tuple[tuple[Tensor, ...], torch.cuda.Event]] = deque()

    def first() -> tuple[Tensor, ...]:
        copies, arrival = begun.popleft()
        arrival.synchronize()
        return copies

    for batch in batches:
        if not batch[0].is_cuda:
            yield batch
            continue
        copies = tuple(part.to("cpu", non_blocking=True) for part in batch)
        begun.append((copies, torch.cuda.current_stream(batch[0].device).record_event()))
        if len(begun) > 1:
            yield first()
    if begun:
        yield first()
