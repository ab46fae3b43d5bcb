"""Convert an unofficial snapshot to our own format: `python -m genvs.compat.convert IN.pkl OUT.pkl`."""

import functools

from genvs.errors import run_program
from genvs.snapshot import main

if __name__ == "__main__":
    run_program(functools.partial(main, halve=False))
