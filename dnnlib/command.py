"""What the project's click programs share: how they end, and how messages of the library name their options."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from genvs.errors import InputError, run_program


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit, as `genvs.errors.run_program` does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of dnnlib.quiet_interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def program() -> None:
        try:
            command.main(arguments, standalone_mode=False)
        except click.ClickException as error:
            raise InputError(error.format_message()) from None
        except click.Abort:
            raise KeyboardInterrupt from None

    run_program(program, lambda line: named_options(line, command))


def named_options(message: str, command: click.Command | None = None) -> str:
    """`message` with the options of `command` (by default the running one) in place of parameters in backticks.

    A parameter is found by its name or, as in `net.resolution`, by the last part of it. One without an option keeps its
    name, without the backticks.
    """
    if command is None and (context := click.get_current_context(silent=True)):
        command = context.command
    options = {p.name: max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)} if command else {}

    def option(match: re.Match) -> str:
        name = match[1]
        return options.get(name) or options.get(name.rpartition(".")[2]) or name

    return re.sub(r"`([A-Za-z_][\w.]*)`", option, message)


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
