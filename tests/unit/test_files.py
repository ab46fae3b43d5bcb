"""genvs.files: saving whole or not at all, and loading without running anything."""

import fractions
import os
import pickle
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from genvs import files
from genvs.errors import InputError
from tests.browser import wait_until
from tests.small_training import limited


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state = {"net": {"w": torch.arange(6.0).reshape(2, 3)}, "steps": [1, 2], "name": "x", "lr": 0.5}
    files.save_atomic({"old": 1}, path)
    files.save_atomic(state, path)
    assert names_in(tmp_path) == ["state.pt"]
    loaded = files.load(path)
    assert torch.equal(loaded["net"].pop("w"), state["net"].pop("w"))
    assert loaded == state
    files.write_atomic("é\n", tmp_path / "options.json")
    assert (tmp_path / "options.json").read_bytes() == b"\xc3\xa9\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode), "as readable as any other file"


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync = os.fsync

    def seen_fsync(descriptor: int) -> None:
        fsync(descriptor)
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        events.append(f"{kind} {names_in(tmp_path)}")

    monkeypatch.setattr(os, "fsync", seen_fsync)
    files.save_atomic([1], tmp_path / "a.pt")
    assert events == [f"file ['.a.pt.{os.getpid()}.tmp']", "folder ['a.pt']"]


@pytest.mark.parametrize(
    ("save", "content"), [(files.save_atomic, {"w": torch.zeros(100_000)}), (files.write_atomic, "x" * 200_000)]
)
def test_a_failed_save_names_the_file_and_keeps_the_old_one(tmp_path, save, content) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with limited(100_000), pytest.raises(OSError, match=r"^[^\n]*could not be saved: File too large: '.*/state'$"):
        save(content, path)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["state"]


def test_a_save_to_nowhere_names_the_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "a.pt", tmp_path / ("n" * 300)):
        with pytest.raises(OSError, match=f"could not be saved: .*{path.name}"):
            files.save_atomic({}, path)
    with pytest.raises(AttributeError, match="local object"):  # the caller's mistake is no failure to save
        files.save_atomic(lambda: None, tmp_path / "a.pt")
    assert names_in(tmp_path) == []


class Harmful:
    """Its pickle makes a folder when it is loaded without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that `load` must refuse, by what is wrong with them."""
    good, legacy = folder / "good", folder / "legacy"
    torch.save({"w": torch.arange(1000.0)}, good)
    torch.save({"w": torch.arange(1000.0)}, legacy, _use_new_zipfile_serialization=False)
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(torch.arange(500.0, 600.0).numpy().tobytes())] ^= 1
    contents = {"empty": b"", "cut": content[: len(content) // 2], "cut legacy": legacy.read_bytes()[:-1000]}
    contents |= {"flipped": bytes(flipped), "text": b"<html>404</html>", "pickle": pickle.dumps({"w": [1.0, 2.0]})}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    torch.save({"x": fractions.Fraction(1, 2)}, folder / "class")
    torch.save([Harmful(folder / "canary")], folder / "harmful")
    return {name: folder / name for name in (*contents, "class", "harmful", "absent")} | {"folder": folder}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("absent", "cannot be read (No such file or directory)"),
        ("folder", "cannot be read (Is a directory)"),
        *[
            (case, "is not a file of tensors that torch.save wrote, or is damaged")
            for case in ("empty", "cut", "flipped", "cut legacy", "text", "pickle")
        ],
        ("class", "holds more than tensors and plain containers (fractions.Fraction), which could run code"),
        ("harmful", "holds more than tensors and plain containers (posix.mkdir), which could run code"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, case: str, message: str) -> None:
    path = bad_files(tmp_path)[case]
    with pytest.raises(InputError) as caught:
        files.load(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_any_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    values = torch.arange(50.0)
    files.save_atomic({"w": values}, path)
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(content), size=300):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(position % 8)
        path.write_bytes(damaged)
        try:
            loaded = files.load(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert list(loaded) == ["w"] and torch.equal(loaded["w"], values), f"byte {position} changed the result"


def test_only_what_killed_processes_left_is_removed(tmp_path):
    kept = dict.fromkeys([".notes.tmp", "state.pt.4711.tmp", "training-state-000001.pt"], True)
    kept[".state.pt.4711.tmp"] = False
    for name in kept:
        (tmp_path / name).touch()
    files.remove_orphans(tmp_path)
    assert {name: (tmp_path / name).exists() for name in kept} == kept


def test_folders_made_at_the_same_time_have_numbers_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: files.new_numbered_folder(tmp_path, "run"), range(200)))
    assert sorted(folder.name for folder in made) == [f"{number:05d}-run" for number in range(200)]


def test_who_waits_for_another_process_is_told(tmp_path: Path) -> None:
    hold = "import sys, genvs.files\nwith genvs.files.lock(sys.argv[1]):\n    print(flush=True)\n    input()"
    command = [sys.executable, "-c", hold, str(tmp_path / "x.lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(files.__file__).parents[1]
    ) as holder:
        assert holder.stdout.readline()
        with pytest.warns(UserWarning, match=f"^{tmp_path}: .* waiting until") as told:
            threading.Thread(target=lambda: (wait_until(lambda: len(told)), holder.stdin.close())).start()
            with files.lock(tmp_path / "x.lock", wait=True):
                assert holder.wait(300)  # by the end of its input


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_of_two_files_that_are_written_at_once_the_one_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="^.Errno 28. could not be saved: No space left on device: '.*/inner'$"):
        with files.replacing(tmp_path / "outer"), files.replacing(tmp_path / "inner"):
            Path("/dev/full").write_text("x" * 9)
    assert not names_in(tmp_path)
