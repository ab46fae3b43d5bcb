"""The one exception for input that a person can mend, and how command-line programs end with it."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click


class InputError(Exception):
    """Bad input: one line that names the file or option, what is wrong with it, and what to do.

    Command-line programs print it without a traceback and exit with code 2.
    """

    def __str__(self) -> str:
        # A loader worker's error arrives with the worker's traceback as its text; the line is its last.
        lines = super().__str__().splitlines()
        return lines[-1].removeprefix(f"{__name__}.InputError: ") if lines else ""


def checked_by(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """The callback of a click option whose text stays as it is, if it was given and `parse` raises no InputError."""

    def check(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        try:
            if text is not None:
                parse(text)
        except InputError as error:
            raise click.BadParameter(str(error)) from None
        return text

    return check


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit: 0; 130 when it is interrupted; 2 with one line on stderr for bad input, for files
    that cannot be read or written, and for training that has gone wrong."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of dnnlib.quiet_interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command.main(arguments, standalone_mode=False)
    except click.ClickException as error:
        line = error.format_message()
    except (InputError, FloatingPointError) as error:
        line = str(error)
    except OSError as error:
        if error.filename is None:
            raise
        remedy = "make its folder" if error.errno == errno.ENOENT else "make room there"
        line = f"{error.filename}: {error.strerror}: {remedy}, or choose a folder that can be written"
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    else:
        sys.exit(0)
    click.echo(f"Error: {line}", err=True)
    sys.exit(2)
