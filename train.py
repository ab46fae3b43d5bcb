"""Train GeNVS: options -> TrainConfig -> training_loop. `./train.sh` makes the environment and launches this."""

from __future__ import annotations

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

from dnnlib.command import Command, FiniteRange, FullPath, option_group, run_command
from genvs.config import ARCHITECTURES, CONVENTIONS, PRESETS, SIGMA_RANGES
from genvs.errors import InputError
from genvs.settings import flat, set_by_path, types_of_settings
from torch_utils import distributed
from training import run_folder
from training.config import ROOT, TRAIN_PRESETS, TrainConfig, resumed
from training.data import check_ranks_agree, open_data, pack_data
from training.signals import stop_at_once
from training.state import check_data, create_state, restore, saved_config, start_from
from training.training_loop import training_loop

SETTINGS = list(types_of_settings(TrainConfig))
FOLLOWING = ("preset=", "net.scene.", "net.denoiser.augment_labels=")  # settings that other options determine


class InThousands(FiniteRange):
    """A number of images in units of `images`, converted to thousands, in which the config counts."""

    def __init__(self, images: float) -> None:
        super().__init__(min=0, min_open=True)
        self.factor = images / 1000

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return super().convert(value, param, ctx) * self.factor


def path_of(name: str) -> str:
    """The path of the setting that an option of this name changes: the shortest one that ends in it."""
    paths = [path for path in SETTINGS if path.rpartition(".")[2] == name]
    return min(paths, key=lambda path: path.count("."), default="")


def folder_words(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\w.,=+-]{1,100}", text):
        raise click.BadParameter(f"{text!r}: give letters, digits, and any of _ . , = + -, at most 100")
    return text


def settings_by_path(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text or text.startswith(FOLLOWING):
            raise click.BadParameter(f"{text!r}: give PATH=VALUE, of a setting that docs/options.md lists")
    return dict(text.partition("=")[::2] for text in texts)


def default_preset() -> str:
    return "srn128" if torch.cuda.is_available() else "cpu-demo"


def preset_values(context: click.Context) -> dict[str, Any]:
    """The preset's value for each option, for --help."""
    preset = context.params.get("preset") or default_preset()
    leaves = flat(dataclasses.asdict(TRAIN_PRESETS[preset]))
    values = {}
    for option in context.command.params:
        name = str(option.name)
        value: Any = leaves.get(path_of(name))
        values[name] = value / option.type.factor if isinstance(option.type, InThousands) else value
    inputs = f"{leaves['min_inputs']}-{leaves['max_inputs']}"
    return {**values, "preset": preset, "kimg": leaves["duration_kimg"], "min_inputs": inputs}


def build_config(options: dict[str, Any], saved: TrainConfig | None = None) -> TrainConfig:
    """The preset (or the resumed run's config) with the given options on top of it.

    options: by parameter name; None where not given. Raises InputError for values that do not fit together.
    """
    given = {name: value for name, value in options.items() if value is not None}
    more = given.pop("settings", {})
    if "kimg" in given and "duration_kimg" in given:
        raise InputError("--kimg and --duration both set the length: give one of them")
    if "kimg" in given:
        given["duration_kimg"] = given.pop("kimg")
    if "min_inputs" in given:
        low, _, high = given["min_inputs"].partition("-")
        given |= {"min_inputs": low, "max_inputs": high or low}
    settings = {path_of(name): value for name, value in given.items()} | more
    if saved:
        return resumed(saved, settings)
    base = TRAIN_PRESETS[given.get("preset") or default_preset()]
    if "transfer" in settings:
        base = start_from(settings["transfer"], base)
    config = set_by_path(base, settings)
    if config.only_train_cam_weighter and config.transfer is None:
        raise InputError("--only_train_cam_weighter keeps the rest of a trained network: give one with --transfer PKL")
    return config


def check_devices(config: TrainConfig, *, has_gpu: bool) -> None:
    """Raise InputError for what only GPUs can do, where there is none."""
    if not has_gpu and (config.fp16 or config.grad_compression != "none"):
        raise InputError(f"`{'fp16' if config.fp16 else 'grad_compression'}`: there is no GPU: leave the option out")


def check_files(config: TrainConfig, state_path: Path | None, content: dict[str, Any] | None) -> None:
    """Raise InputError for data, a snapshot, weights or a training state (its content) that cannot be used."""
    run_data = open_data(config) if config.data else None
    if run_data and content and state_path:
        check_data(content, run_data.facts(), state_path)
    if config.transfer or config.encoder_weights != "none":
        create_state(config, run_data.scene if run_data else config.net.scene, torch.device("cpu"))


data, model, recipe, machine, output = map(option_group, ("Data", "Model", "Training", "Machine", "Output"))
WEIGHTS = "none|imagenet|PATH"
OUTDIR = {"default": str(ROOT / "training_runs"), "show_default": "training_runs beside train.py"}


@click.command(cls=Command, shown_defaults=preset_values)
@data("--data", help="PATH of PATH_train, a split's folder or a .zip", type=FullPath(), show_default="embedded cars")
@data("--data-class", help="A class of your own to read --data with (docs/data.md)", metavar="PKG.MODULE.CLASS")
@data("--near", help="Near depth plane, world units", metavar="FLOAT", show_default="the dataset's")
@data("--far", help="Far depth plane, world units", metavar="FLOAT", show_default="the dataset's")
@data("--convention", help="Camera axes of the poses", type=click.Choice(CONVENTIONS), show_default="the format's")
@data("--normalize", help="Move and scale every scene by its cameras", type=bool)
@data("--cond", help="Train a class-conditional network, on the classes in the dataset's labels.json", type=bool)
@data("--xflip", help="Mirror half of the scenes, images and cameras alike", type=bool)
@data("--cache", help="Pack decoded images beside the dataset, once", type=bool)
@model("--preset", help="Sizes and recipe", type=click.Choice(list(PRESETS)), is_eager=True)
@model("--resolution", help="Side of the images, pixels", metavar="INT")
@model("--arch", help="U-Net", type=click.Choice(list(ARCHITECTURES)))
@model("--precond", help="Preconditioning and loss", type=click.Choice(list(SIGMA_RANGES)))
@model("--cbase", "model_channels", help="U-Net channel multiplier", metavar="INT")
@model("--cres", "channel_mult", help="U-Net channels per resolution, over --cbase", metavar="LIST")
@model("--dropout", help="U-Net dropout probability", metavar="FLOAT")
@model("--cam_weighting_method", "view_weighting", help="Weighting of input views (docs/options.md)", metavar="NAME")
@model("--only_train_cam_weighter", help="Train the view weighting alone, in the network of --transfer", type=bool)
@model("--encoder-weights", help="The ResNet's initial weights; imagenet downloads them", metavar=WEIGHTS)
@model("--transfer", help="Start from the weights of a snapshot", type=FullPath(), metavar="PKL")
@recipe("--duration", "duration_kimg", help="Length, millions of images", metavar="MIMG", type=InThousands(1e6))
@recipe("--kimg", help="Length, thousands of images, instead of --duration", metavar="KIMG")
@recipe("--batch", "batch_size", help="Target images per update, over all GPUs", metavar="INT")
@recipe("--batch-gpu", help="Target images per GPU at a time", metavar="INT", show_default="a share of --batch")
@recipe("--views", "min_inputs", help="Input views per sample, such as 2 or 1-3", metavar="N|MIN-MAX")
@recipe("--targets", "num_targets", help="Target views per scene and sample", metavar="INT")
@recipe("--lr", help="Learning rate", metavar="FLOAT")
@recipe("--ema", "ema_halflife_kimg", help="EMA half-life, millions of images", metavar="MIMG", type=InThousands(1e6))
@recipe("--augment", help="Probability of each augmentation: flips, turns, shifts", metavar="FLOAT")
@recipe("--rgb_weight", help="Weight of the colour loss on feature images", metavar="FLOAT")
@recipe("--ls", "loss_scale", help="Factor on the loss", metavar="FLOAT")
@recipe("--seed", help="Random seed", metavar="INT")
@recipe("--set", "settings", help="Any setting, such as loss.P_mean=-0.5; may be repeated (list: docs/options.md)",
          metavar="PATH=VALUE", multiple=True, callback=settings_by_path)  # fmt: skip
@machine("--bf16", help="bfloat16 arithmetic on GPUs that have it", type=bool)
@machine("--fp16", help="float16 arithmetic with adaptive loss scaling on GPUs, instead of bfloat16", type=bool)
@machine("--bench", help="cuDNN benchmarking", type=bool)
@machine("--cuda-graphs", help="Replay the training step as CUDA graphs", type=bool)
@machine("--grad-compression", help="Compress gradients between GPUs", type=click.Choice(["none", "bf16"]))
@machine("--workers", help="Loader processes per GPU, at most one per core", metavar="INT")
@output("--outdir", help="Where run folders go", type=FullPath(), metavar="DIR", **OUTDIR)
@output("--desc", help="Words at the end of the run folder's name", metavar="STR", callback=folder_words)
@output("--nosubdir", help="Write to --outdir itself", is_flag=True)
@output("--tick", "kimg_per_tick", help="A status line every so many thousand images", metavar="KIMG")
@output("--snap", "snapshot_ticks", help="Snapshot, samples, held-out PSNR every so many ticks", metavar="TICKS")
@output("--dump", "state_ticks", help="Training state (for --resume) every so many ticks", metavar="TICKS")
@output("--log_freq", "log_kimg", help="Logged numbers every so many images", metavar="IMAGES", type=InThousands(1))
@output("--notensorboard", help="Write no TensorBoard events", is_flag=True)
@output("--resume", help="Continue the newest run, or that of the run folder or training-state-*.pt given",
        metavar="[PATH]", is_flag=False, flag_value="newest")  # fmt: skip
@output("-n", "--dry-run", help="Check everything, print all settings, and exit", is_flag=True)
def main(outdir, desc, nosubdir, notensorboard, resume, dry_run, **options) -> None:
    """Train GeNVS on posed images: novel views of an object from one to a few others.

    Without --data it trains on an embedded dataset of procedural cars, which it makes first. Relative paths are taken
    from the working folder. The defaults below are those of --preset, if it comes before --help.
    """
    stop_at_once()
    if notensorboard:
        options["tensorboard"] = False
    if resume:
        path = resume if resume == "newest" else os.path.abspath(resume)
        state_path, content = run_folder.find_resume_state(path, outdir)
        config = build_config(options, saved_config(content, state_path))
    else:
        run_folder.check_outdir(outdir, nosubdir=nosubdir)
        state_path, content, config = None, None, build_config(options)
    config.rounds(distributed.get_world_size())
    check_devices(config, has_gpu=torch.cuda.is_available())
    if content and content["cur_nimg"] >= config.total_nimg:
        seen, total = content["cur_nimg"] / 1000, config.total_nimg / 1000
        raise InputError(f"{state_path}: has {seen:g} of {total:g} kimg: give a longer --duration to go on")
    # A resumed run does not need what it started from, which may be gone.
    start = dataclasses.replace(config, transfer=None, encoder_weights="none") if content else config
    if dry_run:
        check_files(start, state_path, content)
        print(json.dumps(dataclasses.asdict(config), indent=2))
        print("Dry run: everything is in order.")
        return

    if config.data is None:
        from genvs.data.synthetic.dataset import ensure_dataset  # takes a second

        ensure_dataset(config.embedded.path, workers=os.cpu_count() or 1, **dataclasses.asdict(config.embedded))
    device = distributed.init("cuda" if torch.cuda.is_available() else "cpu")
    run_data = open_data(config)
    check_ranks_agree(config, run_data.facts(), content["cur_nimg"] if content else 0)
    if config.cache:
        pack_data(run_data)
    state = create_state(start, run_data.scene, device)
    state.data = run_data.facts()
    if content and state_path:
        restore(state, content, state_path)
    run_dir = state_path.parent if state_path else None
    if run_dir is None and distributed.get_rank() == 0:
        name = run_folder.folder_name(config, distributed.get_world_size(), device.type, desc)
        run_dir = run_folder.new_run_folder(outdir, name, nosubdir=nosubdir)
    run_dir = distributed.broadcast_object(run_dir)
    with run_folder.locked_and_logged(run_dir, config) if distributed.get_rank() == 0 else contextlib.nullcontext():
        distributed.print0(f"Training to {config.total_nimg / 1000:g} kimg (thousand images) in {run_dir}", flush=True)
        if config.transfer is None and content is None:
            distributed.print0(f"Initial weights of the encoder: {config.encoder_weights} (--encoder-weights)")
        training_loop(config, run_dir, run_data, state, device)
        distributed.print0(run_folder.last_line(state.cur_nimg, config, run_dir))
    distributed.shutdown()
    if state.cur_nimg < config.total_nimg:
        raise KeyboardInterrupt


if __name__ == "__main__":
    run_command(main)
