"""A snapshot of the other implementation as one of ours: `python -m genvs.compat.convert IN.pkl OUT.pkl`."""

from __future__ import annotations

from pathlib import Path

import click

from genvs.errors import run_command
from genvs.snapshot import load_snapshot, save_new_snapshot


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
def main(source: Path, target: Path) -> None:
    """Write the network in IN, a network-snapshot-*.pkl or training-state-*.pt of theirs, to OUT in our format.

    Its numerics stay theirs; inference/inference.sh --ckpt_path and train.py --transfer take it.
    """
    net = load_snapshot(source)
    save_new_snapshot(target, net.config, net.state_dict(), converted_from=source.name)
    click.echo(f"Wrote {target}: {net.config.resolution} pixels, numerics={net.config.numerics}")


if __name__ == "__main__":
    run_command(main)
