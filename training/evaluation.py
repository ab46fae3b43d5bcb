"""Evaluation during training: PSNR against two baselines, and a sheet of samples."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from genvs.data.baselines import nearest_input
from genvs.data.scenes import SceneDataset, choose_views
from genvs.data.types import ViewBatch, Views
from genvs.diffusion.samplers import Denoise
from genvs.metrics import psnr
from genvs.models import GeNVS
from genvs.models.labels import class_labels
from genvs.random import Stream, normal, numpy_generator, sample_keys
from genvs.sampling.synthesis import sampler_of
from genvs.visualize import contact_sheet, feature_colors, to_uint8
from torch_utils import distributed

NUM_INPUTS = 3  # PSNR is measured with the first of them, and with all
NUM_TARGETS = 3
MAX_SCENES = 64
PANEL_SCENES = 8
PANEL_SIGMA = 1.0
PANEL_STEPS = 12


class Evaluation:
    """A fixed choice of input and target views of some scenes, divided among the ranks.

    mean_image: `[3, H, W]` in [-1, 1], the mean training image (see genvs.data.baselines). classes: one-hot, of all
    scenes of the dataset, for a class-conditional network.
    """

    def __init__(
        self,
        dataset: SceneDataset,
        scenes: Sequence[int],
        mean_image: Tensor,
        device: torch.device,
        classes: Tensor | None = None,
    ) -> None:
        scenes = list(scenes)
        self.device, self.mean_image = device, mean_image.to(device)
        # The scene with the fewest views decides: first there are fewer inputs, then fewer targets.
        fewest = min(dataset.num_views(scene) for scene in scenes)
        num_targets = max(1, min(NUM_TARGETS, fewest - NUM_INPUTS))
        num_inputs = min(NUM_INPUTS, fewest - num_targets)
        scenes = scenes[:MAX_SCENES]
        self.classes = None if classes is None else classes[scenes].to(device)
        inputs, targets = [], []
        for scene in scenes:
            rng = numpy_generator(Stream.EVALUATED_VIEWS, scene)
            input_indices, target_indices = choose_views(dataset.num_views(scene), num_inputs, num_targets, rng)
            inputs.append(dataset.load(scene, input_indices))
            targets.append(dataset.load(scene, target_indices))
        self.batch = ViewBatch(Views.stack(inputs), Views.stack(targets), torch.arange(len(scenes))).to(device)
        shape = self.batch.targets.images.shape
        keys = sample_keys(0, torch.arange(shape[:2].numel())).unflatten(0, shape[:2])
        self.noise = normal(keys, tuple(shape[2:])).to(device)

    @torch.inference_mode()
    def measure(self, net: GeNVS, batch_gpu: int) -> dict[str, float]:
        """Mean PSNR (dB) over all targets, the same on every rank. batch_gpu: images at a time.

        Keys: `PSNR/V_input` for one-step estimates by the model, `PSNR/V_input_nearest` for the nearest input view
        (V = 1 and 3), and `PSNR/mean_image`.
        """
        counts = sorted({1, self.batch.inputs.shape[1]})
        names = ["mean_image", *(f"{v}_input{suffix}" for v in counts for suffix in ("", "_nearest"))]
        sums = {name: torch.zeros((), device=self.device) for name in names}
        one_step = sampler_of(net, "heun", 1)
        share = torch.arange(len(self.noise))[distributed.get_rank() :: distributed.get_world_size()]
        # A rank may have nothing to do; torch would split that into one empty part.
        for scenes in share.split(max(1, batch_gpu // self.noise.shape[1])) if len(share) else ():
            targets, noise = self.batch.targets[scenes], self.noise[scenes]
            volume = net.encode(self.batch.inputs[scenes].images)
            sums["mean_image"] += psnr(self.mean_image.expand_as(targets.images), targets.images).sum()
            for count in counts:
                inputs = self.batch.inputs[scenes][:, :count]
                copied = nearest_input(inputs, targets.cameras)
                sums[f"{count}_input_nearest"] += psnr(copied, targets.images).sum()
                feature_images = net.render(volume[:, :count], inputs.cameras, targets.cameras).flatten(0, 1)
                images = one_step(self.denoiser(net, feature_images, scenes), noise.flatten(0, 1))
                sums[f"{count}_input"] += psnr(images, targets.images.flatten(0, 1)).sum()
        totals = distributed.all_reduce_sum(torch.stack(list(sums.values()))) / self.noise.shape[:2].numel()
        return {f"PSNR/{name}": value for name, value in zip(sums, totals.tolist(), strict=True)}

    def denoiser(self, net: GeNVS, feature_images: Tensor, scenes: Tensor) -> Denoise:
        """What a sampler calls for the views of these feature images, of which each scene has equally many."""
        labels = None
        if self.classes is not None:
            labels = class_labels(self.classes[scenes], net.config)
            labels = labels.repeat_interleave(len(feature_images) // len(scenes), dim=0)
        return functools.partial(net.denoise, feature_image=feature_images, labels=labels)

    @torch.inference_mode()
    def panel(self, net: GeNVS, title: str) -> Image.Image:
        """A column per scene: an input view, feature image, noisy and denoised target, samples, target."""
        scenes = torch.arange(min(PANEL_SCENES, len(self.noise)))
        inputs, targets = self.batch.inputs[scenes][:, :1], self.batch.targets[scenes][:, :1]
        noise, images = self.noise[scenes][:, 0], targets.images[:, 0]
        feature_images = net.render(net.encode(inputs.images), inputs.cameras, targets.cameras)[:, 0]
        denoise = self.denoiser(net, feature_images, scenes)
        noisy = images + PANEL_SIGMA * noise
        rows = {
            "input": to_uint8(inputs.images[:, 0]),
            "feature image": feature_colors(feature_images),
            f"noisy, sigma {PANEL_SIGMA:g}": to_uint8(noisy),
            "denoised": to_uint8(denoise(noisy, torch.tensor(PANEL_SIGMA, device=self.device))),
            "one step": to_uint8(sampler_of(net, "heun", 1)(denoise, noise)),
            f"{PANEL_STEPS} steps": to_uint8(sampler_of(net, "heun", PANEL_STEPS)(denoise, noise)),
            "target": to_uint8(images),
        }
        return contact_sheet(title, [([f"scene {scene}" for scene in scenes.tolist()], rows)])


def summary(scores: dict[str, float], views: str = "held-out") -> str:
    """One line for the log: the model and the baselines, with one input view. views: the kind of views evaluated."""
    model, nearest, mean = (scores[f"PSNR/{name}"] for name in ("1_input", "1_input_nearest", "mean_image"))
    return (
        f"{views} PSNR, 1 input view, one step: {model:.2f} dB (nearest input copied {nearest:.2f}, "
        f"mean training image {mean:.2f}: {model - max(nearest, mean):+.2f} dB over the better one)"
    )
