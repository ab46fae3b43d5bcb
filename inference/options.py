"""What inference.py, evaluate.py and viewer.py share: options, the network that they name, and the device."""

import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

import genvs
from dnnlib.command import POSITIVE, Color, FiniteRange, FullPath, option_group
from genvs.config import CONVENTIONS, FITS, VIEW_WEIGHTINGS
from genvs.diffusion.samplers import SAMPLERS
from genvs.errors import InputError
from genvs.geometry.trajectories import TRAJECTORIES
from genvs.modalities import MODALITIES, modality_names
from genvs.models import GeNVS
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import NOISES, known_sampler, usual_sampling
from torch_utils import distributed

ROOT = Path(__file__).resolve().parents[1]
USEFUL_IMAGES = 5000  # a network that was trained on fewer draws little more than noise
SAMPLING = ("sampler", "num_steps", "guidance", "noise", "churn", "bf16")  # as `synthesize_views` takes them


class Trajectory(click.ParamType):
    """A camera path: one of TRAJECTORIES by its name, or the absolute path of a .json file."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Path:
        if value in TRAJECTORIES:
            return value
        if Path(value).suffix != ".json":
            self.fail(f"{value!r} is no camera path: give {', '.join(TRAJECTORIES)} or a .json file", param, ctx)
        return PATH.convert(value, param, ctx)


PATH, FOLDER = FullPath(path_type=Path), FullPath(path_type=Path, file_okay=False)
scene, network, cameras, sampling = map(option_group, ("Scene", "Network", "Cameras", "Sampling"))
Decorator = Callable[[Callable], Callable]


def together(*options: Decorator) -> Decorator:
    """Several click options as one decorator."""
    return lambda command: functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def parse_numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    """The callback of an option that takes numbers and ranges, such as 0-9 or 0,3,5."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= last - first < 10_000:
            raise click.BadParameter(f"{part!r} is neither a number nor a range: give some as 0-9 or 0,3,5")
        numbers += range(first, last + 1)
    return list(dict.fromkeys(numbers))


COUNT = click.IntRange(1, 10000)
LIST: dict[str, Any] = {"metavar": "LIST", "callback": parse_numbers, "show_default": "see below"}
INPUT = ROOT / "inference" / "input"
TARGET = "Modality of the views to draw. The inputs are of every modality that the scene has and the network knows."
scene_options = together(
    scene("--in_dir", type=PATH, default=INPUT, show_default="inference/input", help="A scene, or a dataset."),
    scene("--scene", metavar="NAME", show_default="the first", help="Which scene of a dataset: its name or number."),
    scene("--target", help=TARGET, show_default="the network's first", metavar="MODALITY"),
    scene("--inputs", help="Numbers of the views to draw from: 3,10 or 0-2.", **LIST),
)
DEVICE = "cuda where there is a GPU"
BF16 = "bfloat16 arithmetic; on a CPU it pays if that has AMX."
WEIGHTINGS = f"How input views are weighted: {', '.join(VIEW_WEIGHTINGS)}."
network_options = together(
    network("--ckpt_path", type=PATH, show_default="see below", help="Snapshot, its folder, or training state."),
    network("--cam_weighting", "view_weighting", metavar="NAME", show_default="the snapshot's", help=WEIGHTINGS),
    network("--device", type=click.Choice(["cpu", "cuda"]), show_default=DEVICE, help="Where the network runs."),
    network("--bf16", type=bool, show_default="on GPUs that have it", help=BF16),
)
DEMO = Path("models", "demo-two-step.pkl")  # under ROOT
BY_DEFAULT = f"By default the newest network under training_runs is used, or {DEMO} if there is none."
camera_options = together(
    cameras("--data-class", metavar="PKG.MODULE.CLASS", help="Your own dataset class, as in training."),
    cameras("--convention", type=click.Choice(CONVENTIONS), show_default="as in training", help="The poses' axes."),
    cameras("--normalize", is_flag=True, help="Move and scale each scene to where the network expects it."),
    cameras("--fit", type=click.Choice(FITS), show_default="the snapshot's", help="How images become square."),
    cameras("--background", type=Color(), show_default="the snapshot's", help="Colour behind transparent parts."),
    cameras("--near", type=POSITIVE, show_default="the snapshot's", help="Near depth plane, world units."),
    cameras("--far", type=POSITIVE, show_default="the snapshot's", help="Far depth plane, world units."),
)


def sampling_options(noise: str) -> Decorator:
    """The options in SAMPLING, except bf16, and --guide. noise: the default of --noise."""
    steps = ", ".join(f"{name} {sampler.num_steps}" for name, sampler in SAMPLERS.items()) + ", or the snapshot's"
    usual = "unipc; few-step networks consistency"
    few = f"1 is a quick preview; 2 to {SAMPLERS['heun'].fewest_steps - 1} of heun leave noise in the images."
    noises = "Start all views from the same noise, or each from its own."
    guide = "An earlier snapshot that --guidance leads away from."
    closer = "Above 1: keep closer to the inputs, at twice the work."
    return together(
        sampling("--sampler", type=click.Choice(list(SAMPLERS)), show_default=usual, help="How images are denoised."),
        sampling("--denoising_steps", "--steps", "num_steps", type=COUNT, show_default=steps, help=few),
        sampling("--guidance", type=FiniteRange(0, 100), default=1.0, help=closer),
        sampling("--guide", type=PATH, show_default="none", help=guide),
        sampling("--noise", type=click.Choice(NOISES), default=noise, help=noises),
        sampling("--churn", type=FiniteRange(min=0), default=0.0, help="EDM's S_churn: stochastic sampling by heun."),
    )


def settle(options: dict[str, Any], net: GeNVS) -> dict[str, Any]:
    """The options with the sampler and number of steps that `net` is for, if none was given; warns of too few.

    options: SAMPLING, `guide` and any others. Raises InputError for options that exclude each other.
    """
    name, num_steps = usual_sampling(net, options["sampler"], options["num_steps"])
    sampler = known_sampler(name, options["churn"])
    if options["guide"] is not None and options["guidance"] == 1:
        raise InputError(f"--guide={options['guide']} has no effect with --guidance=1: choose more, such as 2")
    if 1 < num_steps < sampler.fewest_steps:
        warn(
            f"--denoising_steps={num_steps}: so few steps of {name} leave noise in the images: give "
            f"{sampler.fewest_steps} or more, 1 for a preview, or leave --sampler out"
        )
    return {**options, "sampler": name, "num_steps": num_steps}


def described(options: dict[str, Any]) -> str:
    """Settled options as results are named after them: `steps=12`, and whatever is not inference's default."""
    words = [f"steps={options['num_steps']}"]
    for name, usual in (("sampler", "unipc"), ("guidance", 1.0), ("noise", "fixed"), ("churn", 0.0)):
        value = options[name]
        if value != usual:
            words.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    if options["guide"] is not None:
        words.append(f"guide={options['guide'].stem.removeprefix('network-snapshot-')}")
    return "_".join(words)


def choose_device(device: str | None, gpu_id: int | None = None) -> torch.device:
    """The device that the options name. Raises InputError where it does not exist."""
    visible = 0 if device == "cpu" else torch.cuda.device_count()
    if gpu_id is None and visible == 0 and device != "cuda":
        return torch.device("cpu")
    if not 0 <= (gpu_id or 0) < visible:
        asked = "--device=cuda" if gpu_id is None else f"--gpu_id={gpu_id}"
        raise InputError(f"{asked}: {visible} GPUs can be used: leave it out, or choose another")
    chosen = torch.device("cuda", gpu_id or 0)
    torch.cuda.set_device(chosen)  # for what names no device, such as Triton's kernels
    return chosen


def open_network(options: dict[str, Any]) -> tuple[Path, GeNVS]:
    """The network that the options name, and its file. Prints which one it is; warns if it was hardly trained."""
    path = options["ckpt_path"] or default_snapshot(ROOT)
    net = genvs.load_snapshot(path, near=options["near"], far=options["far"])
    if options["view_weighting"] is not None:
        net.set_view_weighting(options["view_weighting"])
    num_images = net.notes.get("cur_nimg")
    trained = "" if num_images is None else f", trained on {num_images:,} images"
    trained += f" after {net.notes['started_from']}" if "started_from" in net.notes else ""
    distributed.print0(f"Network: {path}, {net.config.resolution}x{net.config.resolution} pixels{trained}")
    if num_images is not None and num_images < USEFUL_IMAGES and "started_from" not in net.notes:
        warn(
            f"{path}: trained on {num_images:,} images, which is too few to draw more than noise: train longer, or "
            f"pass --ckpt_path {ROOT / DEMO}"
        )
    return path, net


def known_modalities(option: str, names: Sequence[str] | None, net: GeNVS) -> tuple[str, ...]:
    """The modalities that an option names, or their aliases; by default all that the network knows.

    Raises InputError for others.
    """
    known = net.config.modalities
    aliases = {alias for name in known for alias in (name, *MODALITIES[name].aliases)}
    for name in known if names is None else names:
        if name not in aliases:
            raise InputError(f"`{option}`={name}: the network was trained on {', '.join(known)}: choose from these")
    return known if names is None else modality_names(names, option)


def parse_names(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str] | None:
    """The callback of an option that takes names with commas between."""
    return None if text is None else [name.strip() for name in text.split(",")]


def load_guide(
    options: dict[str, Any], net: GeNVS, device: torch.device, class_id: int | None, modality: str | None = None
) -> FastDenoiser | None:
    """The worse network `guide` that autoguidance leads away from (arXiv 2406.02507), on `device`, or None.

    options: `guide`, `view_weighting` and `bf16`, as for `net`. modality: as for `net`. Raises InputError where the two
    networks do not fit.
    """
    path = options["guide"]
    if path is None:
        return None
    guide = genvs.load_snapshot(path)
    ours, theirs = net.config.resolution, guide.config.resolution
    if ours != theirs:
        raise InputError(f"`guide`={path}: draws {theirs} pixels a side, not {ours}: give a snapshot of the same run")
    if guide.config.modalities != net.config.modalities:
        known = ", ".join(guide.config.modalities)
        raise InputError(f"`guide`={path}: was trained on {known}: give a snapshot of the same run")
    if options["view_weighting"] is not None:
        guide.set_view_weighting(options["view_weighting"])
    return fast_denoiser(guide, options, device, class_id, modality)


def fast_denoiser(
    net: GeNVS, options: dict[str, Any], device: torch.device, class_id: int | None, modality: str | None = None
) -> FastDenoiser:
    """The FastDenoiser of `net`, moved to `device`. modality: by default the network's first.

    Raises InputError for a class that the network does not know.
    """
    return FastDenoiser(net.to_device(device), bf16=options["bf16"], class_id=class_id, modality=modality)


def default_snapshot(root: Path) -> Path:
    """The newest snapshot of the newest run under training_runs, or its newest training state if it has no snapshot;
    without a run, the snapshot that comes with the code. Raises InputError where there is neither.
    """
    runs, demo = root / "training_runs", root / DEMO
    files = [file for kind in ("network-snapshot-*.pkl", "training-state-*.pt") for file in runs.rglob(kind)]
    files.sort(key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    if files:
        newest_run = [file for file in files if file.parent == files[0].parent]
        return next((file for file in newest_run if file.suffix == ".pkl"), files[0])
    if not demo.is_file():
        raise InputError(f"{runs}: no network-snapshot-*.pkl there: run ./train.sh first, or pass --ckpt_path")
    return demo


def warn(message: str) -> None:
    distributed.print0(f"Warning: {message}", file=sys.stderr)
