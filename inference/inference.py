"""Novel views, or a video around the object, from a folder of posed images and a trained snapshot."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# A script's path starts at its own folder, where `inference` is this very file.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
import click
import numpy as np
import torch
from torch import Tensor

import genvs
from dnnlib.command import FiniteRange, named_options, run_command
from genvs.config import CONVENTIONS, GeNVSConfig, SceneConfig
from genvs.data.scene_input import SceneInput, read_scene
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.geometry.trajectories import TRAJECTORIES, trajectory_cameras
from genvs.models.labels import label_of_class
from genvs.sampling.guidance import load_guide, weigh_views
from genvs.sampling.synthesis import COND_METHODS, synthesize_views
from genvs.visualize import Column, contact_sheet, feature_colors, to_uint8
from inference import writers
from inference.sampling_options import described, sampling_options, settle
from torch_utils import distributed

ROOT = Path(__file__).resolve().parents[1]
VIDEO_OPTIONS = ("trajectory", "frames", "radius", "elevation", "fps", "gif")


@click.command(context_settings={"show_default": True, "max_content_width": 120})
@click.option(
    "--in_dir",
    type=click.Path(path_type=Path),
    default=ROOT / "inference" / "input",
    show_default="inference/input",
    help="Folder with rgb/*.png, pose/*.txt, intrinsics.txt and, for images, target_pose/*.txt; or transforms.json.",
)
@click.option(
    "--out_dir",
    type=click.Path(path_type=Path),
    show_default="a new folder under inference/output",
    help="Where results go. What is there already is never overwritten.",
)
@click.option(
    "--convention",
    type=click.Choice(CONVENTIONS),
    show_default="opengl in transforms.json, else opencv; guessed where cameras face away",
    help="The camera axes that the poses are in.",
)
@click.option(
    "--normalize", is_flag=True, help="Move and scale the scene to where the network expects it, and say by how much."
)
@click.option(
    "--ckpt_path",
    type=click.Path(path_type=Path),
    show_default="the newest under training_runs, else models/demo.pkl",
    help="Network snapshot.",
)
@sampling_options
@click.option(
    "--cond_method",
    type=click.Choice(COND_METHODS),
    default="normal",
    help="What a view is conditioned on: the inputs; or, autoreg, views drawn before it too, one at a time.",
)
@click.option("--class_id", type=int, show_default="untold", help="The object's class, for networks of --cond.")
@click.option("--batch_size", type=click.IntRange(min=1), default=8, help="Views drawn at a time.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Of the noise that views start from.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), show_default="cuda where there is a GPU")
@click.option("--gpu_id", type=int, show_default="0", help="Which of the visible GPUs.")
@click.option("--video", is_flag=True, help="Draw a video along a trajectory instead of the views of target_pose/.")
@click.option("--trajectory", type=click.Choice(TRAJECTORIES), default="orbit", help="Video: the camera's path.")
@click.option("--frames", type=click.IntRange(min=1), default=60, help="Video: number of views.")
@click.option(
    "--radius",
    type=FiniteRange(min=0, min_open=True),
    show_default="the inputs' mean",
    help="Video: distance from the origin.",
)
@click.option(
    "--elevation",
    type=FiniteRange(-90, 90),
    show_default="orbit 20, spiral 60",
    help="Video: degrees above the horizon; a spiral's highest.",
)
@click.option("--fps", type=FiniteRange(1, 120), default=20, help="Video: frames a second.")
@click.option("--gif", is_flag=True, help="Video: write a GIF as well.")
@click.pass_context
def main(
    context: click.Context,
    in_dir: Path,
    out_dir: Path | None,
    convention: str | None,
    normalize: bool,
    ckpt_path: Path | None,
    device: str | None,
    gpu_id: int | None,
    video: bool,
    trajectory: str,
    frames: int,
    radius: float | None,
    elevation: float | None,
    fps: float,
    gif: bool,
    cam_weighting: str | None,
    **sampling,
) -> None:
    """Draw novel views of the object in a folder, as images or as a video around it."""
    if not video:
        refuse_video_options(context)
    chosen_device = choose_device(device, gpu_id)
    ckpt_path = ckpt_path or default_snapshot(ROOT)
    net = genvs.load_snapshot(ckpt_path)
    weigh_views(net, cam_weighting)
    scene = read_folder(in_dir, net.config, convention, normalize, targets=[] if video else None)
    name = in_dir.resolve().name
    sampling = settle(sampling)
    if sampling["class_id"] is not None:
        label_of_class(sampling["class_id"], net.config)  # refuses one that the network does not know
    run = described(sampling)
    conditioning = {"cam_weighting": cam_weighting, "class_id": sampling["class_id"]}
    sampling["guide"] = load_guide(sampling["guide"], net, chosen_device, bf16=sampling["bf16"], **conditioning)
    if video:
        run += f"_cond_method={sampling['cond_method']}"
        targets = trajectory_cameras(scene.inputs.cameras, trajectory, frames, radius=radius, elevation=elevation)
    elif scene.target_cameras is not None:
        targets = scene.target_cameras
    else:
        raise InputError(f"{in_dir / 'target_pose'}: no such folder: put the poses to draw there, or pass --video")
    out_dir = out_dir or numbered_folder(ROOT / "inference" / "output", name)
    results = [out_dir / f"{run}.mp4", *([out_dir / f"{run}.gif"] if gif else [])] if video else [out_dir / run]
    prepare_output(out_dir, results, folder=not video)

    click.echo(f"{ckpt_path}: {targets.shape[1]} view(s) from {len(scene.names)} input view(s) on {chosen_device}.")
    try:
        views = synthesize_views(net.to_device(chosen_device), scene.inputs, targets, **sampling)
        if video:
            draw_video(results, views, fps)
        else:
            title = f"{name}: {run}, cond_method={sampling['cond_method']}, {ckpt_path.name}"
            draw_images(results[0], views, scene, title)
    except torch.OutOfMemoryError:
        raise InputError("the GPU's memory is too small: pass a smaller --batch_size, or --device cpu") from None
    for path in results:
        click.echo(f"Wrote {path}")


def draw_images(folder: Path, views: Iterable[tuple[Tensor, Tensor]], scene: SceneInput, title: str) -> None:
    """Write pred/ as the views come, then feature_image/ and the contact sheet."""
    pictures, feature_images = [], []
    for name, (image, feature_image) in zip(scene.target_names, views, strict=True):
        pictures.append(to_uint8(image))
        feature_images.append(feature_image)
        writers.write_png(folder / "pred" / f"{name}.png", pictures[-1])
    colors = feature_colors(torch.stack(feature_images))
    for name, color in zip(scene.target_names, colors, strict=True):
        writers.write_png(folder / "feature_image" / f"{name}.png", color)
    given = to_uint8(scene.inputs.to("cpu").images[0])
    inputs = [Column(name, [picture]) for name, picture in zip(scene.names, given, strict=True)]
    drawn = zip(scene.target_names, colors, pictures, strict=True)
    targets = [Column(name, [color, picture]) for name, color, picture in drawn]
    sheet = contact_sheet(title, [(["input"], inputs), (["feature image", "prediction"], targets)])
    writers.write_png(folder / "contact_sheet.png", sheet)


def draw_video(paths: list[Path], views: Iterable[tuple[Tensor, Tensor]], fps: float) -> None:
    """Write an MP4, and a GIF where a second path asks for one."""
    frames: list[np.ndarray] = []

    def remembered() -> Iterator[np.ndarray]:
        for image, _ in views:
            frames.append(to_uint8(image))
            yield frames[-1]

    writers.write_video(paths[0], remembered(), fps)
    for path in paths[1:]:
        writers.write_gif(path, frames, fps)


def refuse_video_options(context: click.Context) -> None:
    """Raise InputError for an option that would have no effect without --video."""
    for name in VIDEO_OPTIONS:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise InputError(f"--{name} has no effect on images: add --video, or leave it out")


def choose_device(device: str | None, gpu_id: int | None) -> torch.device:
    """The device that --device and --gpu_id ask for. Raises InputError where it does not exist."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" and gpu_id is not None:
        raise InputError(f"--gpu_id={gpu_id} and --device=cpu exclude each other: leave one of them out")
    if visible == 0 and (device == "cuda" or gpu_id is not None):
        option = "--device=cuda" if gpu_id is None else f"--gpu_id={gpu_id}"
        raise InputError(f"{option}: no CUDA GPU is visible here: pass --device cpu instead")
    if gpu_id is not None and not 0 <= gpu_id < visible:
        raise InputError(f"--gpu_id={gpu_id}: no such GPU: choose from 0 to {visible - 1}")
    if device == "cpu" or visible == 0:
        if device is None:
            click.echo("No GPU is visible: running on the CPU.")
        return torch.device("cpu")
    chosen = torch.device("cuda", gpu_id or 0)
    torch.cuda.set_device(chosen)  # where whatever names no device goes, Triton's kernels among it
    return chosen


def default_snapshot(root: Path) -> Path:
    """The snapshot that was written last under training_runs; where there is none, the one that comes with the code.

    Says so where it is the latter. Raises InputError where there is neither.
    """
    runs, shipped = root / "training_runs", root / "models" / "demo.pkl"
    snapshots = runs.rglob("network-snapshot-*.pkl")
    newest = max(snapshots, key=lambda path: (path.stat().st_mtime, path.name), default=None)
    if newest is not None:
        return newest
    if not shipped.is_file():
        raise InputError(f"{runs}: no network-snapshot-*.pkl there: run ./train.sh first, or pass --ckpt_path")
    distributed.print0(f"No snapshot under {runs}: using {shipped}, which comes with the code.")
    return shipped


def numbered_folder(parent: Path, name: str) -> Path:
    """Make the first `parent/00000-name`, counting on, whose number nothing in `parent` has yet."""
    while True:
        taken = [int(path.name[:5]) for path in parent.glob("[0-9][0-9][0-9][0-9][0-9]-*")]
        folder = parent / f"{max(taken, default=-1) + 1:05d}-{name}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:  # somebody else was faster
            continue
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}): pass another --out_dir") from None


def prepare_output(out_dir: Path, results: Sequence[Path], *, folder: bool) -> None:
    """Make `out_dir`. Raises InputError where it cannot be written, or holds one of `results` already.

    folder: the only result is one, which is made at once, so that it is nobody else's.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out_dir):
            pass
    except OSError as error:
        raise InputError(f"--out_dir={out_dir}: not a writable folder ({error.strerror}): choose another") from None
    try:
        for path in results:
            if path.exists():
                raise FileExistsError
        if folder:
            path.mkdir()
    except FileExistsError:
        raise InputError(f"{path} exists and is not overwritten: pass another --out_dir, or move it away") from None


def read_folder(
    in_dir: Path,
    config: GeNVSConfig,
    convention: str | None = None,
    normalize: bool = False,
    targets: Sequence[int] | None = None,
) -> SceneInput:
    """As `read_scene`; prints what looks wrong with the cameras on stderr."""
    trained = config.scene.radius
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scene = read_scene(in_dir, config, convention=convention, normalize=normalize, targets=targets)
    messages = [named_options(str(warning.message)) for warning in caught]
    if scene.placement is not None:
        click.echo(
            f"--normalize: the scene is {scene.placement}; its cameras are now {trained:.3g} from the origin, and "
            f"depths from {config.scene.near:.3g} to {config.scene.far:.3g} are drawn."
        )
    messages += [f"{in_dir}: {unlike}" for unlike in unlike_training(scene.inputs.cameras, config.scene)]
    for message in messages:
        click.echo(f"Warning: {message}", err=True)
    return scene


def unlike_training(inputs: Cameras, trained: SceneConfig) -> list[str]:
    """In what input cameras `[1, V]` are so far from the training data's that results will be poor: a line each.

    Images that are not square are squeezed to squares, so their focal lengths differ, and tell of their shape too.
    """
    found = []
    distance = float(inputs.centers.norm(dim=-1).mean())
    if abs(distance - trained.radius) > 0.25 * trained.radius:
        found.append(
            f"the cameras are {distance:.3g} from the origin on average, those of the training data "
            f"{trained.radius:.3g}; pass --normalize or scale the poses to match, or results will be poor"
        )
    focal = inputs.intrinsics[0][:, [0, 1], [0, 1]]
    off, view = (focal / trained.focal - 1).abs().amax(dim=1).max(dim=0)
    if off > 0.1:
        of_width, of_height = focal[view].tolist()
        found.append(
            f"a focal length is {of_width:.3g} of the image's width and {of_height:.3g} of its height, that of the "
            f"training data {trained.focal:.3g} of the width; crop or pad the images, with their intrinsics, to the "
            "training data's shape and field of view, or results will be poor"
        )
    return found


if __name__ == "__main__":
    run_command(main)
