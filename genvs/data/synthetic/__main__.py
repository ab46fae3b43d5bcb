"""Command line of the embedded dataset: `python -m genvs.data.synthetic --out datasets/cars`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from genvs.data.storage import counted
from genvs.data.synthetic.dataset import SPIRAL_VIEWS, Split, ensure_dataset
from genvs.errors import run_program


def new_parser(prog: str, description: str, out: str) -> argparse.ArgumentParser:
    """A parser with the options that this program shares with genvs.data.mesh. out: the help of --out."""
    defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=description, formatter_class=defaults)
    parser.add_argument("--out", type=Path, required=True, help=out)
    parser.add_argument("--views", type=int, default=50, help="views per scene")
    parser.add_argument("--resolution", type=int, default=128, help="side of the images, pixels")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    return parser


def report(make: Callable[..., Sequence[Split]], **options) -> None:
    """Calls `make` and prints what it has made."""
    try:
        for split in make(**options):
            print(f"Finished: {counted(len(split.subjects), 'scene')} in {split.folder}")
    except KeyboardInterrupt:
        print("\nInterrupted: the same command makes the rest.", file=sys.stderr)
        raise


def main() -> None:
    parser = new_parser(
        "python -m genvs.data.synthetic",
        "Make the embedded dataset: procedural cars in SRN's layout. Run again, it makes what is missing.",
        "writes OUT_train, OUT_val and OUT_test",
    )
    parser.add_argument("--scenes", type=int, default=400, help="training scenes")
    parser.add_argument("--val-scenes", type=int, default=40, help="validation scenes")
    parser.add_argument("--test-scenes", type=int, default=10, help="test scenes")
    parser.add_argument("--test-views", type=int, default=SPIRAL_VIEWS, help="views per test scene, of SRN's spiral")
    report(ensure_dataset, **vars(parser.parse_args()))


if __name__ == "__main__":
    run_program(main)
