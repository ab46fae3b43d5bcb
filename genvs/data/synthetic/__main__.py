"""Command line of the embedded dataset: `python -m genvs.data.synthetic --out datasets/cars`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from genvs.data.storage import counted
from genvs.data.synthetic import KINDS
from genvs.data.synthetic.dataset import SPIRAL_VIEWS, Split, ensure_dataset
from genvs.errors import InputError, run_program
from genvs.modalities import MODALITIES


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the options."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def whole(low: int, high: int = 0) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `low` to `high`, or without end if `high` is 0."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text}: give a whole number from {low} {f'to {high}' if high else 'up'}")
        return int(text)

    return parse


def name_list(text: str) -> list[str]:
    """The type of an option that takes names, separated by commas."""
    return text.split(",")


def new_parser(prog: str, description: str, out: str) -> argparse.ArgumentParser:
    """A parser with the options that this program shares with genvs.data.mesh. out: the help of --out."""
    defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = Parser(prog=prog, description=description, formatter_class=defaults)
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help=out)
    parser.add_argument("--views", type=whole(1), default=50, help="views per scene")
    parser.add_argument("--resolution", type=whole(8, 1024), default=128, help="side of the images, pixels")
    parser.add_argument("--seed", type=whole(0), default=0, help="random seed")
    drawn = f"what to draw: {', '.join(MODALITIES)}; rgb and depth are always drawn"
    parser.add_argument("--modalities", type=name_list, default="rgb,depth", metavar="NAME,...", help=drawn)
    looks = "of the speckle in sar and sonar, such as 4; without it there is none"
    parser.add_argument("--looks", type=whole(1), default=argparse.SUPPRESS, help=looks)
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count(), help="processes")
    return parser


def report(make: Callable[..., Sequence[Split]], **options) -> None:
    """Calls `make` and prints what it has made."""
    try:
        for split in make(**options):
            print(f"Finished: {counted(len(split.subjects), 'scene')} in {split.folder}")
    except KeyboardInterrupt:
        print("\nInterrupted: start the same command again to make the rest.", file=sys.stderr)
        raise


def main() -> None:
    parser = new_parser(
        "python -m genvs.data.synthetic",
        "Make the embedded dataset in SRN's layout: procedural cars or things. Started again, it makes only "
        "what is missing.",
        "writes OUT_train, OUT_val and OUT_test",
    )
    parser.add_argument("--kind", choices=KINDS, default="cars", help="of objects; mixed: half of each")
    parser.add_argument("--scenes", type=whole(0), default=400, help="training scenes")
    parser.add_argument("--val-scenes", type=whole(0), default=40, help="validation scenes")
    parser.add_argument("--test-scenes", type=whole(0), default=10, help="test scenes")
    parser.add_argument("--test-views", type=whole(1, SPIRAL_VIEWS), default=SPIRAL_VIEWS, help="views per test scene")
    report(ensure_dataset, **vars(parser.parse_args()))


if __name__ == "__main__":
    run_program(main)
