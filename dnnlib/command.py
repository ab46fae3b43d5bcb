"""What the project's click programs share: how they read options, print their help and end with an error."""

import functools
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from dnnlib import quiet_interrupt
from genvs import __version__
from genvs.errors import InputError, no_such_option, run_program


class Command(click.Command):
    """A click command that accepts both `-` and `_` in option names, has --version, and lists its options by group in
    --help, in 80 columns.
    """

    def __init__(self, *args, **kwargs) -> None:
        settings = {"max_content_width": 80, "show_default": True, **kwargs.get("context_settings", {})}
        kwargs["context_settings"] = {"token_normalize_func": lambda name: name.replace("_", "-"), **settings}
        super().__init__(*args, **kwargs)
        click.version_option(__version__, message="%(version)s")(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            known = [name for parameter in self.get_params(ctx) for name in parameter.opts]
            raise click.UsageError(f"{no_such_option(error.option_name, known)} (--help lists the options)") from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Other"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class Option(click.Option):
    """An option of a group. Booleans and flags are given as `--name`, `--name true` or `--name false`."""

    def __init__(self, *args, group: str, **kwargs) -> None:
        if kwargs.get("is_flag"):
            kwargs = {"default": "false", **kwargs, "type": bool}
        if kwargs.get("type") is bool:
            kwargs = {"metavar": "[BOOL]", **kwargs, "is_flag": False, "flag_value": True}
        super().__init__(*args, **kwargs)
        self.group = group


def option_group(title: str) -> Callable[..., Callable]:
    """A decorator like `click.option`, for options that --help lists under `title`."""
    return functools.partial(click.option, cls=Option, group=title)


class FullPath(click.Path):
    """A path, or several packs with commas between (a.pack,b.pack), made absolute from the working folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("it is empty: give a path, or leave the option out", param, ctx)
        paths = re.split(r"(?<=\.pack),", os.fspath(value))
        return super().convert(",".join(map(os.path.abspath, paths)), param, ctx)


class FiniteRange(click.FloatRange):
    """A number in a range, neither NaN nor infinite, which click's own accepts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number: give one such as 1.5", param, ctx)
        return number


POSITIVE = FiniteRange(min=0, min_open=True)  # a number above 0


class Color(click.ParamType):
    """A colour by name, or its red, green and blue from 0 to 255 with commas between, as a tuple."""

    name = "white|black|R,G,B"
    named = {"white": (255, 255, 255), "black": (0, 0, 0)}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        text = str(value).strip().lower()
        if text in self.named:
            return self.named[text]
        if not re.fullmatch(r"\d{1,3}(,\d{1,3}){2}", text) or max(map(int, text.split(","))) > 255:
            self.fail(f"{value!r} is not a colour: give white, black or R,G,B from 0 to 255", param, ctx)
        return tuple(map(int, text.split(",")))


def run_command(command: click.Command, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a click command and exit, as `genvs.errors.run_program` does."""
    quiet_interrupt.end()

    def program() -> None:
        try:
            command.main(arguments, standalone_mode=False)
        except click.ClickException as error:
            raise InputError(error.format_message()) from None
        except click.Abort:
            raise KeyboardInterrupt from None

    run_program(program, lambda line: named_options(line, command))


def named_options(message: str, command: click.Command | None = None) -> str:
    """`message` with the options of `command` (by default, the running one) in place of parameters in backticks.

    The last part of a dotted name counts: `net.resolution` becomes --resolution. A name without an option only loses
    its backticks.
    """
    if command is None and (context := click.get_current_context(silent=True)):
        command = context.command
    options = {p.name: max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)} if command else {}

    def option(match: re.Match) -> str:
        name = match[1]
        return options.get(name) or options.get(name.rpartition(".")[2]) or name

    return re.sub(r"`([A-Za-z_][\w.]*)`", option, message)
