"""The one exception for input that a person can correct, and how programs end with it."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from typing import NoReturn


class InputError(ValueError):
    """Bad input: one line that names the file or parameter, what is wrong with it, and what to do.

    Parameters are written in backticks, as in "`near`=2: choose less than `far`": command-line programs print the names
    of their options in their place. They print the line without a traceback and exit with code 2.
    """

    def __str__(self) -> str:
        # A loader worker's error arrives with the worker's traceback as its text; the line is its last.
        lines = super().__str__().splitlines()
        return lines[-1].removeprefix(f"{__name__}.InputError: ") if lines else ""


def as_options(line: str) -> str:
    """`line` with an option in place of each parameter in backticks, where options have the names of parameters."""
    return re.sub(r"`(\w+)`", lambda name: "--" + name[1].replace("_", "-"), line)


def run_program(program: Callable[[], object], translate: Callable[[str], str] = as_options) -> NoReturn:
    """Run `program` and exit: 0; 130 when it is interrupted; 2 with one line on stderr for bad input, for files that
    cannot be read or written, and for training that has diverged.

    translate: what to make of the line, which may name parameters in backticks.
    """
    try:
        program()
    except (InputError, FloatingPointError) as error:
        line = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        remedy = "create its folder" if error.errno == errno.ENOENT else "free some space there"
        line = f"{error.filename}: {error.strerror}: {remedy}, or choose a folder that can be written"
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        sys.exit(0)
    print(f"Error: {translate(line)}", file=sys.stderr)
    sys.exit(2)
