"""The options that say how images are sampled, for all commands that draw."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dnnlib.command import FiniteRange, checked_by
from genvs.config import VIEW_WEIGHTINGS, parse_view_weighting
from genvs.diffusion.samplers import SAMPLERS
from genvs.errors import InputError
from genvs.sampling.synthesis import NOISES
from torch_utils import distributed

_OPTIONS = [
    click.option("--sampler", type=click.Choice(list(SAMPLERS)), default="heun", help="How images are denoised."),
    click.option(
        "--denoising_steps",
        "num_steps",
        type=click.IntRange(1, 10000),
        show_default=", ".join(f"{name} {sampler.num_steps}" for name, sampler in SAMPLERS.items()),
        help=f"1 is the one-step preview; 2 to {SAMPLERS['heun'].fewest_steps - 1} of heun leave noise in the images.",
    ),
    click.option(
        "--guidance",
        type=FiniteRange(0, 100),
        default=1.0,
        help="Above 1: away from what is drawn without the inputs (classifier-free), at twice the work; 1 is none.",
    ),
    click.option(
        "--guide",
        type=click.Path(path_type=Path),
        show_default="none",
        help="Autoguidance: an earlier snapshot, for --guidance to lead away from instead.",
    ),
    click.option(
        "--noise",
        type=click.Choice(NOISES),
        default="fixed",
        help="What views start from: one noise for all, so that videos do not flicker; or fresh, each its own.",
    ),
    click.option(
        "--churn",
        type=FiniteRange(min=0),
        default=0.0,
        help="Stochastic sampling: EDM's S_churn, noise added and removed on the way; sampler heun only.",
    ),
    click.option(
        "--cam_weighting",
        metavar="NAME",
        callback=checked_by(parse_view_weighting),
        show_default="the snapshot's",
        help=f"How input views are weighted: {', '.join(VIEW_WEIGHTINGS)}.",
    ),
    click.option(
        "--bf16",
        type=bool,
        default=True,
        show_default="true",
        metavar="BOOL",
        help="bfloat16 arithmetic on GPUs that have it.",
    ),
]
NAMES = ("sampler", "num_steps", "guidance", "noise", "churn", "bf16")  # as `synthesize_views` takes them


def sampling_options(command: Callable) -> Callable:
    """A decorator that gives a command the options NAMES, `guide` and `cam_weighting`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settle(sampling: dict[str, Any]) -> dict[str, Any]:
    """The options as they act: with the sampler's own number of steps. Raises InputError for what does not go together.

    sampling: NAMES and `guide`, as the command received them; others stay as they are. Warns of too few steps.
    """
    sampler = sampling["sampler"]
    if sampling["churn"] and sampler != "heun":
        raise InputError(f"--churn={sampling['churn']:g} has no effect with --sampler={sampler}: leave one of them out")
    if sampling["guide"] is not None and sampling["guidance"] == 1:
        raise InputError(f"--guide={sampling['guide']} has no effect with --guidance=1: choose more, such as 2")
    num_steps, fewest = sampling["num_steps"] or SAMPLERS[sampler].num_steps, SAMPLERS[sampler].fewest_steps
    if 1 < num_steps < fewest:
        distributed.print0(
            f"Warning: --denoising_steps={num_steps}: so few steps of {sampler} leave noise in the images: give "
            f"{fewest} or more, 1 for the preview, or --sampler unipc",
            file=sys.stderr,
        )
    return {**sampling, "num_steps": num_steps}


def described(sampling: dict[str, Any]) -> str:
    """Settled options, for names of files: `steps=25`, and whatever is not the default."""
    words = [f"steps={sampling['num_steps']}"]
    for name, usual in (("sampler", "heun"), ("guidance", 1.0), ("noise", "fixed"), ("churn", 0.0)):
        value = sampling[name]
        if value != usual:
            words.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    if sampling["guide"] is not None:
        words.append(f"guide={sampling['guide'].stem.removeprefix('network-snapshot-')}")
    return "_".join(words)
