"""What an evaluation draws, object by object, and the folder that keeps the images."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs import files
from genvs.data.baselines import nearest_input
from genvs.data.scenes import SceneDataset
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.metrics import SILHOUETTE_THRESHOLD, background_level
from genvs.metrics.distributions import SET_METRICS
from genvs.models.colours import colours_of
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import Conditioned, synthesize_views
from genvs.visualize import to_uint8
from inference import folders, protocol, writers
from inference.options import SAMPLING
from torch_utils import distributed

SAMPLES = "samples"
BASELINES = {"colours": "feature image's colours", "nearest": "nearest input view", "mean": "mean training image"}


@dataclass(frozen=True)
class Evaluation:
    """Which images of which objects are drawn, by which network, and where they are kept.

    classes: the objects' classes, for a class-conditional network. protocol: all that the figures depend on, by name.
    mean_image: `[3, H, W]` in [-1, 1], for the baseline of this name.
    """

    denoise: FastDenoiser
    guide: FastDenoiser | None
    dataset: SceneDataset
    classes: list[int] | None
    protocol: dict[str, Any]
    mean_image: Tensor | None
    out_dir: Path

    @property
    def drawings(self) -> dict[str, list[Any]]:
        """What is measured separately: the samples, by seed, and every baseline, by its name."""
        return {SAMPLES: self.protocol["seeds"], **{name: [name] for name in self.protocol["baselines"]}}

    def views(self, index: int) -> tuple[list[int], list[int]]:
        """An object's inputs and targets, as positions among its views."""
        num_inputs, views = self.protocol["num_inputs"], self.protocol["views"]
        return protocol.choose_views(self.dataset.num_views(index), num_inputs, views)

    @property
    def num_targets(self) -> int:
        """The number of views, of all objects, that are drawn."""
        return sum(len(self.views(index)[1]) for index in range(self.protocol["num_objects"]))

    def name(self, index: int) -> str:
        """An object's name in files."""
        return f"{index:04d}-{Path(self.dataset.scene_names[index]).name}"

    def set_class(self, index: int) -> None:
        """Condition the networks on an object's class. Raises InputError for one that they do not know."""
        for network in filter(None, (self.denoise, self.guide)):
            network.set_class(self.classes[index] if self.classes else None)

    def check(self) -> None:
        """Raise InputError for what would go wrong later."""
        self.check_folder()
        if (most := self.protocol["num_objects"]) < (processes := distributed.get_world_size()):
            raise InputError(f"{most} object(s) for {processes} processes: start at most {most} (NGPU)")
        self.dataset.check_views(self.protocol["num_inputs"] + 1)
        for index in range(most):
            self.views(index)
            self.set_class(index)
        metrics = self.protocol["metrics"]
        if "diversity" in metrics and len(self.protocol["seeds"]) < 2:
            raise InputError("--metrics diversity compares samples of several seeds: give --seeds 0-3, or leave it out")
        if self.num_targets < 2 and (of_sets := ", ".join(name for name in metrics if name in SET_METRICS)):
            raise InputError(f"--metrics {of_sets}: compares sets of images, and one view is no set: leave it out")
        first = self.dataset.load(0, [0]).to("cpu").images[0]
        off = background_level(first, self.dataset.scene_config().background_levels)
        if "consistency" in metrics and off > SILHOUETTE_THRESHOLD:
            raise InputError(
                f"{self.dataset.path}: images do not have the background ({self.protocol['background']}), as --metrics "
                "consistency needs: leave it out, or give another --background"
            )

    def check_folder(self) -> None:
        """Raise InputError where `out_dir` holds images of another protocol, or figures that would be lost."""
        ours = self.protocol
        folders.check_settings(self.out_dir / "protocol.json", ours)
        path = self.out_dir / "results.json"
        done = folders.settings_in(path)
        lost = {
            name: [one for one in done.get(name, ()) if one not in ours[name]]
            for name in ("seeds", "metrics", "baselines")
        }
        lost["objects"] = [count for count in [done.get("num_objects", 0)] if count > ours["num_objects"]]
        for name in filter(lost.get, lost):
            held = f"--{name} {','.join(map(str, lost[name]))}"
            raise InputError(f"{path}: has figures for {held}, which would be lost: add it or choose another --out_dir")

    def own_folder(self) -> contextlib.AbstractContextManager[None]:
        """Make `out_dir`, with its protocol. Raises InputError where another evaluation writes there."""
        return folders.own_folder(self.out_dir / "protocol.json", self.protocol, self.check_folder)

    def draw(self, index: int, drawing: int | str, inputs: Views, targets: Cameras, batch_size: int) -> Tensor:
        """The images of an object, uint8 `[T, 3, H, W]`, which are drawn unless they exist already.

        drawing: a sample's seed, or a baseline's name. inputs: `[V]`. targets: `[T]`.
        The mean training image is always written anew: the protocol does not state the train split, its source.
        """
        if drawing != "mean":
            with contextlib.suppress(OSError, ValueError):  # missing or damaged
                return self.drawn(index, drawing)
        if isinstance(drawing, str):
            images = self._baseline(drawing, inputs[None], targets[None], batch_size)
        else:
            self.set_class(index)
            # Objects have fewer views than 2^20, so that no two views share fresh noise.
            options = {**{name: self.protocol[name] for name in SAMPLING}, "seed": drawing, "first_view": index << 20}
            options |= {"denoise": self.denoise, "guide": self.guide, "batch_size": batch_size, "progress": False}
            drawn = synthesize_views(self.denoise.net, inputs[None], targets[None], **options)
            images = (image for image, _ in drawn)
        folder = self._folder(index, drawing)
        folder.mkdir(parents=True, exist_ok=True)
        files.remove_orphans(folder)
        for view, image in zip(self.views(index)[1], images, strict=True):
            writers.write_png(folder / f"{view:06d}.png", to_uint8(image))
        return self.drawn(index, drawing)

    def drawn(self, index: int, drawing: int | str) -> Tensor:
        """What was drawn: uint8 `[T, 3, H, W]`. Raises OSError or ValueError where an image is missing or damaged."""
        images = []
        for view in self.views(index)[1]:
            with Image.open(self._folder(index, drawing) / f"{view:06d}.png") as image:
                images.append(np.asarray(image.convert("RGB")))
        return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()

    def _folder(self, index: int, drawing: int | str) -> Path:
        kind = "seed" if isinstance(drawing, int) else "baseline"
        return self.out_dir / "images" / f"{kind}={drawing}" / self.name(index)

    @torch.inference_mode()
    def _baseline(self, name: str, inputs: Views, targets: Cameras, batch_size: int) -> Iterator[Tensor]:
        """Images `[3, H, W]` in [-1, 1] on the CPU, for targets `[1, T]`.

        'colours' are what training's auxiliary loss (`--rgb_weight`) teaches some channels of a feature image:
        the expected colours of the view, as in pixelNeRF (arXiv 2012.02190).
        """
        if name == "nearest":
            yield from nearest_input(inputs.to("cpu"), targets)[0]
        elif name == "mean":
            assert self.mean_image is not None
            yield from self.mean_image.expand(targets.shape[1], -1, -1, -1)
        else:
            device, colours = self.denoise.device, colours_of(self.denoise.modality, self.denoise.net.config)
            conditioned = Conditioned(self.denoise, inputs.to(device), batch_size=batch_size)
            for start in range(0, targets.shape[1], batch_size):
                feature_images = conditioned.render(targets[:, start : start + batch_size].to(device))
                yield from colours.picture(feature_images).clamp(-1, 1).cpu()
