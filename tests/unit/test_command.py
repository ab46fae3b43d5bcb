"""How the project's programs read options, group their help and end; and their log."""

import sys
from pathlib import Path

import click
import pytest

from dnnlib.command import Command, FiniteRange, FullPath, named_options, option_group, run_command
from dnnlib.util import logged
from genvs.errors import InputError

data, model = map(option_group, ("Data", "Model"))


def program(main=lambda **options: click.echo(options), **kwargs) -> Command:
    for decorate in (
        data("--in_dir", type=FullPath()),
        data("--normalize", is_flag=True),
        data("--cache", type=bool),
        model("--lr", "learning_rate", type=FiniteRange(min=0)),
        model("-n", "--dry-run", is_flag=True),
    ):
        main = decorate(main)
    return click.command("program", cls=Command, **kwargs)(main)


def parsed(*arguments: str) -> dict:
    return program().make_context("program", list(arguments)).params


def refusal(capsys, *arguments: str, command: Command | None = None) -> str:
    with pytest.raises(SystemExit) as end:
        run_command(command or program(), arguments)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("Error: ") and line.count("\n") == 1
    return line


def test_names_booleans_and_paths_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("--in_dir", "--in-dir"):
        assert Path(parsed(name, "a_b/../x-y")["in_dir"]) == tmp_path / "x-y"
    assert parsed("--dry_run") == parsed("-n") == parsed("--dry-run")
    for arguments, normalize, cache in (
        ([], False, None),
        (["--normalize", "--cache"], True, True),
        (["--normalize", "true", "--cache", "false"], True, False),
        (["--cache=0", "--normalize=no"], False, False),
    ):
        assert (parsed(*arguments)["normalize"], parsed(*arguments)["cache"]) == (normalize, cache)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--normalise"], ["--normalise: did you mean --normalize? (--help"]),
        (["--inn-dir", "x"], ["--inn-dir: did you mean --in_dir? (--help"]),
        (["--wandb"], ["no such option: --wandb (--help"]),
        (["--normalize", "maybe"], ["--normalize", "maybe"]),
        (["--lr", "nan"], ["--lr", "nan"]),
        (["--in_dir="], ["--in_dir", "empty"]),
    ],
)
def test_wrong_options_are_one_line(capsys, arguments, named):
    assert all(name in refusal(capsys, *arguments) for name in named)


def test_messages_name_the_options_of_their_parameters(capsys):
    def main(**options):
        raise InputError("`loss.learning_rate`=0 and `depth`=3: choose more")

    assert "--lr=0 and depth=3" in refusal(capsys, command=program(main))
    assert named_options("`learning_rate`") == "learning_rate"


# The log


def test_a_log_keeps_both_streams_and_the_trace_of_an_error(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "log.txt"
    path.write_text("before\n")
    with pytest.raises(ZeroDivisionError), logged(path):
        print("to stdout")
        assert path.read_text() == "before\nto stdout\n", "each line is in the file at once"
        print("to stderr", file=sys.stderr)
        print("\r 10% of a progress bar", end="")
        kept = sys.stdout
        raise ZeroDivisionError
    print("after", file=kept)
    text = path.read_text()
    assert text.startswith("before\nto stdout\nto stderr\nTraceback") and text.endswith("\nZeroDivisionError\n")
    captured = capsys.readouterr()
    assert captured.out == "to stdout\n\r 10% of a progress barafter\n"
    assert captured.err == "to stderr\n"


def test_names_of_files_in_any_encoding_are_logged(tmp_path: Path) -> None:
    with pytest.raises(KeyError), logged(tmp_path / "log.txt"):
        print("d\udce4ta")
        raise KeyError("d\udce4ta")
    assert (tmp_path / "log.txt").read_text().startswith("d\\udce4ta\nTraceback")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_silences_the_log_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), logged("/dev/full"):
        print("said")
        raise ZeroDivisionError
    assert capsys.readouterr().out == "said\n"
