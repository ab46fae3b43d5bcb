"""A snapshot of the other implementation as one of ours: `python -m genvs.compat.convert IN.pkl OUT.pkl`."""

from __future__ import annotations

import argparse
from pathlib import Path

from genvs.errors import run_program
from genvs.snapshot import load_snapshot, save_new_snapshot


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m genvs.compat.convert",
        description="Write the network in IN, a network-snapshot-*.pkl or training-state-*.pt of theirs, to OUT in our "
        "format. Its numerics stay theirs; inference/inference.sh --ckpt_path and train.py --transfer take it.",
    )
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("target", metavar="OUT", type=Path)
    options = parser.parse_args()
    net = load_snapshot(options.source)
    save_new_snapshot(options.target, net.config, net.state_dict(), converted_from=options.source.name)
    print(f"Wrote {options.target}: {net.config.resolution} pixels, numerics={net.config.numerics}")


if __name__ == "__main__":
    run_program(main)
