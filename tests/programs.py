"""Runs the project's programs in this process, as a shell would."""

from collections.abc import Callable

import click
import pytest

from dnnlib.command import run_command
from genvs.errors import run_program


def exit_code_of(program: click.Command | Callable[[list[str]], None], *arguments: object) -> int:
    words = list(map(str, arguments))
    with pytest.raises(SystemExit) as exited:
        if isinstance(program, click.Command):
            run_command(program, words)
        run_program(lambda: program(words))
    return exited.value.code


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), lines
    return lines[0]
