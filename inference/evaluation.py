"""What an evaluation draws, object by object, and the folder that keeps the images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs import files
from genvs.config import WHITE
from genvs.data.baselines import nearest_input
from genvs.data.scenes import SceneDataset
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.metrics import SILHOUETTE_THRESHOLD, background_level
from genvs.models import GeNVS
from genvs.models.labels import label_of_class
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import Conditioned, synthesize_views
from genvs.visualize import to_uint8
from inference import protocol, writers
from inference.options import SAMPLING
from torch_utils import distributed

SAMPLES = "samples"
BASELINES = {"colours": "feature image's colours", "nearest": "nearest input view", "mean": "mean training image"}


@dataclass(frozen=True)
class Evaluation:
    """Which images of which objects are drawn, by which network, and where they are kept.

    classes: the objects' classes, for a class-conditional network. protocol: see `protocol.check_protocol`.
    asked: how much of that is drawn and measured (num_objects, seeds, baselines, metrics), and other options by name.
    mean_image: `[3, H, W]` in [-1, 1], for the baseline of this name.
    """

    net: GeNVS
    guide: FastDenoiser | None
    dataset: SceneDataset
    classes: list[int] | None
    protocol: dict[str, Any]
    asked: dict[str, Any]
    mean_image: Tensor | None
    out_dir: Path

    @property
    def drawings(self) -> dict[str, list[Any]]:
        """What is measured separately: the samples, by seed, and every baseline, by its name."""
        return {SAMPLES: self.asked["seeds"], **{name: [name] for name in self.asked["baselines"]}}

    def views(self, index: int) -> tuple[list[int], list[int]]:
        """An object's inputs and targets, as positions among its views."""
        num_inputs, views = self.protocol["num_inputs"], self.protocol["views"]
        return protocol.choose_views(self.dataset.num_views(index), num_inputs, views)

    def name(self, index: int) -> str:
        """An object's name in files."""
        return f"{index:04d}-{Path(self.dataset.scene_names[index]).name}"

    def label(self, index: int, net: GeNVS) -> Tensor | None:
        """An object's class label for `net`, `[1, L]`. Raises InputError for a class that the network does not know."""
        return label_of_class(self.classes[index], net.config) if self.classes else None

    def check(self) -> None:
        """Raise InputError for what would go wrong later."""
        self.check_folder()
        if (most := self.asked["num_objects"]) < distributed.get_world_size():
            processes = distributed.get_world_size()
            raise InputError(f"{most} object(s) for {processes} processes: start at most {most} (NGPU)")
        self.dataset.check_views(self.protocol["num_inputs"] + 1)
        for index in range(self.asked["num_objects"]):
            self.views(index)
            for net in [self.net, *([self.guide.net] if self.guide else [])]:
                self.label(index, net)
        first = self.dataset.load(0, [0]).to("cpu").images[0]
        if "consistency" in self.asked["metrics"] and background_level(first) > SILHOUETTE_THRESHOLD:
            raise InputError(
                f"{self.dataset.path}: the background is not white, as --metrics consistency needs: leave it out"
            )

    def check_folder(self) -> None:
        """Raise InputError where `out_dir` holds images of another protocol, or figures that would be lost."""
        protocol.check_protocol(self.protocol, self.out_dir / "protocol.json")
        protocol.check_results(self.asked, self.out_dir / "results.json")

    def facts(self) -> list[str]:
        """What is drawn, for a reader."""
        chosen, asked, resolution = self.protocol, self.asked, self.protocol["resolution"]
        inputs, targets = self.views(0)
        split = f"split {asked['split']}" if asked["split"] else "no split by name"
        sampling = ", ".join(f"{name} {chosen[name]}" for name in SAMPLING)
        return [
            f"snapshot: {chosen['snapshot']}",
            f"data: {chosen['data']}, {split}, {asked['num_objects']} of {len(self.dataset)} objects, "
            f"{resolution}x{resolution} pixels, 8 bits" + ("; normalized" if chosen["normalize"] else ""),
            *(f"{name}: {asked[name]}" for name in ("data_class", "cam_weighting", "guide") if asked[name]),
            f"views of an object: {self.dataset.num_views(0)}; input {', '.join(map(str, inputs))}; "
            f"{len(targets)} drawn",
            f"samples: {sampling}; seed {', '.join(map(str, asked['seeds']))}",
            *(f"baseline {name}: the {BASELINES[name]}" for name in asked["baselines"]),
        ]

    @contextlib.contextmanager
    def own_folder(self) -> Iterator[None]:
        """Make `out_dir`, with its protocol. Raises InputError where another evaluation writes there."""
        self.out_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.lock(self.out_dir / ".lock"))
            except BlockingIOError:
                raise InputError(
                    f"--out_dir={self.out_dir}: another evaluation writes there: wait for it, or choose another"
                ) from None
            self.check_folder()
            files.write_atomic(json.dumps(self.protocol, indent=1) + "\n", self.out_dir / "protocol.json")
            yield

    def draw(
        self, index: int, drawing: int | str, inputs: Views, targets: Cameras, denoise: FastDenoiser, batch_size: int
    ) -> Tensor:
        """The images of an object, uint8 `[T, 3, H, W]`, which are drawn unless they exist already.

        drawing: a sample's seed, or a baseline's name. inputs: `[V]`. targets: `[T]`. denoise: of `net`, on its device.
        The mean training image is always written anew: the protocol does not state the train split, its source.
        """
        if drawing != "mean":
            with contextlib.suppress(OSError, ValueError):  # missing or damaged
                return self.drawn(index, drawing)
        if isinstance(drawing, str):
            images = self._baseline(drawing, inputs[None], targets[None], denoise, batch_size)
        else:
            # Objects have fewer views than 2^20, so that no two views share fresh noise.
            options = {**{name: self.protocol[name] for name in SAMPLING}, "seed": drawing, "first_view": index << 20}
            options |= {"denoise": denoise, "guide": self.guide, "batch_size": batch_size, "progress": False}
            images = (image for image, _ in synthesize_views(self.net, inputs[None], targets[None], **options))
        folder = self._folder(index, drawing)
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
    def _baseline(
        self, name: str, inputs: Views, targets: Cameras, denoise: FastDenoiser, batch_size: int
    ) -> Iterator[Tensor]:
        """Images `[3, H, W]` in [-1, 1] on the CPU, for targets `[1, T]`.

        'colours' are what training's auxiliary loss (`--rgb_weight`) teaches a feature image's first three channels:
        the expected colours of the view, as in pixelNeRF (arXiv 2012.02190).
        """
        if name == "nearest":
            yield from nearest_input(inputs.to("cpu"), targets)[0]
        elif name == "mean":
            assert self.mean_image is not None
            yield from self.mean_image.expand(targets.shape[1], -1, -1, -1)
        else:
            conditioned = Conditioned(denoise, inputs.to(denoise.device), batch_size=batch_size)
            for start in range(0, targets.shape[1], batch_size):
                feature_images = conditioned.render(targets[:, start : start + batch_size].to(denoise.device))
                yield from (feature_images[:, :3] + WHITE).clamp(-1, 1).cpu()
