"""A snapshot of the unofficial implementation as one of ours: `python -m genvs.compat.convert IN.pkl OUT.pkl`."""

from __future__ import annotations

from collections.abc import Sequence

from genvs.errors import run_program
from genvs.snapshot import load_snapshot, rewriting_parser, save_new_snapshot


def main(arguments: Sequence[str] | None = None) -> None:
    parser = rewriting_parser(
        "genvs.compat.convert",
        "Write the network in IN, a network-snapshot-*.pkl or training-state-*.pt of the unofficial implementation, to "
        "OUT in our format. It keeps its numerics; inference/inference.sh --ckpt_path and train.py --transfer take it.",
    )
    parser.add_argument("--near", type=float, help="near depth plane that it was trained with, world units [0.8]")
    parser.add_argument("--far", type=float, help="far depth plane that it was trained with, world units [1.8]")
    options = parser.parse_args(arguments)
    net = load_snapshot(options.source, near=options.near, far=options.far)
    save_new_snapshot(options.target, net.config, net.state_dict(), **net.notes, converted_from=options.source.name)
    print(f"Wrote {options.target}: {net.config.resolution} pixels, numerics={net.config.numerics}")


if __name__ == "__main__":
    run_program(main)
