"""Evaluation during training: PSNR against two baselines, and a sheet of samples."""

import functools
import math
from collections import defaultdict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs.data.baselines import mean_training_image, nearest_input
from genvs.data.scenes import choose_views
from genvs.data.types import Views
from genvs.diffusion.samplers import Denoise
from genvs.geometry.trajectories import trajectory_cameras
from genvs.metrics import psnr
from genvs.metrics.consistency import depth_agreement
from genvs.modalities import MODALITIES
from genvs.models import GeNVS
from genvs.models.colours import as_stored
from genvs.models.labels import labels_of_classes
from genvs.random import Stream, normal, numpy_generator, sample_keys
from genvs.sampling.synthesis import sampler_of, usual_sampling
from genvs.visualize import Band, contact_sheet, feature_colors, to_uint8
from torch_utils import distributed
from training.data import RunData
from training.monitor import mean_over_ranks

NUM_INPUTS = 3  # PSNR is measured with the first of them, and with all
NUM_TARGETS = 3
MAX_TARGETS = 8  # of the views that are held out of a single scene
MAX_SCENES = 64
PANEL_SCENES = 8
PANEL_SIGMA = 1.0
ORBIT_FRAMES, ORBIT_STEPS = 12, 4  # as much work as the sheet of samples


class Evaluation:
    """A fixed choice of input and target views of the held-out scenes, divided among the ranks.

    Where views of a scene are held out instead, they are the targets, and others the inputs. A scene's inputs are of
    its modalities in turn, and each target is measured in every modality.
    """

    def __init__(self, data: RunData, device: torch.device) -> None:
        dataset, scenes = data.held_out, np.array(data.held_out_scenes[:MAX_SCENES])
        trained = dataset is data.train and data.held_out_scenes == data.train_scenes and not dataset.hold_out_every
        self.kind = "training-view" if trained else "held-out"
        # The scene with the fewest views decides: first there are fewer inputs, then fewer targets.
        fewest = min(map(dataset.num_views, scenes))
        num_targets = max(1, min(NUM_TARGETS, fewest - NUM_INPUTS))
        num_inputs = min(NUM_INPUTS, fewest - num_targets)
        chosen, modalities_of_inputs = [], []
        for number, scene in enumerate(scenes):
            rng, held_out = numpy_generator(Stream.EVALUATED_VIEWS, scene), dataset.held_out_views(scene)
            if len(held_out):
                given = rng.permutation(dataset.sampled_views(scene))[:num_inputs]
                chosen.append((given, held_out[:: math.ceil(len(held_out) / MAX_TARGETS)]))
            else:
                chosen.append(choose_views(dataset.num_views(scene), num_inputs, num_targets, rng))
            there = [MODALITIES[name].index for name in dataset.modalities_of(scene)]
            modalities_of_inputs.append([there[(number + place) % len(there)] for place in range(num_inputs)])
        inputs, targets = map(np.stack, zip(*chosen, strict=True))
        self.inputs = dataset.load(scenes[:, None], inputs, np.array(modalities_of_inputs)).to(device)
        self.classes = None if dataset.one_hot is None else dataset.one_hot[scenes].to(device)
        self.targets: dict[str, tuple[Tensor, Views]] = {}  # by modality: which of the scenes have it, and their views
        self.mean_images: dict[str, Tensor] = {}
        for name in dataset.modalities:
            rows = [number for number, scene in enumerate(scenes) if name in dataset.modalities_of(scene)]
            if rows:
                views = dataset.load(scenes[rows][:, None], targets[rows], MODALITIES[name].index).to(device)
                self.targets[name] = torch.tensor(rows), views
                self.mean_images[name] = mean_training_image(data.train, data.train_scenes, name).to(device)
        shape = (*targets.shape, *self.inputs.images.shape[2:])
        keys = sample_keys(0, torch.arange(targets.size)).unflatten(0, targets.shape)
        self.noise = normal(keys, shape[2:]).to(device)

    @torch.inference_mode()
    def measure(self, net: GeNVS, batch_gpu: int) -> dict[str, float]:
        """Mean PSNR (dB) over all targets, the same on every rank. batch_gpu: images at a time.

        Keys: `PSNR/V_input` for one-step estimates by the model, `PSNR/V_input_nearest` for the nearest input view
        (V = 1 and 3), and `PSNR/mean_image`. With several modalities, `PSNR/NAME/V_input` and so on, of targets of each
        one; depth has `Depth/V_input_error` (world units) and `Depth/V_input_returns` too (`depth_agreement`).
        """
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))  # by name: number of values, and their sum

        def add(name: str, values: Tensor) -> None:
            sums[name] += values.numel(), values.sum().item()

        counts = sorted({1, self.inputs.shape[1]})
        one_step = sampler_of(net, None, 1)
        for name, (rows, views) in self.targets.items():
            prefix = f"PSNR/{name}/" if len(self.targets) > 1 else "PSNR/"
            share = torch.arange(len(rows))[distributed.get_rank() :: distributed.get_world_size()]
            # A rank may have nothing to do; torch would split that into one empty part.
            for part in share.split(max(1, batch_gpu // views.shape[1])) if len(share) else ():
                scenes, targets = rows[part], views[part]
                given = self.inputs[scenes]
                volume, noise = net.encode(given.images, given.cameras), self.noise[scenes].flatten(0, 1)
                add(f"{prefix}mean_image", psnr(self.mean_images[name].expand_as(targets.images), targets.images))
                for count in counts:
                    inputs = given[:, :count]
                    add(f"{prefix}{count}_input_nearest", psnr(nearest_input(inputs, targets.cameras), targets.images))
                    shown = net.render(volume[:, :count], inputs.cameras, targets.cameras, modality=name).flatten(0, 1)
                    images = as_stored(one_step(self.denoiser(net, shown, scenes, name), noise), name)
                    images = images.view_as(targets.images)
                    add(f"{prefix}{count}_input", psnr(images, targets.images))
                    if name == "depth":
                        error, returns = depth_agreement(images.clamp(-1, 1), targets.images, targets.cameras)
                        add(f"Depth/{count}_input_error", error)
                        add(f"Depth/{count}_input_returns", returns)
        return mean_over_ranks(sums)

    def denoiser(self, net: GeNVS, feature_images: Tensor, scenes: Tensor, modality: str) -> Denoise:
        """The function that a sampler calls to draw the views of these feature images, equally many of each scene."""
        labels = None
        if self.classes is not None:
            labels = labels_of_classes(self.classes[scenes], net.config)
            labels = labels.repeat_interleave(len(feature_images) // len(scenes), dim=0)
        return functools.partial(net.denoise, feature_image=feature_images, labels=labels, modality=modality)

    @torch.inference_mode()
    def panel(self, net: GeNVS, title: str) -> Image.Image:
        """A column per scene: an input view, feature image, noisy and denoised target, samples, target. Rows for each
        modality of the targets.
        """
        bands: list[Band] = []
        for name, (rows, views) in self.targets.items():
            scenes, targets = rows[:PANEL_SCENES], views[:PANEL_SCENES, :1]
            inputs, noise, images = self.inputs[scenes][:, :1], self.noise[scenes][:, 0], targets.images[:, 0]
            volume = net.encode(inputs.images, inputs.cameras)
            feature_images = net.render(volume, inputs.cameras, targets.cameras, modality=name)[:, 0]
            denoise = self.denoiser(net, feature_images, scenes, name)
            noisy = images + PANEL_SIGMA * noise
            pictures = {
                "input": to_uint8(inputs.images[:, 0]),
                "feature image": feature_colors(feature_images),
                f"noisy, sigma {PANEL_SIGMA:g}": to_uint8(noisy),
                "denoised": to_uint8(as_stored(denoise(noisy, noise.new_tensor(PANEL_SIGMA)), name)),
            }
            for count in sorted({1, usual_sampling(net)[1]}):
                drawn = sampler_of(net, None, count)(denoise, noise)
                pictures["one step" if count == 1 else f"{count} steps"] = to_uint8(as_stored(drawn, name))
            pictures["target" if len(self.targets) == 1 else f"target: {name}"] = to_uint8(images)
            bands.append(([f"scene {scene}" for scene in scenes.tolist()], pictures))
        return contact_sheet(title, bands)

    @torch.inference_mode()
    def orbit(self, net: GeNVS) -> list[np.ndarray]:
        """The first scene from all around, `[H, W, 3]` uint8 each, drawn from its inputs in the first one's modality.

        Raises InputError where the inputs' cameras are at the origin.
        """
        inputs = self.inputs[:1]
        name = list(MODALITIES)[int(inputs.cameras.modality[0, 0])]
        cameras = trajectory_cameras(inputs.cameras, "orbit", ORBIT_FRAMES)
        volume = net.encode(inputs.images, inputs.cameras)
        feature_images = net.render(volume, inputs.cameras, cameras, modality=name)[0]
        denoise = self.denoiser(net, feature_images, torch.zeros(1, dtype=torch.long), name)
        noise = self.noise[0, :1].expand(ORBIT_FRAMES, -1, -1, -1)
        sample = sampler_of(net, None, min(ORBIT_STEPS, usual_sampling(net)[1]))
        return list(to_uint8(as_stored(sample(denoise, noise), name)))


def summary(scores: dict[str, float], views: str = "held-out") -> str:
    """One line for the log: the model and the baselines, with one input view. views: the kind of views evaluated."""
    parts = []
    for key in (key for key in scores if key.endswith("/1_input")):
        prefix = key.removesuffix("1_input")
        model, nearest, mean = (scores[prefix + name] for name in ("1_input", "1_input_nearest", "mean_image"))
        name = prefix.removeprefix("PSNR/").strip("/")
        parts.append(
            f"{name + ' ' if name else ''}{model:.2f} dB (nearest input copied {nearest:.2f}, mean training image "
            f"{mean:.2f}: {model - max(nearest, mean):+.2f} dB over the better one)"
        )
    return f"{views} PSNR, 1 input view, one step: {'; '.join(parts)}"
