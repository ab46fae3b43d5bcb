"""Checks a dataset before training: `python -m genvs.data.validate DATA`.

Read every file that training would read, list each fault with its fix, and draw the cameras.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from genvs.config import CONVENTIONS
from genvs.data.camera_checks import nearest_point_to_axes, warn_of_cameras
from genvs.data.scenes import SceneDataset, Splits
from genvs.data.storage import counted, open_split, printable
from genvs.data.stored import dataset_class
from genvs.data.transforms import states_cameras_alone
from genvs.errors import InputError, as_options, run_program
from genvs.files import replacing
from genvs.modalities import MODALITIES, modality_names
from genvs.programs import Parser, name_list, whole
from genvs.visualize import SHEET_TILE, Band, contact_sheet, draw_cameras, enlarge

SEVERITIES = ("error", "warning", "note")
MIN_CONTRAST = 2.0  # an image with a smaller standard deviation (of values up to 255) shows nothing
EXAMPLES = 3  # of each finding
DRAWN = 8  # scenes on the sheet


class Findings:
    """What is wrong with a dataset: texts of the form "where: what; fix", each with its severity."""

    def __init__(self) -> None:
        self._severities: dict[str, str] = {}

    def add(self, severity: str, text: str) -> None:
        self._severities[text] = severity

    def add_all(self, other: Findings) -> None:
        self._severities |= other._severities

    def count(self, severity: str) -> int:
        return list(self._severities.values()).count(severity)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Adds the warnings of the block, and the InputError that ends it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            except InputError as error:
                self.add("error", str(error))
        for warning in caught:
            self.add("warning", str(warning.message))

    def table(self) -> str:
        """The findings, those with the same fix together, errors first."""
        alike: dict[tuple[str, str], list[str]] = defaultdict(list)
        for text, severity in sorted(self._severities.items(), key=lambda item: SEVERITIES.index(item[1])):
            fault, _, fix = text.rpartition("; ") if "; " in text else (text, "", "")
            alike[severity, fix].append(fault)
        lines = []
        for (severity, fix), faults in alike.items():
            lines += [f"{severity:9}{fault}" for fault in faults[:EXAMPLES]]
            if len(faults) > EXAMPLES:
                lines.append(f"{'':9}... and {len(faults) - EXAMPLES} more like these")
            lines += [f"{'':9}Fix: {fix}"] if fix else []
        return as_options("\n".join(lines))


def check_scene(dataset: SceneDataset, number: int, min_views: int, findings: Findings) -> None:
    """Adds what is wrong with a scene's cameras and its pictures of the dataset's modalities."""
    scene, config = dataset.scenes[number], dataset.scene_config()
    with findings.gathered():
        scene.require_views(min_views)
    with findings.gathered():
        if number:  # opening a dataset examines its first scene
            planes = None if config.own_depths else (config.near, config.far)
            warn_of_cameras(dataset.all_c2w(number), planes, scene.shown)
    for name in dataset.modalities:
        if name in scene.modalities:
            check_pictures(dataset, number, name, findings)
        elif any(name in other.modalities for other in dataset.scenes):
            findings.add("note", f"{scene.shown}: has no {name}; add its pictures to use the scene for {name} too")


def check_pictures(dataset: SceneDataset, number: int, modality: str, findings: Findings) -> None:
    """Adds what is wrong with a scene's pictures of one modality, and with their cameras."""
    scene, is_photo = dataset.scenes[number], modality == "rgb"
    seen: dict[str, str] = {}
    usual: tuple[int, int] | None = None

    def examine(view: int) -> tuple[np.ndarray | InputError, tuple[int, int] | None]:
        """The picture, or what is wrong with it, and its size in the file."""
        try:
            picture = dataset.load(number, [view], MODALITIES[modality].index).images.numpy()
            return picture, None if is_photo else scene.picture_size(view, modality)
        except InputError as error:
            return error, None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for view, (picture, size) in enumerate(pool.map(examine, range(dataset.num_views(number)))):
            name = scene.shown_view(view) + ("" if is_photo else f", {modality}")
            if isinstance(picture, InputError):
                findings.add("error", str(picture))
                continue
            digest, usual = hashlib.sha256(picture.tobytes()).hexdigest(), usual or size
            if size and usual and size != usual:
                fault = f"is {size[0]}x{size[1]} and the first one {usual[0]}x{usual[1]}"
                findings.add("warning", f"{name}: {fault}; draw all in one size")
            if modality == "depth" and np.isin(picture, (0, 1, 255)).all() and picture.any():
                findings.add("warning", f"{name}: all depths are outside near to far; correct its depth_scale")
            elif float(picture.std()) < MIN_CONTRAST:
                findings.add("warning", f"{name}: its image has only one colour; remove the view if this is a mistake")
            elif seen.setdefault(digest, name) != name:
                findings.add("warning", f"{name}: has the same image as {seen[digest]}; keep one of them")


def camera_sheet(datasets: Mapping[str, SceneDataset], title: str) -> Image.Image | None:
    """The cameras of some scenes of each split in 3D, and the scene's first view, as all modalities show it.

    None if no scene can be read.
    """
    bands: list[Band] = []
    for split, dataset in datasets.items():
        columns = {}
        for number in np.linspace(0, len(dataset) - 1, min(DRAWN, len(dataset))).astype(int).tolist():
            with contextlib.suppress(InputError):
                c2w, there = dataset.all_c2w(number), dataset.modalities_of(number)
                pictures = {name: dataset.load(number, [0], MODALITIES[name].index).images[0].numpy() for name in there}
                shown = [pictures.get(name, np.zeros_like(pictures[there[0]])) for name in dataset.modalities]
                tiles = [np.asarray(enlarge(image.transpose(1, 2, 0), SHEET_TILE)) for image in shown]
                views = dataset.load(number, np.arange(len(c2w)), MODALITIES[there[0]].index)
                target = nearest_point_to_axes(c2w)
                target = c2w[:, :3, 3].mean(axis=0) if target is None else target
                cameras = draw_cameras(c2w, views.cameras.intrinsics.double().numpy(), target, tiles[0].shape[1])
                columns[dataset.scene_names[number]] = cameras, *tiles
        if columns:
            rows = [f"{split} {name}" for name in ("cameras", *dataset.modalities)]
            bands.append((list(columns), dict(zip(rows, zip(*columns.values(), strict=True), strict=True))))
    return contact_sheet(title, bands) if bands else None


def open_whole_or_scenes(
    kind: type[SceneDataset], split: str, place: Path, findings: Findings, **options
) -> dict[str, SceneDataset]:
    """The datasets to check, by name: the split or, if one of its scenes cannot be opened, every scene that can."""
    with findings.gathered():
        return {split: kind(place, **options)}
    (storage, file), opened, faults = open_split(place), {}, Findings()
    for name in storage.folders() if storage else ():
        with faults.gathered():
            opened[f"{split} {name[:-1]}"] = kind((place.parent if file else place) / name / file, **options)
    if opened:
        findings.add_all(faults)
    return opened


def validate(
    path: Path, kind: type[SceneDataset], min_views: int, out: Path, modalities: Sequence[str] = ("rgb",), **options
) -> Findings:
    """Checks all splits of the dataset at `path`, prints what is wrong, and draws a sheet. options: of the dataset."""
    options["modalities"] = modality_names(modalities)
    findings, datasets = Findings(), dict[str, SceneDataset]()
    for split, place in kind.find_splits(path)._asdict().items():
        if place is not None and states_cameras_alone(place):
            findings.add("note", f"{printable(place)}: has cameras but no images; add these to evaluate on them")
        elif place is not None:
            datasets |= open_whole_or_scenes(kind, split, place, findings, **options)
    scenes = [(split, number) for split, dataset in datasets.items() for number in range(len(dataset))]
    for split, number in tqdm(scenes, desc="Checking", unit="scenes", disable=None):
        check_scene(datasets[split], number, min_views if split == "train" else 2, findings)
    for name in options["modalities"]:
        if datasets and not any(name in scene.modalities for dataset in datasets.values() for scene in dataset.scenes):
            findings.add("error", f"{printable(path)}: no scene has {name}; add its pictures, or leave it out")
    whole = {split: dataset for split, dataset in datasets.items() if split in Splits._fields}
    for split, dataset in whole.items():
        views = sum(map(dataset.num_views, range(len(dataset))))
        near, far = dataset.scene_config().near, dataset.scene_config().far
        print(
            f"{split}: {counted(len(dataset), 'scene')}, {counted(views, 'view')}, {dataset.convention} axes, "
            f"near {near:.4g}, far {far:.4g}"
        )
        for name in dataset.modalities if len(dataset.modalities) > 1 else ():
            have, window = sum(name in scene.modalities for scene in dataset.scenes), MODALITIES[name].decibels
            print(f"  {name}: in {counted(have, 'scene')}" + (", {:g} to {:g} dB".format(*window) if window else ""))
    print(findings.table() or "Nothing is wrong.")
    title = f"{path.name}: " + ", ".join(counted(findings.count(severity), severity) for severity in SEVERITIES[:2])
    if sheet := camera_sheet(whole or datasets, title):
        with replacing(out) as file:
            sheet.save(file, "png")
        print(f"Drawn: {out}")
    return findings


def main() -> None:
    parser = Parser("python -m genvs.data.validate", (__doc__ or "\n\n").split("\n\n")[1])
    data, cameras, output = map(parser.add_argument_group, ("data", "cameras", "output"))
    data.add_argument("data", type=Path, metavar="DATA", help="as --data of train.sh")
    data.add_argument("--data-class", metavar="PKG.MODULE.CLASS", help="your own class to read DATA with")
    some = f"what to check: some of {', '.join(MODALITIES)}"
    data.add_argument("--modalities", type=name_list, default="rgb", metavar="NAME,...", help=some)
    data.add_argument(
        "--views", type=whole(2), default=5, metavar="N", help="that a scene needs: inputs and targets together"
    )
    data.add_argument("--resolution", type=whole(8, 1024), default=128, metavar="N", help="side of images, pixels")
    for plane in ("near", "far"):
        depth = f"{plane} depth plane, world units (default: the dataset's)"
        cameras.add_argument(f"--{plane}", type=float, metavar="DEPTH", help=depth)
    axes = "axes of the poses (default: the format's)"
    cameras.add_argument("--convention", choices=CONVENTIONS, help=axes)
    cameras.add_argument("--normalize", action="store_true", help="move and scale every scene by its cameras")
    output.add_argument(
        "--out", type=Path, default=Path("validation.png"), metavar="PNG", help="the picture of the cameras to write"
    )
    options = vars(parser.parse_args())
    path, kind = options.pop("data"), dataset_class(options.pop("data_class"))
    findings = validate(path, kind, options.pop("views"), options.pop("out"), **options)
    if findings.count("error"):
        raise InputError(f"{printable(path)}: {counted(findings.count('error'), 'error')}; see the fixes above")


if __name__ == "__main__":
    run_program(main)
