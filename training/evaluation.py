"""What training says of itself on held-out scenes: PSNR against two baselines, and a panel of pictures."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from genvs.data.baselines import nearest_input
from genvs.data.scenes import SceneDataset
from genvs.data.types import ViewBatch, Views
from genvs.data.view_sampling import choose_views
from genvs.diffusion.samplers import sample_heun
from genvs.metrics import psnr
from genvs.models import GeNVS
from genvs.models.labels import class_labels
from genvs.random import Stream, normal, numpy_generator, sample_keys
from genvs.visualize import Column, contact_sheet, feature_colors, to_uint8
from torch_utils import distributed

NUM_INPUTS = 3  # held-out scenes are judged with the first one of them, and with all
NUM_TARGETS = 3
MAX_SCENES = 64
PANEL_SCENES = 8
PANEL_SIGMA = 1.0
PANEL_STEPS = 12


@contextlib.contextmanager
def without_benchmarks() -> Iterator[None]:
    """cuDNN would try its algorithms on every new shape, which takes longer than the few batches of an evaluation."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class HeldOutScenes:
    """A fixed choice of inputs and targets of scenes that training never sees, shared out among the ranks."""

    def __init__(
        self,
        dataset: SceneDataset,
        scenes: Sequence[int],
        mean_image: Tensor,
        device: torch.device,
        classes: Tensor | None = None,
    ) -> None:
        """mean_image: `[3, H, W]` in [-1, 1], the mean training image (see genvs.data.baselines).

        classes: one-hot, of all scenes of the dataset, for a network that is told them.
        """
        self.classes = None if classes is None else classes[list(scenes)[:MAX_SCENES]].to(device)
        self.device, self.mean_image = device, mean_image.to(device)
        # A scene with fewer views gives fewer inputs, then fewer targets, but is never left out silently.
        least = min(dataset.num_views(scene) for scene in scenes)
        num_targets = max(1, min(NUM_TARGETS, least - NUM_INPUTS))
        num_inputs = min(NUM_INPUTS, least - num_targets)
        given, wanted = [], []
        for scene in list(scenes)[:MAX_SCENES]:
            rng = numpy_generator(Stream.EVALUATED_VIEWS, scene)
            input_indices, target_indices = choose_views(dataset.num_views(scene), num_inputs, num_targets, rng)
            given.append(dataset.load(scene, input_indices))
            wanted.append(dataset.load(scene, target_indices))
        inputs, targets = Views.stack(given), Views.stack(wanted)
        self.batch = ViewBatch(inputs, targets, torch.arange(len(given))).to(device)
        keys = sample_keys(0, torch.arange(targets.shape.numel())).unflatten(0, targets.shape)
        self.noise = normal(keys, tuple(targets.images.shape[2:]))

    @without_benchmarks()
    @torch.inference_mode()
    def measure(self, net: GeNVS, batch_gpu: int) -> dict[str, float]:
        """Mean PSNR (dB) of one-step estimates and baselines, over all targets of all held-out scenes.

        batch_gpu: images at a time.
        Keys: `PSNR/V_input` of the model, `PSNR/V_input_nearest` of the nearest input view copied (V = 1 and 3), and
        `PSNR/mean_image`. The same on every rank.
        """
        num_scenes = len(self.batch.sample_index)
        share = torch.arange(num_scenes)[distributed.get_rank() :: distributed.get_world_size()]
        sums: dict[str, Tensor] = {}

        def add(name: str, images: Tensor, targets: Tensor) -> None:
            sums[name] = sums.get(name, torch.zeros((), device=self.device)) + psnr(images, targets).sum()

        counts = sorted({1, self.batch.inputs.shape[1]})
        for name in ["mean_image", *(f"{v}_input{suffix}" for v in counts for suffix in ("", "_nearest"))]:
            sums[name] = torch.zeros((), device=self.device)
        # Torch splits nothing into one empty part; with more ranks than scenes some have nothing to do.
        for chunk in share.split(max(1, batch_gpu // self.batch.targets.shape[1])) if len(share) else ():
            targets, noise = self.batch.targets[chunk], self.noise[chunk]
            volume = net.encode(self.batch.inputs[chunk].images)
            add("mean_image", self.mean_image.expand_as(targets.images), targets.images)
            for num_inputs in counts:
                inputs = self.batch.inputs[chunk][:, :num_inputs]
                add(f"{num_inputs}_input_nearest", nearest_input(inputs, targets.cameras), targets.images)
                told = self.labels(net, chunk, targets.shape[1])
                ours = self.one_step(net, volume[:, :num_inputs], inputs, targets, noise, told)
                add(f"{num_inputs}_input", ours, targets.images)
        totals = distributed.all_reduce_sum(torch.stack(list(sums.values()))) / self.batch.targets.shape.numel()
        return {f"PSNR/{name}": value for name, value in zip(sums, totals.tolist(), strict=True)}

    def labels(self, net: GeNVS, scenes: Tensor, num_targets: int) -> Tensor | None:
        """What the network is told of the targets of some scenes, `[B * T, L]`; None for nothing."""
        if self.classes is None:
            return None
        return class_labels(self.classes[scenes.to(self.device)], net.config).repeat_interleave(num_targets, dim=0)

    def one_step(
        self, net: GeNVS, volume: Tensor, inputs: Views, targets: Views, noise: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The denoiser's estimate from pure noise: `[B, T, 3, H, W]`. volume: `[B, V, ...]`, of the inputs."""
        feature_image = net.render(volume, inputs.cameras, targets.cameras).flatten(0, 1)
        images = self.sample(net, feature_image, noise.flatten(0, 1).to(self.device), 1, labels)
        return images.unflatten(0, targets.shape)

    def sample(
        self, net: GeNVS, feature_image: Tensor, noise: Tensor, num_steps: int, labels: Tensor | None = None
    ) -> Tensor:
        return sample_heun(
            functools.partial(net.denoise, feature_image=feature_image, labels=labels),
            noise,
            num_steps=num_steps,
            sigma_min=net.config.denoiser.sigma_min,
            sigma_max=net.config.denoiser.sigma_max,
        )

    @without_benchmarks()
    @torch.inference_mode()
    def panel(self, net: GeNVS, title: str) -> Image.Image:
        """One input view | feature image | noisy | denoised | one step | sample | target, a column a scene."""
        first = torch.arange(min(PANEL_SCENES, len(self.batch.sample_index)))
        inputs, targets = self.batch.inputs[first][:, :1], self.batch.targets[first][:, :1]
        noise = self.noise[first][:, 0].to(self.device)
        images = targets.images[:, 0]
        feature_image = net.render(net.encode(inputs.images), inputs.cameras, targets.cameras)[:, 0]
        noisy, sigma = images + PANEL_SIGMA * noise, torch.tensor(PANEL_SIGMA, device=self.device)
        told = self.labels(net, first, 1)
        sample = functools.partial(self.sample, net, feature_image, noise, labels=told)
        rows = {
            "input": to_uint8(inputs.images[:, 0]),
            "feature image": feature_colors(feature_image),
            f"noisy, sigma {PANEL_SIGMA:g}": to_uint8(noisy),
            "denoised": to_uint8(net.denoise(noisy, sigma, feature_image, labels=told)),
            "one step": to_uint8(sample(num_steps=1)),
            f"{PANEL_STEPS} steps": to_uint8(sample(num_steps=PANEL_STEPS)),
            "target": to_uint8(images),
        }
        columns = [Column(f"scene {i}", [row[i] for row in rows.values()]) for i in first.tolist()]
        return contact_sheet(title, [(list(rows), columns)])


def verdict(scores: dict[str, float]) -> str:
    """One line for a person: the model against the better baseline, with one input view."""
    ours, nearest, mean = (scores[f"PSNR/{name}"] for name in ("1_input", "1_input_nearest", "mean_image"))
    return (
        f"held-out PSNR, 1 input view, one step: {ours:.2f} dB (nearest input copied {nearest:.2f}, "
        f"mean training image {mean:.2f}: {ours - max(nearest, mean):+.2f} dB over the better one)"
    )
