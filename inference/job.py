"""An evaluation's work: the network, the images to draw, and the drawing of them, object by object."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs.data.scenes import SceneDataset
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.metrics import SILHOUETTE_THRESHOLD, background_level
from genvs.models import GeNVS
from genvs.models.labels import label_of_class
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import synthesize_views
from genvs.visualize import to_uint8
from inference import protocol, writers
from inference.baselines import BASELINES, draw_baseline
from inference.measures import ALWAYS
from inference.protocol import Protocol
from inference.sampling_options import described

PROTOCOL_FILE, RESULTS_FILE = "protocol.json", "results.json"
SAMPLES = "samples"


@dataclass(frozen=True)
class Job:
    """What is evaluated: which images of which objects, drawn by which network, and where they are kept.

    classes: of the dataset's objects, for a network that is told them. baselines: of BASELINES, beside the samples.
    mean_image: for that one of the baselines. asked: by option, what the protocol does not hold, or by what it does;
    "split" is the one that was found, by name, or None.
    """

    net: GeNVS
    guide: FastDenoiser | None
    dataset: SceneDataset
    classes: list[int] | None
    protocol: Protocol
    num_objects: int
    seeds: list[int]
    baselines: list[str]
    mean_image: Tensor | None
    asked: dict[str, Any]
    out_dir: Path

    @property
    def drawings(self) -> dict[str, list[int] | list[str]]:
        """What is measured, each by itself: the samples, of some seeds, and every baseline. `draw` takes the values."""
        return {SAMPLES: self.seeds, **{name: [name] for name in self.baselines}}

    def views(self, index: int) -> tuple[list[int], list[int]]:
        """An object's inputs and targets, as places among its views."""
        return protocol.choose_views(self.dataset.num_views(index), self.protocol.num_inputs, self.protocol.views)

    def name(self, index: int) -> str:
        """What files call an object, whatever its dataset calls it."""
        return f"{index:04d}-{Path(self.dataset.scene_names[index]).name}"

    def label(self, index: int, net: GeNVS) -> Tensor | None:
        """What `net` is told of an object, `[1, L]`. Raises InputError for a class that it does not know."""
        return label_of_class(self.classes[index], net.config) if self.classes else None

    def folder(self, index: int, drawing: int | str) -> Path:
        """Where an object's images are kept. drawing: a sample's seed, or a baseline's name."""
        kind = "seed" if isinstance(drawing, int) else "baseline"
        return self.out_dir / "images" / f"{kind}={drawing}" / self.name(index)

    def check(self) -> None:
        """Raise InputError for what would go wrong later."""
        if self.out_dir.exists() and not self.out_dir.is_dir():
            raise InputError(f"--out_dir={self.out_dir}: is no folder: choose another")
        self.protocol.check(self.out_dir / PROTOCOL_FILE)
        self._check_results()
        self.dataset.check_views(self.protocol.num_inputs + 1)
        for index in range(self.num_objects):
            self.views(index)
            for net in (self.net, *([self.guide.net] if self.guide else [])):
                self.label(index, net)
        protocol.share(self.num_objects)
        first = self.dataset.load(0, [0]).to("cpu").images[0]
        if "consistency" in self.asked["metrics"] and background_level(first) > SILHOUETTE_THRESHOLD:
            raise InputError(
                f"{self.dataset.path}: the background is not white, as --metrics consistency needs: leave it out"
            )

    def _check_results(self) -> None:
        """Raise InputError where figures in `out_dir` would be lost, because they are not measured again."""
        path = self.out_dir / RESULTS_FILE
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            there = {
                "--objects": set(old["objects"]) - {self.name(index) for index in range(self.num_objects)},
                "--metrics": set(old["summary"]) - {*ALWAYS, *self.asked["metrics"]},
                "--baselines": set(old["baselines"]) - {*self.baselines},
                "--seeds": {*map(str, old["protocol"]["seeds"])} - {*map(str, self.seeds)},
            }
        except (OSError, ValueError, LookupError, TypeError):
            return
        for option, names in there.items():
            if names:
                raise InputError(
                    f"{path}: holds {len(names)} more {option} ({', '.join(sorted(names)[:3])}), whose figures would "
                    "be lost: ask for these too, or choose another --out_dir"
                )

    def facts(self) -> list[str]:
        """What is drawn, for a reader."""
        chosen = self.protocol
        inputs, targets = self.views(0)
        options = [f"{name} {self.asked[name]}" for name in ("data_class", "cam_weighting") if self.asked[name]]
        split = f"split {self.asked['split']}" if self.asked["split"] else "no split by name"
        return [
            f"snapshot: {chosen.snapshot}",
            f"data: {chosen.data}, {split}, {self.num_objects} of {len(self.dataset)} objects, "
            f"{chosen.resolution}x{chosen.resolution} pixels, 8 bits" + ("; normalized" if chosen.normalize else ""),
            *([f"also: {', '.join(options)}"] if options else []),
            f"views of an object: {self.dataset.num_views(0)}; input {', '.join(map(str, inputs))}; "
            f"{len(targets)} drawn",
            f"samples: {', '.join(f'{name} {value}' for name, value in chosen.sampling.items())}; "
            f"seed {', '.join(map(str, self.seeds))}" + ("; guided by a worse network" if self.guide else ""),
            *(f"baseline {name}: the {BASELINES[name]}" for name in self.baselines),
        ]

    @contextlib.contextmanager
    def own_folder(self) -> Iterator[None]:
        """Make `out_dir`, with its protocol, and keep others out of it inside.

        Raises InputError where it cannot be written, or another evaluation is at it.
        """
        with contextlib.ExitStack() as closed_at_the_end:
            try:
                self.out_dir.mkdir(parents=True, exist_ok=True)
                lock = closed_at_the_end.enter_context(open(self.out_dir / ".lock", "ab"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, however this process ends
                self.protocol.check(self.out_dir / PROTOCOL_FILE)
                self.protocol.write(self.out_dir / PROTOCOL_FILE)
            except BlockingIOError:
                raise InputError(
                    f"--out_dir={self.out_dir}: another evaluation writes there: wait for it, or choose another"
                ) from None
            except OSError as error:
                reason = error.strerror
                raise InputError(f"--out_dir={self.out_dir}: cannot be written ({reason}): choose another") from None
            yield

    def draw(
        self, index: int, drawing: int | str, views: tuple[Views, Views], denoise: FastDenoiser, batch_size: int
    ) -> None:
        """Draw an object, unless that is done. Its folder appears when all images are in it; a damaged one is replaced.

        The baseline 'mean' is drawn anew: it depends on the train split too, which the protocol does not hold.
        drawing: a sample's seed, or a baseline's name. views: inputs `[V]` and targets `[T]`. denoise: of `net`, on its
        device. batch_size: views at a time.
        """
        folder = self.folder(index, drawing)
        if drawing != "mean":
            with contextlib.suppress(InputError):
                self.drawn(index, drawing, self.views(index)[1])
                return
        shutil.rmtree(folder, ignore_errors=True)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        inputs, cameras = views[0][None], views[1].cameras[None]
        images: Iterable[Tensor]
        if isinstance(drawing, str):
            images = draw_baseline(drawing, inputs, cameras, self.mean_image, denoise, batch_size)
        else:
            sampled = synthesize_views(
                self.net,
                inputs,
                cameras,
                **self.protocol.sampling,
                seed=drawing,
                batch_size=batch_size,
                progress=False,
                denoise=denoise,
                guide=self.guide,
            )
            images = (image for image, _ in sampled)
        for place, image in zip(self.views(index)[1], images, strict=True):
            writers.write_png(partial / file_name(place), to_uint8(image))
        try:
            os.replace(partial, folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}): choose another --out_dir") from None

    def drawn(self, index: int, drawing: int | str, places: list[int]) -> Tensor:
        """What `draw` has drawn: uint8 `[T, 3, H, W]`. Raises InputError where an image is gone or damaged."""
        folder = self.folder(index, drawing)
        try:
            images = []
            for place in places:
                with Image.open(folder / file_name(place)) as image:
                    images.append(np.asarray(image.convert("RGB")))
            return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: cannot be read ({error}): delete this folder, and it is drawn again") from None


def file_name(place: int) -> str:
    """Of an image, by its place among the object's views."""
    return f"{place:06d}.png"


def results_folder(parent: Path, chosen: Protocol, sampling: dict[str, Any], cam_weighting: str | None) -> Path:
    """Where results go by default: the same folder for the same options, so that they are found again.

    sampling: the settled options. cam_weighting: as it was asked for.
    """
    snapshot = Path(chosen.snapshot).resolve()
    views = chosen.views if isinstance(chosen.views, str) else f"file_{protocol.digest(chosen.views)[:6]}"
    name = f"evaluation-{snapshot.parent.name}-{snapshot.stem.removeprefix('network-snapshot-')}"
    name += f"-{Path(chosen.data).stem}_{chosen.data_sha256[:6]}-inputs={chosen.num_inputs}-views={views}"
    name += "" if cam_weighting is None else f"-{cam_weighting}"
    return parent / f"{name}-{described(sampling)}"
