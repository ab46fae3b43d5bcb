"""How good a snapshot's views are, on three fixed sets: a command each makes the set and measures (docs/results.md)."""

import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import click

from benchmarks.common import ROOT
from dnnlib.command import Command, FullPath, option_group, run_command
from genvs.data.mesh.dataset import ensure_meshes
from genvs.data.synthetic.dataset import SPIRAL_VIEWS, ensure_dataset
from genvs.errors import InputError
from inference import evaluate
from inference.protocol import PUBLISHED_RESOLUTION

CARS = 100
VEHICLES = (
    *("car_hatchback.gltf", "car_sedan.gltf", "car_stationwagon.gltf", "car_taxi.gltf"),  # KayKit's City Builder Bits
    *("police.glb", "sedan.glb", "suv.glb", "suv-luxury.glb", "truck.glb", "van.glb"),  # Kenney's Car Kit
)
REAL_VIEWS = (64, 128)  # of SRN's 251
IMAGE_METRICS = "lpips_vgg,dists,consistency"
PROTOCOLS = {  # options of evaluate.py
    "cars": ["--seeds", "0,1", "--metrics", f"{IMAGE_METRICS},fd_vgg,swd,diversity"],
    "vehicles": ["--metrics", IMAGE_METRICS],
    "views": ["--seeds", "0-7", "--metrics", IMAGE_METRICS],
}
SHARED = ["--views", "list", "--baselines", "nearest,colours"]
DATA = "Of vehicles: the folder that holds the meshes, at any depth; of views: a scene in SRN's layout."
SETS = ROOT / "datasets" / "quality"
of_sets = option_group("Sets")


@click.command(
    "quality",
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    epilog="OPTIONS: any of inference/evaluate.py; they replace those of the set.",
)
@click.argument("name", metavar="cars|vehicles|views", type=click.Choice(list(PROTOCOLS)))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@of_sets("--data", type=FullPath(path_type=Path, exists=True, file_okay=False), help=DATA)
@of_sets("--objects", type=click.IntRange(min=1), show_default="all", help="Only the first N objects.")
def main(name: str, options: tuple[str, ...], data: Path | None, objects: int | None) -> None:
    """Measure a snapshot on held-out embedded cars, on ten low-poly vehicles, or between the views of a real scene."""
    if (data is None) != (name == "cars"):
        raise InputError("`data`: vehicles and views need it, and cars are drawn without: see docs/results.md")
    made: dict[str, Any] = {"resolution": PUBLISHED_RESOLUTION, "workers": os.cpu_count() or 1}
    if data is None:
        ensure_dataset(SETS / name, scenes=0, views=1, test_scenes=objects or CARS, **made)
    elif name == "vehicles":
        meshes = [mesh_in(data, file) for file in VEHICLES]
        ensure_meshes(SETS / f"{name}_test", meshes, views=SPIRAL_VIEWS, cameras="spiral", **made)
    else:
        pair_views(data, SETS / f"{name}_test")
    chosen = [*SHARED, *PROTOCOLS[name], "--data", str(SETS / name)]
    chosen += ["--objects", str(objects)] if objects else []
    evaluate.main.main([*chosen, *options], standalone_mode=False)


def mesh_in(folder: Path, file: str) -> Path:
    """The mesh of this name. Raises InputError if there is none."""
    found = sorted(folder.rglob(file))
    if not found:
        raise InputError(f"{folder}: has no {file}: unpack both packs there (docs/results.md)")
    return found[0]


def pair_views(scene: Path, split: Path) -> None:
    """Make the folder `split`: scenes A-to-B and B-to-A of two views each. Evaluation takes the first one as the input.

    scene: in SRN's layout, with two views, or with 251, of which these are REAL_VIEWS. Raises InputError if files are
    missing.
    """
    images = sorted((scene / "rgb").glob("*.png"))
    if len(images) == SPIRAL_VIEWS:
        images = [images[view] for view in REAL_VIEWS]
    if len(images) != 2:
        raise InputError(f"{scene / 'rgb'}: holds {len(images)} PNG: give two views, or all {SPIRAL_VIEWS} of SRN's")
    shutil.rmtree(split, ignore_errors=True)
    for pair in itertools.permutations(images):
        folder = split / "-to-".join(image.stem for image in pair)
        for kind in ("rgb", "pose"):
            (folder / kind).mkdir(parents=True)
        try:
            shutil.copy2(scene / "intrinsics.txt", folder)
            for place, image in enumerate(pair):
                shutil.copy2(image, folder / f"rgb/{place}.png")
                shutil.copy2(scene / f"pose/{image.stem}.txt", folder / f"pose/{place}.txt")
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: is missing: add it") from None


if __name__ == "__main__":
    run_command(main)
