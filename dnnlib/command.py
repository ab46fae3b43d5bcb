"""What the project's click programs share: how they read options, print their help and end with an error."""

from __future__ import annotations

import functools
import math
import os
import re
import signal
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from genvs.errors import InputError, run_program


class Command(click.Command):
    """A click command that takes `-` and `_` alike in option names, and lists its options by group in --help.

    shown_defaults: called with the context, returns the defaults that --help shows for options that have none of their
    own, by parameter name (a preset's, for example).
    """

    def __init__(
        self, *args, shown_defaults: Callable[[click.Context], dict[str, Any]] = lambda context: {}, **kwargs
    ) -> None:
        settings = {
            "max_content_width": 100,
            "show_default": True,
            "token_normalize_func": lambda name: name.replace("_", "-"),
        }
        super().__init__(*args, **{**kwargs, "context_settings": {**settings, **kwargs.get("context_settings", {})}})
        self.shown_defaults = shown_defaults

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        ctx.default_map = {name: _as_given(value) for name, value in self.shown_defaults(ctx).items()}
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _as_given(value: Any) -> str | None:
    """A value as one would give it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if value is None else f"{value:g}" if isinstance(value, float) else str(value)


class Option(click.Option):
    """An option of a group. A boolean one, a flag too, is given as `--name`, `--name true` or `--name false`."""

    def __init__(self, *args, group: str, **kwargs) -> None:
        if kwargs.get("is_flag"):
            kwargs = {"default": False, "show_default": False, **kwargs, "type": bool}
        if kwargs.get("type") is bool:
            kwargs = {"metavar": "[BOOL]", **kwargs, "is_flag": False, "flag_value": True}
        super().__init__(*args, **kwargs)
        self.group = group


def option_group(title: str) -> Callable[..., Callable]:
    """A decorator like `click.option`, for the options that stand under `title` in --help."""
    return functools.partial(click.option, cls=Option, group=title)


class FullPath(click.Path):
    """A path, taken from the working folder where it is relative, and made absolute."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty: give a path, or leave the option out", param, ctx)
        return super().convert(os.path.abspath(value), param, ctx)


class FiniteRange(click.FloatRange):
    """A number in a range; click's own lets NaN and infinity through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number: give one such as 1.5", param, ctx)
        return number


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit, as `genvs.errors.run_program` does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set by dnnlib.quiet_interrupt
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
    """`message` with parameters in backticks replaced by the options of `command` (by default the running one).

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
