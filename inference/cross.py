"""Every modality drawn from others by one network, and measured. Tables are in inference.cross_report.

The experiments are the three of CrossModalityDiffusion (arXiv 2501.09838). All runs of one draw the same views, and no
view is its own input.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from genvs.data.baselines import mean_training_image, nearest_input
from genvs.data.scenes import SceneDataset
from genvs.data.stored import dataset_class
from genvs.data.types import Views
from genvs.diffusion.samplers import Denoise
from genvs.errors import InputError
from genvs.metrics import overlap, psnr, silhouettes, ssim
from genvs.metrics.consistency import depth_agreement
from genvs.modalities import MODALITIES, from_levels, modality_names, to_levels
from genvs.models import GeNVS
from genvs.models.colours import as_stored, background_of
from genvs.random import Stream, normal, numpy_generator, sample_keys
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import guided, sampler_of
from inference import folders, options, protocol, writers
from torch_utils import distributed

EXPERIMENTS = ("pairs", "fusion", "sensors")
NUM_TARGETS = 3  # views of a scene that are drawn
FUSED = (2, 3, 4, 5)  # input views of the experiment `fusion`
DRAWINGS = ("network", "mean image", "nearest input")
LUMA = (0.299, 0.587, 0.114)
Scores = dict[tuple[str, str, str], dict[str, float]]  # by run, target and drawing, then by measure


@dataclass(frozen=True)
class Experiment:
    """Which views are drawn from which.

    name: one of EXPERIMENTS. inputs, targets: modalities. num_inputs: views, of `pairs`. The pictures that a scene's
    runs take as inputs are those of `choose`.

    pairs: all inputs of one modality, a run for each. fusion: for each N of FUSED, N views of random modalities, each
    alone and all together. sensors: every subset of the modalities, of one view.
    """

    name: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    num_inputs: int = 3

    @property
    def min_views(self) -> int:
        """The views that a scene needs."""
        return NUM_TARGETS + {"pairs": self.num_inputs, "fusion": FUSED[-1], "sensors": 1}[self.name]

    @property
    def runs(self) -> dict[str, list[int]]:
        """The places of each run's inputs among a scene's pictures, by the run's name."""
        names, count = self.inputs, self.num_inputs
        if self.name == "pairs":
            return {name: list(range(i * count, (i + 1) * count)) for i, name in enumerate(names)}
        if self.name == "sensors":
            sizes = range(1, len(names) + 1)
            subsets = [chosen for size in sizes for chosen in itertools.combinations(range(len(names)), size)]
            return {"+".join(names[place] for place in chosen): list(chosen) for chosen in subsets}
        found: dict[str, list[int]] = {}
        first = 0
        for number in FUSED:
            places = list(range(first, first + number))
            found |= {f"{i} of {number}": [place] for i, place in enumerate(places, start=1)}
            found[f"all {number}"] = places
            first += number
        return found

    def choose(self, scene: int, num_views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The views of a scene to draw, the views of its K input pictures, and these pictures' modalities.

        The choice does not depend on the network, so that networks can be compared by the same views.
        """
        rng, indices = numpy_generator(Stream.EVALUATED_VIEWS, scene), [MODALITIES[name].index for name in self.inputs]
        order = rng.permutation(num_views)
        targets, others = order[:NUM_TARGETS], order[NUM_TARGETS:]
        if self.name == "pairs":
            return targets, np.tile(others[: self.num_inputs], len(indices)), np.repeat(indices, self.num_inputs)
        if self.name == "sensors":
            return targets, np.repeat(others[0], len(indices)), np.array(indices)
        views = np.concatenate([rng.permutation(others)[:number] for number in FUSED])
        return targets, views, rng.choice(indices, len(views))


def open_cross(given: dict[str, Any], device: torch.device) -> Cross:
    """The experiment that the options ask for. given: all options of evaluate.py.

    Raises InputError where something cannot be opened.
    """
    ckpt_path, net = options.open_network(given)
    given = options.settle(given, net)
    names = {option: options.known_modalities(option, given[option], net) for option in ("inputs", "targets")}
    experiment = Experiment(given["cross"] or "pairs", **names, num_inputs=given["num_inputs"] or Experiment.num_inputs)
    if given["num_inputs"] and experiment.name != "pairs":
        raise InputError(f"`num_inputs` has no effect with `cross`={experiment.name}: leave one of them out")
    wanted, kind = modality_names({*experiment.inputs, *experiment.targets}), dataset_class(given["data_class"])
    path, split = protocol.find_split(given["data"], given["split"], kind)
    dataset = protocol.open_dataset(path, net.config, given, wanted)
    dataset.check_views(experiment.min_views)
    complete = [scene for scene in range(len(dataset)) if len(dataset.modalities_of(scene)) == len(wanted)]
    scenes = complete[: given["max_objects"]]
    if not scenes:
        fault = f"no scene has all of {', '.join(wanted)}"
        raise InputError(f"{path}: {fault}: add their pictures, or give other `inputs` and `targets`")
    if (most := len(scenes)) < (processes := distributed.get_world_size()):
        raise InputError(f"{most} scene(s) for {processes} processes: start at most {most} (NGPU)")
    train = dataset
    with contextlib.suppress(InputError):  # there is no such split
        path_of_means = protocol.find_split(given["data"], "train", kind)[0]
        train = protocol.open_dataset(path_of_means, net.config, given, wanted)
    there = {name for scene in range(len(train)) for name in train.modalities_of(scene)}
    of_means = {name: train if name in there else dataset for name in experiment.targets}
    means = {name: mean_training_image(of, range(len(of)), name) for name, of in of_means.items()}
    classes = dataset.checked_classes() if net.config.scene.num_classes else None
    settings = {
        **folders.settings_of(ckpt_path, net, dataset, split, classes, given, device),
        **{option: list(of) for option, of in names.items()},
        "num_inputs": experiment.num_inputs if experiment.name == "pairs" else None,
        "scenes": f"{len(scenes)} of {len(dataset)}",
        "mean images of": str(train.path),
    }
    out_dir = given["out_dir"] or folders.default_folder(experiment.name, settings, given)
    return Cross(net.to_device(device), dataset, scenes, experiment, settings, means, out_dir, classes)


class Cross:
    """One experiment on the scenes of a dataset that have all its modalities, divided among the ranks.

    settings: all that the pictures depend on, by name. mean_images: by target, `[3, H, W]` in [-1, 1]. out_dir: keeps
    the pictures. classes: the scenes' classes, for a class-conditional network.
    """

    def __init__(
        self,
        net: GeNVS,
        dataset: SceneDataset,
        scenes: Sequence[int],
        experiment: Experiment,
        settings: dict[str, Any],
        mean_images: dict[str, Tensor],
        out_dir: Path,
        classes: Sequence[int] | None = None,
    ) -> None:
        """Raises InputError for scenes that cannot be used."""
        self.net, self.dataset, self.scenes, self.experiment = net, dataset, scenes, experiment
        self.settings, self.out_dir, self.classes = settings, out_dir, classes
        self.device, self.guidance = next(net.parameters()).device, settings["guidance"]
        as_in_files = {name: to_levels(from_levels(image).round()) for name, image in mean_images.items()}
        self.mean_images = {name: image.to(self.device) for name, image in as_in_files.items()}
        self.denoisers = {
            name: FastDenoiser(net, bf16=settings["bf16"], modality=name, class_id=classes[0] if classes else None)
            for name in experiment.targets
        }
        self.background = {name: background_of(name, dataset.scene_config()) for name in experiment.targets}

    @property
    def pictures(self) -> Path:
        """The folder of what was drawn."""
        return self.out_dir / f"{self.experiment.name}-images"

    def path(self, scene: int, run: str, name: str) -> Path:
        """The file of a scene's views of a modality, side by side, as a run draws them."""
        folder = self.pictures / f"{run}-to-{name}".replace(" ", "-")
        return folder / f"{scene:04d}-{Path(self.dataset.scene_names[scene]).name}.png"

    def run(self, batch_size: int) -> dict[int, Scores]:
        """Draw what is missing and measure everything. All ranks must call it, and get the figures of all scenes."""
        share = self.scenes[distributed.get_rank() :: distributed.get_world_size()]
        at_a_time = 1 if self.classes else max(1, batch_size // NUM_TARGETS)  # of one class
        total = len(share) * len(self.experiment.runs) * len(self.experiment.targets) * NUM_TARGETS
        found: dict[int, Scores] = {scene: {} for scene in share}
        with tqdm(total=total, desc="drawing", unit="view", disable=True if distributed.get_rank() else None) as bar:
            for start in range(0, len(share), at_a_time):
                some = share[start : start + at_a_time]
                for run, name, scores in self._draw_and_measure(some):
                    for drawing, measures in scores.items():
                        for measure, values in measures.items():
                            for scene, value in zip(some, values.mean(dim=1).tolist(), strict=True):
                                found[scene].setdefault((run, name, drawing), {})[measure] = value
                    bar.update(len(some) * NUM_TARGETS)
        return {scene: scores for part in distributed.gather_objects(found) for scene, scores in part.items()}

    def load(self, scenes: Sequence[int]) -> tuple[Views, dict[str, Views], Tensor]:
        """The input pictures of scenes `[S, K]`, their targets `[S, T]` by modality, and these views' numbers."""
        choices = [self.experiment.choose(scene, self.dataset.num_views(scene)) for scene in scenes]
        targets, inputs, kinds = map(np.stack, zip(*choices, strict=True))
        rows = np.array(scenes)[:, None]
        wanted = {name: self.dataset.load(rows, targets, MODALITIES[name].index) for name in self.experiment.targets}
        return self.dataset.load(rows, inputs, kinds), wanted, torch.from_numpy((rows << 20) + targets)

    @torch.inference_mode()
    def _draw_and_measure(self, scenes: Sequence[int]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """For each run and target: their names, and figures `[S, T]` by drawing and measure."""
        inputs, targets, views = self.load(scenes)
        inputs, targets = inputs.to(self.device), {name: of.to(self.device) for name, of in targets.items()}
        volumes = functools.cache(lambda: self._encode(inputs))
        for run, places in self.experiment.runs.items():
            given, drawn = inputs[:, places], {}
            for name, wanted in targets.items():
                paths = [self.path(scene, run, name) for scene in scenes]
                try:
                    images = torch.stack([writers.read_strip(path) for path in paths])
                except (OSError, ValueError):  # missing or damaged
                    volume = volumes()[:, places].permute(0, 1, 5, 4, 2, 3)
                    images = self._draw(name, volume, given, wanted, views, scenes)
                    for path, pictures in zip(paths, images, strict=True):
                        writers.write_strip(path, pictures, name)
                drawn[name] = to_levels(images.to(self.device).float())
                others = self.mean_images[name].expand_as(drawn[name]), nearest_input(given, wanted.cameras)
                scores = {
                    drawing: measured(images, wanted, name, self.background[name])
                    for drawing, images in zip(DRAWINGS, (drawn[name], *others), strict=True)
                }
                if name == "depth" and "rgb" in drawn:
                    scores[DRAWINGS[0]]["agreement"] = self.agreement(drawn)
                yield run, name, scores

    def _encode(self, inputs: Views) -> Tensor:
        """Feature volumes of inputs `[S, K]`: `[S, K, H, W, D, C]`, which is how kernels read them."""
        with next(iter(self.denoisers.values())).autocast():
            columns = [inputs[:, k : k + 1] for k in range(inputs.shape[1])]
            volumes = [self.net.encode(column.images, column.cameras) for column in columns]
        return torch.cat([volume.permute(0, 1, 4, 5, 3, 2) for volume in volumes], dim=1)

    def _draw(
        self, name: str, volume: Tensor, given: Views, wanted: Views, views: Tensor, scenes: Sequence[int]
    ) -> Tensor:
        """The views `[S, T]` of a modality, uint8 `[S, T, 3, H, W]` on the CPU. Each has noise of its own."""
        denoise = self.denoisers[name]
        denoise.set_class(self.classes[scenes[0]] if self.classes else None)
        keys = sample_keys(MODALITIES[name].index, views.flatten().to(self.device))
        with denoise.autocast():
            shown = self.net.render(volume, given.cameras, wanted.cameras, modality=name).flatten(0, 1).float()
        denoised: Denoise = functools.partial(denoise, feature_image=shown)
        if self.guidance != 1:
            without = self.net.without_conditioning(shown, keys)
            denoised = guided(denoised, functools.partial(denoise, feature_image=without), self.guidance)
        sampling = {"churn": self.settings["churn"], "seed": int(views[0, 0])}  # whatever was drawn before
        sample = sampler_of(self.net, self.settings["sampler"], self.settings["num_steps"], **sampling)
        images = sample(denoised, normal(keys, tuple(wanted.images.shape[2:])))
        images = as_stored(images, name).clamp(-1, 1).view_as(wanted.images)
        return from_levels(images).round().byte().cpu()

    def agreement(self, pictures: dict[str, Tensor]) -> Tensor:
        """How well the silhouettes of photos and depth pictures of the same cameras agree, `[...]`."""
        return overlap(*(silhouettes(pictures[name], self.background[name]) for name in ("rgb", "depth")))

    @torch.inference_mode()
    def agreement_of_targets(self) -> float | None:
        """The mean of `agreement` over the real pictures; None where the targets are not photos and depth."""
        if not {"rgb", "depth"} <= set(self.experiment.targets):
            return None
        every = [{name: of.to("cpu").images for name, of in self.load([scene])[1].items()} for scene in self.scenes]
        return float(torch.cat([self.agreement(pictures) for pictures in every]).mean())


def measured(images: Tensor, targets: Views, modality: str, background: Sequence[float]) -> dict[str, Tensor]:
    """Figures `[S, T]` of images `[S, T, 3, H, W]`, by measure.

    psnr, ssim: of the pictures. gray_psnr: of their luma (Rec. 601). iou: of where they show something, which is a
    silhouette in photos, and a return in others. depth_error: as in `depth_agreement`.
    """
    ours, theirs = images.double(), targets.images.double()
    luma = ours.new_tensor(LUMA)[:, None, None]
    grays = [(pictures * luma).sum(dim=-3, keepdim=True) for pictures in (ours, theirs)]
    shown = [silhouettes(pictures, background) for pictures in (ours, theirs)]
    found = {"psnr": psnr(ours, theirs), "ssim": ssim(ours, theirs), "gray_psnr": psnr(*grays), "iou": overlap(*shown)}
    if modality == "depth":
        found["depth_error"] = depth_agreement(ours, theirs, targets.cameras)[0]
    return found
