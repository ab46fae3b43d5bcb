"""Novel views of an object, or a video around it, from posed images and a trained network."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# A script's path starts at its own folder, where `inference` is this very file.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
import click
import numpy as np
import torch
from torch import Tensor

from dnnlib.command import POSITIVE, Command, FiniteRange, option_group, run_command
from genvs.config import GeNVSConfig, SceneConfig
from genvs.data.camera_paths import read_camera_path
from genvs.data.framing import Framing, framing_of
from genvs.data.scene_input import SceneInput, read_scene
from genvs.data.srn import SCENE_FILE
from genvs.data.storage import counted
from genvs.data.stored import dataset_class
from genvs.errors import InputError
from genvs.files import new_numbered_folder, write_atomic
from genvs.geometry import Cameras
from genvs.geometry.key_views import through
from genvs.geometry.trajectories import TRAJECTORIES, placed, trajectory_cameras
from genvs.machine import find_encoder
from genvs.sampling.synthesis import COND_METHODS, synthesize_views
from genvs.visualize import FEATURES_CAPTION, contact_sheet, draw_cameras, feature_colors, to_uint8
from inference import options, writers
from torch_utils import distributed

VIDEO_OPTIONS = ("trajectory", "frames", "radius", "elevation", "fps", "gif")
ARCHIMEDEAN = {"frames": 498, "radius": 1.3, "fps": 30.0}  # the unofficial implementation's video
VIDEO = {"frames": 60, "fps": 20.0}
SCENE_OPTIONS = ("scene", "target", "inputs", "targets", "convention", "normalize")
LARGEST_DEPTH = 65535  # in files of 16 bits
PREVIEW_SIDE, PREVIEW_CAMERAS = 768, 100  # pixels; the most cameras of a path that are drawn
DEFAULT_VIEWS = (
    "If a scene has target_pose/ or transforms_test.json, all its views are inputs, and those cameras are drawn. If "
    "not, the first three views are inputs, and all others are drawn."
)
CONDITION = "normal: draw each view from the inputs; autoreg: one at a time, also from the views drawn before it."
KINDS = f"{'|'.join(TRAJECTORIES)}|FILE.json"
RADIUS = "Distance from the origin, world units."
PATHS = "The camera's path. line: from input to input; FILE.json with --frames: smoothly through its cameras."
of_video, of_output = (option_group(title) for title in ("Video", "Output"))


@click.command(cls=Command, epilog=f"{options.BY_DEFAULT} {DEFAULT_VIEWS}")
@options.scene_options
@options.scene("--targets", help="Numbers of the views to draw.", **options.LIST)
@options.camera_options
@options.network_options
@options.network("--gpu_id", type=int, show_default="0", help="Which of the visible GPUs.")
@options.sampling_options(noise="fixed")
@options.sampling("--cond_method", type=click.Choice(COND_METHODS), default="normal", help=CONDITION)
@options.sampling("--class_id", type=int, show_default="none", help="The object's class, if trained with --cond.")
@options.sampling("--batch_size", type=click.IntRange(min=1), default=8, help="Views drawn at a time.")
@options.sampling("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Seed of the starting noise.")
@of_video("--video", is_flag=True, help="Draw a video along a trajectory instead of single views.")
@of_video("--trajectory", type=options.Trajectory(), default="orbit", metavar=KINDS, help=PATHS)
@of_video("--frames", type=click.IntRange(min=1), show_default="60; archimedean 498; a file's", help="Number of views.")
@of_video("--radius", type=POSITIVE, show_default="the inputs'; archimedean 1.3", help=RADIUS)
@of_video("--elevation", type=FiniteRange(-90, 90), show_default="orbit 20, spiral 60", help="Degrees; a spiral's top.")
@of_video("--fps", type=FiniteRange(1, 120), show_default="20; archimedean 30; a file's", help="Frames a second.")
@of_video("--gif", is_flag=True, help="Write a GIF as well.")
@of_output("--out_dir", type=options.FOLDER, show_default="a new one under inference/output", help="Folder of results.")
@of_output("--preview", is_flag=True, help="Draw a picture of the cameras instead of views.")
@click.pass_context
def main(context: click.Context, in_dir: Path, out_dir: Path | None, video: bool, preview: bool, **given) -> None:
    """Draw novel views of an object, as images or as a video around it."""
    refuse_unused_options(context, video)
    along = {name: given.pop(name) for name in VIDEO_OPTIONS}
    device = options.choose_device(given.pop("device"), given.pop("gpu_id"))
    path, net = options.open_network(given)
    given = options.settle(given, net)
    asked = given["target"]
    given["target"] = target = options.known_modalities("target", None if asked is None else [asked], net)[0]
    scene = open_scene(in_dir, net.config, {**given, "targets": []} if video else given)
    sampling = {name: given[name] for name in (*options.SAMPLING, "cond_method", "batch_size", "seed")}
    sampling["denoise"] = options.fast_denoiser(net, given, device, given["class_id"], target)
    sampling["guide"] = options.load_guide(given, net, device, given["class_id"], target)
    other = "" if target == net.config.modalities[0] else f"_target={target}"
    targets, run = scene.target_cameras, options.described(given) + other
    results = [run]
    if video:
        targets = video_cameras(scene, along, framing_of(net.config.scene, given["fit"]), given["convention"])
        run += f"_cond_method={given['cond_method']}"
        results = video_files(run, gif=along["gif"])
    elif targets is None:
        raise InputError(f"{in_dir}: has no other views and no target_pose/: give --targets, or pass --video")
    out_dir = out_dir or new_numbered_folder(options.ROOT / "inference" / "output", in_dir.name)
    paths = new_paths(out_dir, ["cameras.png"] if preview else results)
    if preview:
        writers.write_png(paths[0], draw_preview(scene.inputs.cameras, targets))
        return click.echo(f"Wrote {paths[0]}")

    views, inputs = counted(targets.shape[1], "view"), counted(len(scene.names), "input view")
    click.echo(f"Drawing {views} from {inputs} on the {'GPU' if device.type == 'cuda' else 'CPU'}.")
    try:
        drawn = synthesize_views(net, scene.inputs, targets, **sampling)
        if video:
            draw_video(paths, drawn, along)
        else:
            title = f"{in_dir.name}: {run}, cond_method={given['cond_method']}, {path.name}"
            draw_images(paths[0], drawn, scene, title, target)
    except torch.OutOfMemoryError:
        raise InputError("the GPU's memory is too small: pass a smaller --batch_size, or --device cpu") from None
    for path in paths:
        click.echo(f"Wrote {path}")


def open_scene(in_dir: Path, config: GeNVSConfig, given: dict[str, Any]) -> SceneInput:
    """The scene for a network of this config. Prints how it was moved, and on stderr what looks wrong with its cameras.

    given: SCENE_OPTIONS, `data_class`, `fit` and `background`.
    """
    read = {name: given[name] for name in SCENE_OPTIONS}
    with distributed.warnings_as_lines():
        framing = framing_of(config.scene, given["fit"], given["background"])
        scene = read_scene(in_dir, config, dataset_class=dataset_class(given["data_class"]), framing=framing, **read)
    trained = config.scene
    if scene.placement is not None:
        click.echo(
            f"--normalize: the scene is {scene.placement}; its cameras are now {trained.radius:.3g} from the origin, "
            f"and depths from {trained.near:.3g} to {trained.far:.3g} are drawn."
        )
    for message in unlike_training(scene.inputs.cameras, trained):
        options.warn(f"{in_dir}: {message}")
    return scene


def video_cameras(scene: SceneInput, along: dict[str, Any], framing: Framing, convention: str | None) -> Cameras:
    """The cameras of the video. Fills in `along`, the video's options, where none was given.

    framing, convention: of a file's cameras.
    """
    trajectory, inputs = along["trajectory"], scene.inputs.cameras
    shape = {name: along[name] for name in ("radius", "elevation") if along[name] is not None}
    for name in shape.keys() - set(TRAJECTORIES.get(trajectory, ())):
        raise InputError(f"`{name}` has no effect on `trajectory`={trajectory}: leave it out")
    usual = {"archimedean": ARCHIMEDEAN}.get(trajectory, VIDEO)
    if isinstance(trajectory, Path):
        c2w, intrinsics, fps = read_camera_path(trajectory, framing, convention)
        if scene.placement is not None:
            c2w = torch.from_numpy(scene.placement.of(c2w.numpy()))
        if along["frames"] is not None:
            c2w, intrinsics = through(c2w, intrinsics, along["frames"], smooth=True)
        usual = {"frames": len(c2w), "fps": fps or VIDEO["fps"]}
    along |= {name: value for name, value in usual.items() if along[name] is None}
    if isinstance(trajectory, Path):
        return placed(inputs, c2w, intrinsics)
    if trajectory != "line" and not stand_upright(inputs):
        options.warn(
            f"--trajectory {trajectory} turns about the world's z axis, which is not up by the input cameras; pass "
            "--trajectory line, or rotate the poses so that z is up"
        )
    return trajectory_cameras(inputs, trajectory, along["frames"], radius=along["radius"], elevation=along["elevation"])


def stand_upright(cameras: Cameras) -> bool:
    """Whether the x axes of cameras `[1, V]` are about horizontal and their y axes point down, if world z is up."""
    across, down = cameras.c2w[0, :, 2, :2].unbind(dim=-1)
    return bool(across.square().mean().sqrt() < 0.3 and down.mean() < 0.1)


def draw_preview(inputs: Cameras, targets: Cameras) -> np.ndarray:
    """A picture of the cameras of the inputs `[1, V]`, in black, and of targets `[1, K]`, coloured in order."""
    shown = np.unique(np.linspace(0, targets.shape[1] - 1, PREVIEW_CAMERAS).round().astype(int))
    cameras = Cameras.cat([inputs[0], targets[0, shown]])
    c2w, intrinsics = cameras.c2w.double().numpy(), cameras.intrinsics.double().numpy()
    return draw_cameras(c2w, intrinsics, np.zeros(3), PREVIEW_SIDE, num_black=inputs.shape[1])


def draw_images(
    folder: Path, drawn: Iterable[tuple[Tensor, Tensor]], scene: SceneInput, title: str, modality: str
) -> None:
    """Write pred/ view by view, as datasets keep this modality; then feature_image/ and the contact sheet."""
    for kind in ("pred", "feature_image"):
        (folder / kind).mkdir(parents=True)
    pictures, feature_images = [], []
    assert scene.target_cameras is not None
    planes = torch.stack([scene.target_cameras.near[0], scene.target_cameras.far[0]], dim=1).double().numpy()
    planes = planes if scene.placement is None else planes / scene.placement.scale
    depth_scale = float(planes.max()) / LARGEST_DEPTH
    if modality == "depth":
        write_atomic(json.dumps({"depth_scale": depth_scale}) + "\n", folder / SCENE_FILE)
    for name, near_far, (image, feature_image) in zip(scene.target_names, planes, drawn, strict=True):
        pictures.append(to_uint8(image))
        feature_images.append(feature_image)
        stored = writers.in_file(image, modality, near_far, depth_scale)
        writers.write_png(folder / "pred" / f"{name}.png", stored)
    colors = feature_colors(torch.stack(feature_images))
    for name, color in zip(scene.target_names, colors, strict=True):
        writers.write_png(folder / "feature_image" / f"{name}.png", color)
    rows = {"feature image": colors, "prediction": np.stack(pictures)}
    if scene.target_images is not None:
        rows["target"] = scene.target_images[0].movedim(1, -1).numpy()
    inputs = scene.inputs.images[0].movedim(1, -1).numpy()
    bands = [(scene.names, {"input": inputs}), (scene.target_names, rows)]
    writers.write_png(folder / "contact_sheet.png", contact_sheet(title, bands, caption=FEATURES_CAPTION))


def video_files(name: str, *, gif: bool) -> list[str]:
    """The files of a video: an MP4, and a GIF if asked for; the GIF alone, with a warning, where no MP4 is possible."""
    try:
        find_encoder()
    except InputError as error:
        if not gif:
            raise InputError(f"{error}, or pass --gif for a GIF") from None
        options.warn(f"only the GIF is written: {error}")
        return [f"{name}.gif"]
    return [f"{name}.gif", f"{name}.mp4"] if gif else [f"{name}.mp4"]


def draw_video(paths: list[Path], drawn: Iterable[tuple[Tensor, Tensor]], along: dict[str, Any]) -> None:
    """Write an MP4, a GIF, or both, a frame at a time."""
    frames: Iterable[np.ndarray] = video_frames(drawn, features=along["trajectory"] == "archimedean")
    *gifs, last = paths
    for path in gifs:
        frames = writers.also_as_gif(path, frames, along["fps"])
    write = writers.write_gif if last.suffix == ".gif" else writers.write_video
    write(last, frames, along["fps"])


def video_frames(drawn: Iterable[tuple[Tensor, Tensor]], features: bool) -> Iterator[np.ndarray]:
    """The images; `features` puts each one's feature image beside it, in colours fitted to the first frame."""
    first = None
    for image, feature_image in drawn:
        frame = to_uint8(image)
        if features:
            first = feature_image[None] if first is None else first
            frame = np.concatenate([frame, feature_colors(feature_image[None], first)[0]], axis=1)
        yield frame


def refuse_unused_options(context: click.Context, video: bool) -> None:
    """Raise InputError for an option that has no effect on a video, or on images."""
    for name in ("targets",) if video else VIDEO_OPTIONS:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            kind, remedy = ("a video", "leave --video out") if video else ("images", "add --video")
            raise InputError(f"--{name} has no effect on {kind}: {remedy}, or leave --{name} out")


def new_paths(out_dir: Path, names: list[str]) -> list[Path]:
    """The paths of results in `out_dir`, which is made. Raises InputError where one of them exists already."""
    writers.check_new(out_dir, names)
    out_dir.mkdir(parents=True, exist_ok=True)
    return [out_dir / name for name in names]


def unlike_training(inputs: Cameras, trained: SceneConfig) -> list[str]:
    """A line for each way in which input cameras `[1, V]` differ so much from training's that results will be poor.

    In squeezed images the two focal lengths differ.
    """
    found = []
    distance = float(inputs.centers.norm(dim=-1).mean())
    if abs(distance - trained.radius) > 0.25 * trained.radius:
        found.append(
            f"the cameras are {distance:.3g} from the origin on average, but {trained.radius:.3g} in the training "
            "data; pass --normalize or scale the poses to match, or results will be poor"
        )
    focal = inputs.intrinsics[0][:, [0, 1], [0, 1]]
    off, view = (focal / trained.focal - 1).abs().amax(dim=1).max(dim=0)
    if off > 0.1:
        of_width, of_height = focal[view].tolist()
        found.append(
            f"a focal length is {of_width:.3g} of the image's width and {of_height:.3g} of its height, but "
            f"{trained.focal:.3g} of both in the training data; pass --fit crop or --fit pad if they are not square, "
            "or crop them (with their intrinsics) to that field of view, or results will be poor"
        )
    center = inputs.intrinsics[0][:, :2, 2]
    off, view = (center - 0.5).abs().amax(dim=1).max(dim=0)
    if off > 0.05:
        x, y = center[view].tolist()
        found.append(
            f"a principal point is at {x:.3g} of the image's width and {y:.3g} of its height; crop the images (with "
            "their intrinsics) so that it is in the middle, or results will be poor if it was there in the training "
            "data"
        )
    return found


if __name__ == "__main__":
    run_command(main)
