"""dnnlib: the log."""

import sys
from pathlib import Path

import pytest

from dnnlib.util import logged


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
