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

from dnnlib.command import checked_by, run_command
from genvs.config import (
    ARCHITECTURES,
    AUGMENT_LABELS,
    CONVENTIONS,
    PRESETS,
    SIGMA_RANGES,
    VIEW_WEIGHTINGS,
    DenoiserConfig,
    parse_view_weighting,
    scaled_to,
)
from genvs.errors import InputError
from training.config import TRAIN_PRESETS, TrainConfig, resumed

# What `--arch` changes in a preset besides; sizes stay the preset's.
OF_ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpmpp": {},
    "ncsnpp": {"residual_encoder": True},
    "adm": {"residual_encoder": False, "attention_resolutions": (32, 16, 8)},
}


def folder_words(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """The callback of an option whose text becomes a part of a folder's name."""
    if text is not None and not re.fullmatch(r"[\w.,=+-]{1,100}", text):
        raise click.BadParameter(f"{text!r}: give letters, digits, and any of _ . , = + -, at most 100")
    return text


class ViewRange(click.ParamType):
    """`3` or `1-3`: how many input views a sample has."""

    name = "N|MIN-MAX"

    def convert(self, value, param, ctx) -> tuple[int, int]:
        low, _, high = str(value).partition("-")
        try:
            return int(low), int(high or low)
        except ValueError:
            self.fail(f"{value!r}: give a number such as 3 or a range such as 1-3", param, ctx)


def build_config(options: dict[str, Any], saved: TrainConfig | None) -> TrainConfig:
    """The preset (or the resumed run's config), with every option that was given on top of it.

    Raises InputError for values that do not fit together.
    """
    given = {name: value for name, value in options.items() if value is not None}
    changes = {name: given.pop(name) for name in list(given) if name in TrainConfig.__dataclass_fields__}
    for option, name in (("duration", "duration_kimg"), ("ema", "ema_halflife_kimg")):
        if option in given:
            changes[name] = given.pop(option) * 1000
    if "views" in given:
        changes["min_inputs"], changes["max_inputs"] = given.pop("views")
    if changes.get("fp16"):
        changes.setdefault("bf16", False)
    if "transfer" in changes and changes.get("encoder_weights", "none") != "none":
        raise InputError("--encoder-weights with --transfer: a snapshot brings its encoder's weights: give one of them")
    base = saved or TRAIN_PRESETS[changes.get("preset") or default_preset()]
    net = base.net
    if "transfer" in changes and not saved:
        from training.state import net_to_start_from

        net = net_to_start_from(changes["transfer"], net)
    if "resolution" in given and base.data is None and "data" not in changes:
        changes["embedded"] = dataclasses.replace(base.embedded, resolution=given["resolution"])
    if "augment" in given:
        given["augment_labels"] = AUGMENT_LABELS if given["augment"] > 0 else 0
    net = scaled_to(net, given.pop("resolution", net.resolution), build_denoiser(net.denoiser, given))
    loss = {name: given.pop(name) for name in ("rgb_weight", "augment") if name in given}
    if net.numerics != base.net.numerics:
        loss.setdefault("rgb_weight", 0.0)  # its feature images have no colours
        changes.setdefault("ema_rampup_ratio", None)  # as there, where training goes on from a snapshot
    if loss:
        changes["loss"] = dataclasses.replace(base.loss, **loss)
    net = dataclasses.replace(net, view_weighting=given.pop("cam_weighting_method", net.view_weighting))
    if net != base.net:
        changes["net"] = net
    config = resumed(saved, changes) if saved else dataclasses.replace(base, **changes)
    if config.only_train_cam_weighter and config.transfer is None:
        raise InputError("--only_train_cam_weighter: all else stays as it is, so give a trained one: --transfer PKL")
    return config


def build_denoiser(base: DenoiserConfig, given: dict[str, Any]) -> DenoiserConfig:
    """`base` with every option that was given on top of it; these are taken out of `given`."""
    names = {"cbase": "model_channels", "cres": "channel_mult"}
    taken = [name for name in given if name in names or name in DenoiserConfig.__dataclass_fields__]
    changes = {names.get(name, name): given.pop(name) for name in taken}
    if changes.get("arch", base.arch) != base.arch:
        changes = {**OF_ARCHITECTURES[changes["arch"]], **changes}
    if "precond" in changes:
        changes["sigma_min"], changes["sigma_max"] = SIGMA_RANGES[changes["precond"]]
    return dataclasses.replace(base, **changes)


def default_preset() -> str:
    import torch

    return "srn128" if torch.cuda.is_available() else "cpu-demo"


def parse_multipliers(ctx, param, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        multipliers = tuple(int(part) for part in value.split(","))
    except ValueError:
        multipliers = ()
    if not multipliers or min(multipliers) < 1:
        raise click.BadParameter(f"{value!r}: give whole numbers separated by commas, such as 1,1,2,2,2")
    return multipliers


def check_devices(config: TrainConfig, *, has_gpu: bool) -> None:
    """Raise InputError for what only GPUs can do, where there is none."""
    if config.grad_compression != "none" and not has_gpu:
        raise InputError(f"--grad-compression={config.grad_compression}: there is no GPU: train on GPUs, or without it")
    if config.fp16 and not has_gpu:
        raise InputError("--fp16=true: there is no GPU: train on one, or without it")


def announcement(config: TrainConfig, run_dir: Path, *, new: bool) -> str:
    """A run's first lines."""
    lines = [f"training to {config.total_nimg / 1000:g} kimg in {run_dir}"]
    if new and config.transfer is None:
        lines.append(f"encoder's first weights: {config.encoder_weights} (--encoder-weights none|imagenet|PATH)")
    return "\n".join(lines)


def conclusion(cur_nimg: int, config: TrainConfig, run_dir: Path) -> str:
    """A run's last line."""
    if cur_nimg < config.total_nimg:
        saved = run_dir / f"training-state-{cur_nimg // 1000:06d}.pt"
        # A run that went on from an earlier state still has the later ones, which the folder alone would mean.
        what = saved if any(state > saved for state in run_dir.glob("training-state-*.pt")) else run_dir
        return f"stopped at {cur_nimg / 1000:.1f} kimg; ./train.sh --resume {what} continues"
    return f"done: {run_dir} holds the snapshot, samples and logs"


def check_files(config: TrainConfig, state_path: Path | None, content: dict[str, Any] | None) -> None:
    """Read what a run would start from: with `content` of the training state that it resumes, if any.

    Raises InputError where it cannot be used.
    """
    import torch

    from training.data import open_data
    from training.state import check_data, create_state

    scene = config.net.scene
    if config.data is not None:
        data = open_data(config)
        scene = data.scene
        if content is not None:
            check_data(content, data.facts(), state_path)
    if config.transfer or config.encoder_weights != "none":
        create_state(config, scene, torch.device("cpu"))


def describe(config: TrainConfig, world_size: int, device: str) -> str:
    """The run folder's name after its number."""
    data = os.path.basename(os.path.normpath(config.data or config.embedded.path)).removesuffix(".zip")
    precision = "fp16" if config.fp16 else "bf16" if config.bf16 and device == "cuda" else "fp32"
    return f"{data}-{config.preset}-{device}{world_size}-batch{config.batch_size}-{precision}"


@click.command(context_settings={"max_content_width": 110})
# Where things are.
@click.option("--outdir", help="Where run folders go", metavar="DIR", default="training_runs", show_default=True)
@click.option(
    "--data", help="Dataset: PATH of PATH_train, a split folder or a .zip [default: the embedded one]", metavar="PATH"
)
@click.option("--near", help="Near depth plane of the cameras, world units [default: the dataset's]", type=float)
@click.option("--far", help="Far depth plane [default: the dataset's]", type=float)
@click.option(
    "--convention",
    help="The camera axes that poses are in [default: opengl in transforms.json, else opencv]",
    type=click.Choice(CONVENTIONS),
)
@click.option("--normalize", help="Move and scale every scene alike, by its cameras", metavar="BOOL", type=bool)
@click.option("--data-class", help="A class of your own to read --data with (docs/data.md)", metavar="PKG.MODULE.CLASS")
# The model.
@click.option(
    "--preset", help="Sizes and recipe [default: srn128 with a GPU, else cpu-demo]", type=click.Choice(list(PRESETS))
)
@click.option("--resolution", help="Side of the images, pixels [default: the preset's]", type=int)
@click.option("--arch", help="U-Net [default: ddpmpp]", type=click.Choice(ARCHITECTURES))
@click.option("--precond", help="Preconditioning and loss [default: edm]", type=click.Choice(list(SIGMA_RANGES)))
@click.option(
    "--cond", help="Tell the network the scenes' classes, of the dataset's labels.json", metavar="BOOL", type=bool
)
@click.option("--cbase", help="U-Net channel multiplier", metavar="INT", type=int)
@click.option(
    "--cres", help="U-Net channels per resolution, such as 1,1,2,2,2", metavar="LIST", callback=parse_multipliers
)
@click.option("--dropout", help="U-Net dropout probability", metavar="FLOAT", type=float)
@click.option(
    "--cam_weighting_method",
    help=f"How input views are weighted: {', '.join(VIEW_WEIGHTINGS)} [default: baseline_mean]",
    metavar="NAME",
    callback=checked_by(parse_view_weighting),
)
@click.option(
    "--only_train_cam_weighter",
    help="Train the view weighting alone, in the network that --transfer gives",
    metavar="[BOOL]",
    type=bool,
    is_flag=False,
    flag_value=True,
)
@click.option(
    "--encoder-weights",
    help="ResNet's first weights: none, imagenet (downloads) or a file [default: none]",
    metavar="none|imagenet|PATH",
)
# The recipe.
@click.option("--duration", help="Training length, millions of target images", metavar="MIMG", type=float)
@click.option("--batch", "batch_size", help="Target images per update, over all GPUs", metavar="INT", type=int)
@click.option(
    "--batch-gpu", help="Target images per GPU at a time [default: as many as --batch gives]", metavar="INT", type=int
)
@click.option("--views", help="Input views per sample [default: 1-3]", type=ViewRange())
@click.option("--targets", "num_targets", help="Target views per scene and sample", metavar="INT", type=int)
@click.option("--lr", help="Learning rate", metavar="FLOAT", type=float)
@click.option("--rgb_weight", help="Weight of the colour loss on feature images", metavar="FLOAT", type=float)
@click.option(
    "--augment",
    help="Probability of each step of augmentation: flips, turns, shifts [default: 0]",
    metavar="FLOAT",
    type=float,
)
@click.option("--ema", help="Half-life of the weights' moving average, millions of images", metavar="MIMG", type=float)
@click.option("--xflip", help="Mirror half of the scenes, images and cameras alike", metavar="BOOL", type=bool)
@click.option("--bf16", help="bfloat16 arithmetic on GPUs that have it [default: true]", metavar="BOOL", type=bool)
@click.option(
    "--fp16",
    help="float16 arithmetic and adaptive loss scaling, on GPUs, instead of bfloat16 [default: false]",
    metavar="BOOL",
    type=bool,
)
@click.option(
    "--grad-compression",
    help="Gradients travel between GPUs in full, or in half the bytes [default: none]",
    type=click.Choice(["none", "bf16"]),
)
@click.option("--ls", "loss_scale", help="Factor on the loss", metavar="FLOAT", type=float)
@click.option("--seed", help="Random seed", metavar="INT", type=int)
@click.option("--transfer", help="Start from the weights of a snapshot", metavar="PKL")
# The machine.
@click.option("--bench", help="cuDNN benchmarking", metavar="BOOL", type=bool)
@click.option("--cuda-graphs", help="Replay the step as CUDA graphs [default: true]", metavar="BOOL", type=bool)
@click.option("--cache", help="Pack decoded images beside the dataset, once [default: true]", metavar="BOOL", type=bool)
@click.option("--workers", help="Loader processes per GPU", metavar="INT", type=int)
# What is written, and when.
@click.option("--desc", help="Words at the end of the run folder's name", metavar="STR", callback=folder_words)
@click.option("--nosubdir", help="Write to --outdir itself", is_flag=True)
@click.option("--tick", "kimg_per_tick", help="Status line every so many thousand images", metavar="KIMG", type=float)
@click.option(
    "--log_freq",
    "log_kimg",
    help="Numbers to tensorboard and stats.jsonl every so many thousand images",
    metavar="KIMG",
    type=float,
)
@click.option(
    "--snap",
    "snapshot_ticks",
    help="Snapshot, samples and held-out PSNR every so many ticks",
    metavar="TICKS",
    type=int,
)
@click.option(
    "--dump", "state_ticks", help="Training state (for --resume) every so many ticks", metavar="TICKS", type=int
)
@click.option("--notensorboard", help="Write no tensorboard events", is_flag=True)
@click.option(
    "--resume",
    help="Continue the newest run, or the run folder or training-state-*.pt given",
    metavar="[PATH]",
    is_flag=False,
    flag_value="newest",
)
@click.option("-n", "--dry-run", help="Check everything, print the options, and exit", is_flag=True)
def main(outdir, desc, nosubdir, notensorboard, resume, dry_run, **options) -> None:
    """Train GeNVS on posed images: novel views of an object from one to a few others.

    With no --data it trains on an embedded dataset of procedural cars, which it makes first.
    """
    import torch

    from genvs.data.synthetic.dataset import ensure_dataset
    from torch_utils import distributed
    from training import run_folder
    from training.data import check_ranks_agree, open_data, pack_data
    from training.state import create_state, restore, saved_config
    from training.training_loop import training_loop

    if notensorboard:
        options["tensorboard"] = False
    if not resume:
        run_folder.check_outdir(outdir, nosubdir=nosubdir)
    state_path, content = run_folder.find_resume_state(resume, outdir) if resume else (None, None)
    config = build_config(options, saved_config(content, state_path) if content else None)
    config.rounds(distributed.get_world_size())
    check_devices(config, has_gpu=torch.cuda.is_available())
    if content and content["cur_nimg"] >= config.total_nimg:
        raise InputError(
            f"{state_path}: has {content['cur_nimg'] / 1000:g} of {config.total_nimg / 1000:g} kimg: give a longer "
            "--duration to go on"
        )
    # What a new run starts from is not needed again, and may be gone.
    birth = dataclasses.replace(config, transfer=None, encoder_weights="none") if content else config
    if dry_run:
        check_files(birth, state_path, content)
        print(json.dumps(dataclasses.asdict(config), indent=2))
        print("Dry run: everything is in order.")
        return

    if config.data is None:
        ensure_dataset(config.embedded.path, workers=os.cpu_count() or 1, **dataclasses.asdict(config.embedded))
    device = distributed.init("cuda" if torch.cuda.is_available() else "cpu")
    data = open_data(config)
    check_ranks_agree(config, data.facts(), content["cur_nimg"] if content else 0)
    if config.cache:
        pack_data(data)
    state = create_state(birth, data.scene, device)
    state.data = data.facts()
    if content is not None:
        restore(state, content, state_path)
    run_dir = state_path.parent if state_path else None
    if run_dir is None and distributed.get_rank() == 0:
        name = describe(config, distributed.get_world_size(), device.type) + (f"-{desc}" if desc else "")
        run_dir = run_folder.new_run_folder(outdir, name, nosubdir=nosubdir)
    run_dir = distributed.broadcast_object(run_dir)
    with run_folder.recorded(run_dir, config) if distributed.get_rank() == 0 else contextlib.nullcontext():
        distributed.print0(announcement(config, run_dir, new=content is None))
        training_loop(config, run_dir, data, state, device)
        distributed.print0(conclusion(state.cur_nimg, config, run_dir))
    distributed.shutdown()
    if state.cur_nimg < config.total_nimg:
        raise KeyboardInterrupt


if __name__ == "__main__":
    run_command(main)
