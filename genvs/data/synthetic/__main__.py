"""Command line of the embedded dataset: `python -m genvs.data.synthetic --out datasets/cars`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from genvs.data.storage import counted
from genvs.data.synthetic import KINDS
from genvs.data.synthetic.dataset import SPIRAL_VIEWS, Split, ensure_dataset
from genvs.errors import run_program
from genvs.modalities import MODALITIES
from genvs.programs import Parser, name_list, whole


def new_parser(prog: str, description: str, out: str) -> tuple[Parser, argparse._ArgumentGroup]:
    """A parser with the options that this program shares with genvs.data.mesh, and a group for those about objects.

    out: the help of --out.
    """
    parser = Parser(prog, description)
    output, objects, pictures, work = map(parser.add_argument_group, ("output", "objects", "pictures", "work"))
    output.add_argument("--out", type=Path, required=True, metavar="PATH", help=out)
    pictures.add_argument("--views", type=whole(1), default=50, metavar="N", help="views per scene")
    pictures.add_argument("--resolution", type=whole(8, 1024), default=128, metavar="N", help="side, pixels")
    drawn = f"what to draw: {', '.join(MODALITIES)}; rgb and depth are always drawn"
    pictures.add_argument("--modalities", type=name_list, default="rgb,depth", metavar="NAME,...", help=drawn)
    looks = "speckle in sar and sonar, the mean of N looks, such as 4 (default: no speckle)"
    pictures.add_argument("--looks", type=whole(1), default=argparse.SUPPRESS, metavar="N", help=looks)
    work.add_argument("--seed", type=whole(0), default=0, metavar="N", help="random seed")
    work.add_argument("--workers", type=whole(1), default=os.cpu_count(), metavar="N", help="processes")
    return parser, objects


def report(make: Callable[..., Sequence[Split]], **options) -> None:
    """Calls `make` and prints what it has made."""
    try:
        for split in make(**options):
            print(f"Finished: {counted(len(split.subjects), 'scene')} in {split.folder}")
    except KeyboardInterrupt:
        print("\nInterrupted: start the same command again to make the rest.", file=sys.stderr)
        raise


def main() -> None:
    parser, objects = new_parser(
        "python -m genvs.data.synthetic",
        "Make the embedded dataset in SRN's layout: procedural cars or things. Started again, it makes only "
        "what is missing.",
        "writes OUT_train, OUT_val and OUT_test",
    )
    objects.add_argument("--kind", choices=KINDS, default="cars", help="what scenes show; mixed: half of each")
    for split, name, count in (("", "training", 400), ("val-", "validation", 40), ("test-", "test", 10)):
        objects.add_argument(f"--{split}scenes", type=whole(0), default=count, metavar="N", help=f"{name} scenes")
    views, most = "views per test scene", SPIRAL_VIEWS
    objects.add_argument("--test-views", type=whole(1, most), default=most, metavar="N", help=views)
    report(ensure_dataset, **vars(parser.parse_args()))


if __name__ == "__main__":
    run_program(main)
