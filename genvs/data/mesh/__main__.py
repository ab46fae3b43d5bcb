"""Command line: `python -m genvs.data.mesh --out DIR MESH...`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from genvs.data.mesh.dataset import CAMERAS, ensure_meshes
from genvs.data.storage import counted
from genvs.errors import run_program


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m genvs.data.mesh",
        description="Draw meshes from all around, a scene each. The object is centred and scaled to a bounding box of "
        "diagonal 1, and seen from the distance of SRN's cars. Run again, the command draws only what is missing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("meshes", type=Path, nargs="+", metavar="MESH", help=".glb, .gltf, .obj, .ply, or a folder")
    parser.add_argument("--out", type=Path, required=True, help="the split to write, such as OUT_train")
    parser.add_argument("--views", type=int, default=50, help="views per mesh")
    parser.add_argument("--resolution", type=int, default=128, help="side of the images, pixels")
    parser.add_argument(
        "--cameras", choices=list(CAMERAS), default="sphere", help="random on the sphere, or along SRN's test spiral"
    )
    parser.add_argument("--up", choices=["y", "z"], default="y", help="the meshes' upward axis")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    options = vars(parser.parse_args(arguments))
    try:
        split = ensure_meshes(options.pop("out"), options.pop("meshes"), **options)
        print(f"Finished: {counted(len(split.subjects), 'scene')} in {split.folder}")
    except KeyboardInterrupt:
        print("\nInterrupted: the same command draws the rest.", file=sys.stderr)
        raise


if __name__ == "__main__":
    run_program(main)
