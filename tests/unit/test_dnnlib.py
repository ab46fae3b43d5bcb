"""dnnlib: the log, durations and downloads."""

from __future__ import annotations

import functools
import http.server
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dnnlib.util import download, format_time, logged


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (42.4, "42s"),
        (59.6, "1m 00s"),
        (65, "1m 05s"),
        (2 * 3600 + 3 * 60 + 4, "2h 03m 04s"),
        (86399.7, "1d 00h 00m"),
        (26 * 3600 + 3 * 60 + 59, "1d 02h 03m"),
    ],
)
def test_format_time(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_a_log_copies_both_streams_and_appends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.txt"
    path.write_text("before\n")
    with logged(path):
        print("to stdout")
        assert path.read_text() == "before\nto stdout\n", "each line is in the file at once"
        print("to stderr", file=sys.stderr)
        print("\r 10% of a progress bar", end="")
    print("after")
    assert path.read_text() == "before\nto stdout\nto stderr\n"
    captured = capsys.readouterr()
    assert captured.out == "to stdout\n\r 10% of a progress barafter\n"
    assert captured.err == "to stderr\n"


def test_a_stream_kept_from_inside_still_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logged(tmp_path / "log.txt"):
        kept = sys.stdout
    print("late", file=kept)
    assert capsys.readouterr().out == "late\n"
    assert (tmp_path / "log.txt").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_silences_the_log_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), logged("/dev/full"):
        print("said")
        raise ZeroDivisionError
    assert capsys.readouterr().out == "said\n"


def test_a_log_keeps_the_trace_of_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), logged(tmp_path / "log.txt"):
        _ = 1 / 0
    assert "ZeroDivisionError: division by zero" in (tmp_path / "log.txt").read_text()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/cut.bin":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"too short")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of `tmp_path / "www"` on the loopback."""
    (tmp_path / "www").mkdir()
    handler = functools.partial(_Handler, directory=str(tmp_path / "www"))
    with socketserver.TCPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def test_download(server: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "www" / "weights.bin").write_bytes(content)
    download(f"{server}/weights.bin", tmp_path / "cache" / "w.bin")
    assert (tmp_path / "cache" / "w.bin").read_bytes() == content
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["w.bin"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("absent.bin", "404"), ("cut.bin", "9 of 1000 bytes")],
)
def test_failed_download_names_the_reason_and_keeps_the_old_file(
    server: str, tmp_path: Path, name: str, reason: str
) -> None:
    target = tmp_path / "cache" / "w.bin"
    target.parent.mkdir()
    target.write_bytes(b"old")
    with pytest.raises(OSError, match=f"{name} .*{reason}.*{target}"):
        download(f"{server}/{name}", target)
    assert target.read_bytes() == b"old"
    assert [file.name for file in target.parent.iterdir()] == ["w.bin"]


def test_download_without_a_server(tmp_path: Path) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _Handler) as closed:
        port = closed.server_address[1]
    for url, reason in ((f"http://127.0.0.1:{port}/w.bin", "refused"), ("no-url", "unknown url type")):
        with pytest.raises(OSError, match=reason):
            download(url, tmp_path / "w.bin")
    assert list(tmp_path.iterdir()) == []
