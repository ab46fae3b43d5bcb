"""Evaluation during training: PSNR against two baselines, and a sheet of samples."""

from __future__ import annotations

import functools
import math
from collections import defaultdict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs.data.baselines import mean_training_image, nearest_input
from genvs.data.scenes import choose_views
from genvs.data.types import ViewBatch
from genvs.diffusion.samplers import Denoise
from genvs.metrics import psnr
from genvs.models import GeNVS
from genvs.models.labels import class_labels
from genvs.random import Stream, normal, numpy_generator, sample_keys
from genvs.sampling.synthesis import sampler_of
from genvs.visualize import contact_sheet, feature_colors, to_uint8
from torch_utils import distributed
from training.data import RunData

NUM_INPUTS = 3  # PSNR is measured with the first of them, and with all
NUM_TARGETS = 3
MAX_TARGETS = 8  # of the views that are held out of a single scene
MAX_SCENES = 64
PANEL_SCENES = 8
PANEL_SIGMA = 1.0
PANEL_STEPS = 12


class Evaluation:
    """A fixed choice of input and target views of the held-out scenes, divided among the ranks.

    Where views of a scene are held out instead, they are the targets, and others the inputs.
    """

    def __init__(self, data: RunData, device: torch.device) -> None:
        dataset, scenes = data.held_out, np.array(data.held_out_scenes)
        trained = dataset is data.train and data.held_out_scenes == data.train_scenes and not dataset.hold_out_every
        self.kind = "training-view" if trained else "held-out"
        self.mean_image = mean_training_image(data.train, data.train_scenes).to(device)
        # The scene with the fewest views decides: first there are fewer inputs, then fewer targets.
        fewest = min(map(dataset.num_views, scenes))
        num_targets = max(1, min(NUM_TARGETS, fewest - NUM_INPUTS))
        num_inputs = min(NUM_INPUTS, fewest - num_targets)
        scenes = scenes[:MAX_SCENES]
        chosen = []
        for scene in scenes:
            rng, held_out = numpy_generator(Stream.EVALUATED_VIEWS, scene), dataset.held_out_views(scene)
            if len(held_out):
                given = rng.permutation(dataset.sampled_views(scene))[:num_inputs]
                chosen.append((given, held_out[:: math.ceil(len(held_out) / MAX_TARGETS)]))
            else:
                chosen.append(choose_views(dataset.num_views(scene), num_inputs, num_targets, rng))
        inputs, targets = (dataset.load(scenes[:, None], np.stack(views)) for views in zip(*chosen, strict=True))
        classes = None if dataset.one_hot is None else dataset.one_hot[scenes]
        self.batch = ViewBatch(inputs, targets, torch.arange(len(scenes)), classes).to(device)
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
        sums: dict[str, float] = defaultdict(float)
        one_step = sampler_of(net, "heun", 1)
        share = torch.arange(len(self.noise))[distributed.get_rank() :: distributed.get_world_size()]
        # A rank may have nothing to do; torch would split that into one empty part.
        for scenes in share.split(max(1, batch_gpu // self.noise.shape[1])) if len(share) else ():
            targets, noise = self.batch.targets[scenes], self.noise[scenes]
            volume = net.encode(self.batch.inputs[scenes].images, self.batch.inputs[scenes].cameras)
            sums["mean_image"] += psnr(self.mean_image.expand_as(targets.images), targets.images).sum().item()
            for count in counts:
                inputs = self.batch.inputs[scenes][:, :count]
                copied = nearest_input(inputs, targets.cameras)
                sums[f"{count}_input_nearest"] += psnr(copied, targets.images).sum().item()
                feature_images = net.render(volume[:, :count], inputs.cameras, targets.cameras).flatten(0, 1)
                images = one_step(self.denoiser(net, feature_images, scenes), noise.flatten(0, 1))
                sums[f"{count}_input"] += psnr(images, targets.images.flatten(0, 1)).sum().item()
        of_ranks, count = distributed.gather_objects(sums), self.noise.shape[:2].numel()
        return {f"PSNR/{name}": sum(of_rank.get(name, 0.0) for of_rank in of_ranks) / count for name in of_ranks[0]}

    def denoiser(self, net: GeNVS, feature_images: Tensor, scenes: Tensor) -> Denoise:
        """What a sampler calls for the views of these feature images, of which each scene has equally many."""
        labels = None
        if self.batch.classes is not None:
            labels = class_labels(self.batch.classes[scenes], net.config)
            labels = labels.repeat_interleave(len(feature_images) // len(scenes), dim=0)
        return functools.partial(net.denoise, feature_image=feature_images, labels=labels)

    @torch.inference_mode()
    def panel(self, net: GeNVS, title: str) -> Image.Image:
        """A column per scene: an input view, feature image, noisy and denoised target, samples, target."""
        scenes = torch.arange(min(PANEL_SCENES, len(self.noise)))
        inputs, targets = self.batch.inputs[scenes][:, :1], self.batch.targets[scenes][:, :1]
        noise, images = self.noise[scenes][:, 0], targets.images[:, 0]
        feature_images = net.render(net.encode(inputs.images, inputs.cameras), inputs.cameras, targets.cameras)[:, 0]
        denoise = self.denoiser(net, feature_images, scenes)
        noisy = images + PANEL_SIGMA * noise
        rows = {
            "input": to_uint8(inputs.images[:, 0]),
            "feature image": feature_colors(feature_images),
            f"noisy, sigma {PANEL_SIGMA:g}": to_uint8(noisy),
            "denoised": to_uint8(denoise(noisy, noise.new_tensor(PANEL_SIGMA))),
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
