"""The one exception for input that a person can correct, and how programs end with it."""

import atexit
import difflib
import errno
import gc
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import NoReturn


class InputError(ValueError):
    """Bad input: one line that names the file or parameter, what is wrong with it, and what to do.

    Parameters are written in backticks, as in "`near`=2: choose less than `far`". Command-line programs print the line
    without a traceback, with the names of their options in place of the parameters, and exit with code 2.
    """

    def __str__(self) -> str:
        # An error in a loader worker arrives with the worker's traceback as its text. The last line is ours.
        lines = super().__str__().splitlines()
        return lines[-1].removeprefix(f"{__name__}.InputError: ") if lines else ""


def as_options(line: str) -> str:
    """`line` with each parameter in backticks replaced by the option of that name."""
    return re.sub(r"`(\w+)`", lambda name: "--" + name[1].replace("_", "-"), line)


def no_such_option(name: str, known: Iterable[str]) -> str:
    """What is wrong with the option `name`, and the known one that was meant, if one is near."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"no such option: {name}" + (f": did you mean {nearest[0]}?" if nearest else "")


def run_program(program: Callable[[], object], translate: Callable[[str], str] = as_options) -> NoReturn:
    """Run `program` and exit with 0, with 130 when it is interrupted, or with 2 and one line on stderr.

    The line is for bad input, files that cannot be read or written, and training that has diverged. `translate`
    replaces parameters in backticks by the names of options. Warnings become lines as well.
    """
    atexit.register(gc.freeze)  # else Python ends by a search for garbage in all of torch, which takes seconds
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a terminal's encoding does not have
    warnings.formatwarning = lambda message, *place: f"Warning: {translate(str(message))}\n"
    try:
        program()
        sys.exit(0)
    except (InputError, FloatingPointError) as error:
        line = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        remedy = "create its folder" if error.errno == errno.ENOENT else "free some space there"
        line = f"{error.filename}: {error.strerror}: {remedy}, or choose a folder that can be written"
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"Error: {translate(line)}", file=sys.stderr)
    sys.exit(2)
