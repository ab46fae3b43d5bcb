"""Train GeNVS: options -> TrainConfig -> training_loop. `./train.sh` makes the environment and launches this."""

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
import contextlib
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib.command import POSITIVE, Color, Command, FullPath, option_group, run_command
from genvs.config import ARCHITECTURES, CONVENTIONS, FITS, PRESETS, SIGMA_RANGES, SceneConfig
from genvs.data.stored import find_train
from genvs.errors import InputError
from genvs.settings import as_text, flat, set_by_path
from torch_utils import distributed
from training import run_folder
from training.config import ROOT, TRAIN_PRESETS, TrainConfig, for_distillation, resumed
from training.data import check_ranks_agree, open_data, pack_data
from training.expected import expected_psnr
from training.fine_tuning import as_in_training, fine_tuning, start_from
from training.loggers import check_installed
from training.signals import stop_at_once
from training.state import check_data, create_state, restore
from training.training_loop import training_loop

DETERMINED = ("preset=", "net.scene.", "net.denoiser.augment_labels=")  # settings that other options determine
IN_KIMG = {"duration_kimg": 1000, "ema_halflife_kimg": 1000, "log_kimg": 0.001}  # an option's unit, in kimg


def folder_words(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\w.,=+-]{1,100}", text):
        raise click.BadParameter(f"{text!r}: give letters, digits, and any of _ . , = + -, at most 100")
    return text


def settings_by_path(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text or text.startswith(DETERMINED):
            raise click.BadParameter(f"{text!r}: give PATH=VALUE for a setting that docs/options.md lists")
    return dict(text.partition("=")[::2] for text in texts)


def path_of(name: str) -> str:
    """The path of the setting that an option of this name changes: the shortest one that ends in it."""
    paths = [path for path in flat(dataclasses.asdict(TrainConfig())) if path.rpartition(".")[2] == name]
    return min(paths, key=lambda path: path.count("."), default="")


def device_type() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_preset() -> str:
    return {"cuda": "srn128", "cpu": "cpu-demo"}[device_type()]


def build_config(options: dict[str, Any], saved: TrainConfig | None) -> TrainConfig:
    """The preset, or the resumed run's config, with the given options on top of it.

    options: by parameter name; None where not given. Raises InputError for values that do not fit together.
    """
    given = {name: value for name, value in options.items() if value is not None}
    given |= {name: given[name] * unit for name, unit in IN_KIMG.items() if name in given}
    by_path = given.pop("settings")
    if "kimg" in given:
        if "duration_kimg" in given:
            raise InputError("--kimg and --duration both set the length: give one of them")
        given["duration_kimg"] = given.pop("kimg")
    if "min_inputs" in given:
        low, _, high = given["min_inputs"].partition("-")
        given |= {"min_inputs": low, "max_inputs": high or low}
    distills = "distill" in given
    if distills:
        if "transfer" in given:
            raise InputError("--distill and --transfer both name the network to start from: give one of them")
        given["transfer"] = given.pop("distill")
    settings = {path_of(name): value for name, value in given.items()} | by_path
    if saved:
        return resumed(saved, settings)
    base = TRAIN_PRESETS[given.get("preset") or default_preset()]
    if "transfer" in settings:
        base = start_from(settings["transfer"], base if "preset" in given else None)
    if distills:
        config = for_distillation(base, settings)
    elif "transfer" in settings and "preset" not in given:
        config = fine_tuning(base, settings, device_type())
    else:
        config = set_by_path(base, settings)
    if config.transfer is not None:
        config = as_in_training(config, settings.keys())
    if config.only_train_cam_weighter and config.transfer is None:
        raise InputError("--only_train_cam_weighter keeps the rest of a trained network: give one with --transfer PKL")
    if bool(config.distill_steps) != distills:
        fault = f"--set distill_steps={config.distill_steps}"
        raise InputError(f"{fault}: give 1 or 2, for a few-step network, with --distill PKL, and only then")
    return config


def check_data_is_there(saved: TrainConfig) -> None:
    """Raise InputError, which asks for the new path, if a resumed run's data are not where they were."""
    try:
        if saved.data and saved.data_class is None:
            find_train(saved.data)
    except InputError as error:
        fault = str(error).partition(";")[0]
        raise InputError(f"{fault}; the run was trained on it: if it has moved, give its new path as `data`") from None


def check_files(config: TrainConfig, content: dict[str, Any], state_path: Path | None) -> None:
    """Raise InputError for data, a snapshot, weights or a training state (its content) that cannot be used."""
    run_data = open_data(config) if config.data else None
    if run_data and state_path:
        check_data(content, run_data.facts(), state_path)
    if config.transfer or config.encoder_weights != "none":
        create_state(config, run_data.scene if run_data else config.net.scene, torch.device("cpu"))


def draw_embedded_data(config: TrainConfig) -> None:
    """Draw what is missing of the embedded dataset."""
    from genvs.data.synthetic.dataset import ensure_dataset  # takes a second

    path, sizes = config.embedded.path, dataclasses.asdict(config.embedded)
    if not os.path.exists(f"{path}_train"):
        print(f"Drawing the embedded dataset, which takes seconds to minutes: {path}", flush=True)
    ensure_dataset(path, workers=os.cpu_count() or 1, modalities=config.net.modalities, **sizes)


def first_lines(config: TrainConfig, run_dir: Path, scene: SceneConfig, new: bool) -> list[str]:
    """What a run says as it starts: where it goes, what to expect of it and, if it is new, what it starts from."""
    psnr = expected_psnr(config)
    expected = f"; expected about {psnr:.1f} dB at the end" if psnr else ""
    lines = [f"Training to {config.total_nimg / 1000:g} kimg (thousand images) in {run_dir}{expected}"]
    if new and config.transfer:
        planes = f"depths from {scene.near:.3g} to {scene.far:.3g}"
        lines.append(f"Starting from {config.transfer}: {config.net.resolution} pixels, {planes}")
    elif new and config.encoder_weights != "none":
        lines.append(f"The encoder starts from {config.encoder_weights}")
    return lines


data, model, recipe, machine, output = map(option_group, ("Data", "Model", "Training", "Machine", "Output"))
WEIGHTS = "none|imagenet|PATH"
OUTDIR = {"default": str(ROOT / "training_runs"), "show_default": "training_runs beside train.py"}


class TrainCommand(Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write --help's list of options, with the preset's values as defaults."""
        preset = ctx.params.get("preset") or default_preset()
        leaves = flat(dataclasses.asdict(TRAIN_PRESETS[preset]))
        values = {option.name: leaves.get(path_of(option.name)) for option in self.params if option.name}
        values |= {name: leaves[name] / unit for name, unit in IN_KIMG.items()}
        values |= {"kimg": leaves["duration_kimg"], "min_inputs": f"{leaves['min_inputs']}-{leaves['max_inputs']}"}
        ctx.default_map = {name: as_text(value) for name, value in values.items() if value is not None}
        super().format_options(ctx, formatter)


@click.command(cls=TrainCommand)
@data("--data", help="Folder or .zip of scenes (docs/data.md)", type=FullPath(), show_default="embedded cars")
@data("--data-class", help="Your own class to read --data with (docs/data.md)", metavar="PKG.MODULE.CLASS")
@data("--near", help="Near depth plane, world units", metavar="FLOAT", show_default="the dataset's")
@data("--far", help="Far depth plane, world units", metavar="FLOAT", show_default="the dataset's")
@data("--convention", help="Camera axes of the poses", type=click.Choice(CONVENTIONS), show_default="the format's")
@data("--normalize", help="Move and scale every scene by its cameras", type=bool)
@data("--modalities", help="What the network reads and draws: some of rgb, depth, sar, sonar", metavar="LIST")
@data("--fit", help="How images that are not square become square", type=click.Choice(FITS))
@data("--background", help="Colour behind transparent and masked parts of images", type=Color())
@data("--cond", help="Train a class-conditional network, on the classes in the dataset's labels.json", type=bool)
@data("--xflip", help="Mirror half of the scenes, images and cameras alike", type=bool)
@data("--cache", help="Pack decoded images in a file beside the dataset", type=bool)
@model("--preset", help="Model sizes and training recipe", type=click.Choice(list(PRESETS)), is_eager=True)
@model("--resolution", help="Side of the images, pixels", metavar="INT")
@model("--arch", help="U-Net architecture", type=click.Choice(list(ARCHITECTURES)))
@model("--precond", help="Preconditioning and loss", type=click.Choice(list(SIGMA_RANGES)))
@model("--cbase", "model_channels", help="U-Net channel multiplier", metavar="INT")
@model("--cres", "channel_mult", help="U-Net channels per resolution, in multiples of --cbase", metavar="LIST")
@model("--dropout", help="U-Net dropout probability", metavar="FLOAT")
@model("--cam_weighting_method", "view_weighting", help="Weighting of input views (docs/options.md)", metavar="NAME")
@model("--only_train_cam_weighter", help="Train the view weighting alone, in the network of --transfer", type=bool)
@model("--encoder-weights", help="Initial weights of the ResNet; imagenet downloads them", metavar=WEIGHTS)
@model("--transfer", help="Start from the weights of a snapshot or its folder", type=FullPath(), metavar="PKL")
@model("--distill", help="Make a few-step network of a snapshot (docs/realtime.md)", type=FullPath(), metavar="PKL")
@recipe("--duration", "duration_kimg", help="Length, millions of images", metavar="MIMG", type=POSITIVE)
@recipe("--kimg", help="Length, thousands of images, instead of --duration", metavar="KIMG", type=POSITIVE)
@recipe("--batch", "batch_size", help="Target images per update, over all GPUs", metavar="INT")
@recipe("--batch-gpu", help="Target images per GPU at a time", metavar="INT", show_default="a share of --batch")
@recipe("--views", "min_inputs", help="Input views per sample, such as 2 or 1-3", metavar="N|MIN-MAX")
@recipe("--targets", "num_targets", help="Target views per scene and sample", metavar="INT")
@recipe("--lr", help="Learning rate", metavar="FLOAT")
@recipe("--ema", "ema_halflife_kimg", help="EMA half-life, millions of images", metavar="MIMG", type=POSITIVE)
@recipe("--augment", help="Probability of each augmentation: flips, turns, shifts", metavar="FLOAT")
@recipe("--rgb_weight", help="Weight of the colour loss on feature images", metavar="FLOAT")
@recipe("--ls", "loss_scale", help="Factor on the loss", metavar="FLOAT")
@recipe("--seed", help="Random seed", metavar="INT")
@recipe("--set", "settings", help="Any setting, such as loss.P_mean=-0.5; may be repeated (list: docs/options.md)",
          metavar="PATH=VALUE", multiple=True, callback=settings_by_path)  # fmt: skip
@machine("--bf16", help="bfloat16 arithmetic on GPUs that have it", type=bool)
@machine("--fp16", help="float16 arithmetic with adaptive loss scaling on GPUs, instead of bfloat16", type=bool)
@machine("--bench", help="Let cuDNN time its algorithms: steps up to 1% faster, but a later start", type=bool)
@machine("--cuda-graphs", help="Replay the training step as CUDA graphs", type=bool)
@machine("--grad-compression", help="Compress gradients between GPUs", type=click.Choice(["none", "bf16"]))
@machine("--workers", help="Loader processes per GPU, at most one per core", metavar="INT")
@output("--outdir", help="Where run folders go", type=FullPath(), metavar="DIR", **OUTDIR)
@output("--desc", help="Text at the end of the run folder's name", metavar="STR", callback=folder_words)
@output("--nosubdir", help="Write to --outdir itself", is_flag=True)
@output("--tick", "kimg_per_tick", help="Thousands of images between status lines", metavar="KIMG", type=POSITIVE)
@output("--snap", "snapshot_ticks", help="Ticks between snapshots, samples and held-out PSNR", metavar="TICKS")
@output("--dump", "state_ticks", help="Ticks between training states, for --resume", metavar="TICKS")
@output("--log_freq", "log_kimg", help="Images between logged numbers", metavar="IMAGES", type=POSITIVE)
@output("--notensorboard", "logger", help="The same as --logger none", flag_value="none", show_default=False)
@output("--logger", help="Where curves and pictures go: tensorboard, wandb, mlflow or none", metavar="LIST")
@output("--resume", help="Continue a run (its folder or a training-state-*.pt), by default the newest",
        metavar="[PATH]", is_flag=False, flag_value="newest")  # fmt: skip
@output("-n", "--dry-run", help="Check everything, print all settings, and exit", is_flag=True)
def main(outdir, desc, nosubdir, resume, dry_run, **options) -> None:
    """Train GeNVS on posed images: novel views of an object from one to a few others.

    Without --data it first makes a dataset of procedural cars and trains on it. Relative paths start at the working
    folder. The defaults below are those of --preset, if it comes before --help.
    """
    stop_at_once()
    content: dict[str, Any] = {}
    state_path = None
    if resume:
        resume = resume if resume == "newest" else os.path.abspath(resume)
        state_path, content = run_folder.find_resume_state(resume, outdir)
    else:
        run_folder.check_outdir(outdir, nosubdir=nosubdir)
    config = build_config(options, content.get("config"))
    cur_nimg = content.get("cur_nimg", 0)
    config.rounds(distributed.get_world_size())  # refuses a batch that does not divide
    check_installed(config.logger or ())
    if resume and options["data"] is None:
        check_data_is_there(config)
    if device_type() == "cpu" and (config.fp16 or config.grad_compression != "none"):
        raise InputError(f"--{'fp16' if config.fp16 else 'grad-compression'}: there is no GPU: leave the option out")
    if cur_nimg >= config.total_nimg:
        progress = f"{cur_nimg / 1000:g} of {config.total_nimg / 1000:g} kimg"
        raise InputError(f"{state_path}: has {progress}: give a larger --kimg to go on")
    # A resumed run does not need what it started from, which may be gone.
    start = dataclasses.replace(config, transfer=None, encoder_weights="none") if resume else config
    if dry_run:
        check_files(start, content, state_path)
        print(json.dumps(dataclasses.asdict(config), indent=2))
        print("Dry run: everything is in order.")
        return

    if config.data is None and distributed.get_local_rank() == 0:  # the others wait in `init`
        check_files(start, content, state_path)
        draw_embedded_data(config)
    device = distributed.init(device_type())
    run_data = open_data(config)
    check_ranks_agree(config, run_data.facts(), cur_nimg)
    state = create_state(start, run_data.scene, device)
    if config.cache:
        pack_data(run_data)
    state.data = run_data.facts()
    run_dir = None
    if state_path:
        restore(state, content, state_path)
        run_dir = state_path.parent
    elif distributed.get_rank() == 0:
        run_dir = run_folder.new_run_folder(config, outdir, device.type, desc, nosubdir=nosubdir)
    run_dir = distributed.gather_objects(run_dir)[0]
    with run_folder.locked_and_logged(run_dir, config) if distributed.get_rank() == 0 else contextlib.nullcontext():
        distributed.print0(*first_lines(config, run_dir, run_data.scene, new=not resume), sep="\n", flush=True)
        training_loop(config, run_dir, run_data, state, device)
        distributed.print0(run_folder.last_line(state.cur_nimg, config, run_dir))
    distributed.shutdown()
    if state.cur_nimg < config.total_nimg:
        raise KeyboardInterrupt  # ends with the exit code of an interrupted program


if __name__ == "__main__":
    run_command(main)
