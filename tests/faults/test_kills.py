"""SIGKILL at named points of a write and at random instants: files stay whole, and the run goes on bit for bit."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import genvs
from genvs import files
from tests.conftest import counted
from tests.ranks import on_ranks
from tests.small_training import CPU, fresh_state, kimg, last_state, opened, reporter_of, small_run, train, unequal
from training.config import TrainConfig
from training.run_folder import find_resume_state, locked_and_logged
from training.state import load_training_state, restore, save_training_state
from training.training_loop import training_loop

# Points of a write at which a process can be made to fail. The program itself does not know them.

Action = Callable[[], None]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise OSError(errno.EIO, "Input/output error")


def _half(action: Action) -> Callable[..., None]:
    save = torch.save

    def half(obj: Any, file: Any) -> None:
        whole = io.BytesIO()
        save(obj, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        action()

    return half


def _around(
    call: Callable[..., Any], action: Action, *, before: bool, folder: bool | None = None
) -> Callable[..., Any]:
    """`call` with `action` before or after it. folder: only for a descriptor that is, or is not, that of a folder."""

    def changed(*args: Any, **options: Any) -> Any:
        here = folder is None or stat.S_ISDIR(os.fstat(args[0]).st_mode) == folder
        if here and before:
            action()
        result = call(*args, **options)
        if here and not before:
            action()
        return result

    return changed


def _later(count: int, action: Action) -> Action:
    """`action` at the call of this number, from 0."""
    calls = iter(range(1_000_000))
    return lambda: action() if next(calls) == count else None


POINTS: dict[str, Callable[[Action], tuple[Any, str, Any]]] = {
    "before writing": lambda do: (torch, "save", _around(torch.save, do, before=True)),
    "half written": lambda do: (torch, "save", _half(do)),
    "before fsync": lambda do: (os, "fsync", _around(os.fsync, do, before=True, folder=False)),
    "before replace": lambda do: (os, "replace", _around(os.replace, do, before=True)),
    "before the folder's fsync": lambda do: (os, "fsync", _around(os.fsync, do, before=True, folder=True)),
    "after the folder's fsync": lambda do: (os, "fsync", _around(os.fsync, do, before=False, folder=True)),
    "while removing orphans": lambda do: (Path, "unlink", _around(Path.unlink, do, before=True)),
}


def set_point(name: str, action: Action, count: int = 0) -> None:
    """Does `action` in this process when it reaches the point for this time, counted from 0."""
    owner, attribute, function = POINTS[name](_later(0 if name == "half written" else count, action))
    setattr(owner, attribute, function)


# A run that is killed again and again

LONGEST_LIFE = 0.5  # seconds after the first state


def recipe(cars: str, updates: int) -> TrainConfig:
    """Saves a state after every update, and a snapshot after every third."""
    return small_run(cars, updates, kimg_per_tick=kimg(1), state_ticks=1, snapshot_ticks=3)


def live(config: TrainConfig, run_dir: Path) -> None:
    """One life of a run, as `train.py --resume` has it."""
    state = fresh_state(config)
    with contextlib.suppress(genvs.errors.InputError):  # of the first life, without a state
        path, content = find_resume_state(str(run_dir), "")
        restore(state, content, path)
    with locked_and_logged(run_dir, config), contextlib.redirect_stdout(io.StringIO()):
        training_loop(config, run_dir, opened(config), state, CPU)


def killed(config: TrainConfig, run_dir: Path, point: str | None, chance: random.Random) -> bool:
    """Whether a process that trains was killed, at `point` or some time after it has saved its first state."""
    wait, count = chance.uniform(0, LONGEST_LIFE), chance.randrange(3)
    states = number_of_states(run_dir)
    process = os.fork()
    if process == 0:
        if point:
            set_point(point, kill, count)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        live(config, run_dir)
        os._exit(0)
    if not point:
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while number_of_states(run_dir) == states and os.waitid(os.P_PID, process, ended) is None:
            time.sleep(0.02)
        time.sleep(wait)
        os.kill(process, signal.SIGKILL)
    return os.waitpid(process, 0)[1] == signal.SIGKILL


def faults(run_dir: Path, checked: set[str]) -> list[str]:
    """The files under a final name that are not whole. checked: digests of those that were, which it adds to."""
    found = []
    for path in sorted(run_dir.iterdir()):
        if (content := digest(path)) in checked:
            continue
        try:
            if path.suffix == ".pt":
                load_training_state(path)
            elif path.suffix == ".pkl":
                genvs.load_snapshot(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".jsonl":  # only its last line may be cut short
                assert all(json.loads(line) for line in path.read_text().splitlines()[:-1])
        except (ValueError, OSError, AssertionError) as error:
            found.append(f"{path.name}: {error}")
        else:
            checked.add(content)
    return found


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(run_dir: Path) -> dict[str, str]:
    return {path.name: digest(path) for path in run_dir.glob("training-state-*.pt")}


def number_of_states(run_dir: Path) -> int:
    return len(list(run_dir.glob("training-state-*.pt")))


def killed_again_and_again(rank: int, cars: str, folder: Path, kills: int) -> None:
    """A process that trains, starts itself anew after each kill, and compares the end with a run without kills."""
    chance, run_dir = random.Random(1), folder / "run"
    run_dir.mkdir(parents=True)
    train(recipe(cars, 1), folder / "warm")  # the first update takes seconds, which each process would need anew
    found: list[str] = []
    checked: set[str] = set()
    points: list[str | None] = [*POINTS] * max(1, kills // 20)
    points += [None] * (kills - len(points))
    chance.shuffle(points)
    forever = recipe(cars, 100_000)
    for number, point in enumerate(points):
        (run_dir / f".state.{2**22 + number}.tmp").touch()  # as of a process that is dead; there is something to remove
        before = digests(run_dir)
        if not killed(forever, run_dir, point, chance):
            found.append(f"life {number} was not killed at {point}")
        after = digests(run_dir)
        found += [f"{name} was overwritten" for name in before if after.get(name) != before[name]]
        found += [f"after {point or 'a kill'}: {fault}" for fault in faults(run_dir, checked)]
        for old in sorted(run_dir.glob("training-state-*.pt"))[:-3]:
            old.unlink()  # they would fill the disk
    updates = (last_state(run_dir)["cur_nimg"] if digests(run_dir) else 0) // forever.batch_size + 2
    end = recipe(cars, updates)
    live(end, run_dir)
    found += [f"{path.name} was left" for path in run_dir.glob(".*.tmp")]
    undisturbed = train(dataclasses.replace(end, state_ticks=10**6, snapshot_ticks=10**6), folder / "undisturbed")
    found += [f"{name} differs" for name in unequal(last_state(run_dir), undisturbed)]
    assert found == []


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(cars, tmp_path, every_fault):
    kills = 100 if every_fault else 20
    on_ranks(killed_again_and_again, str(cars), tmp_path, kills, world_size=1)
    counted("kills survived, with the run's end equal bit for bit", kills, kills)


@pytest.mark.parametrize("point", [name for name in POINTS if name not in ("half written", "while removing orphans")])
def test_an_error_at_any_point_of_a_write_ends_the_run_and_names_the_file(cars, started, tmp_path, point, monkeypatch):
    monkeypatch.setattr(torch, "save", torch.save)  # restored afterwards, as are the others
    for module, name in ((os, "fsync"), (os, "replace")):
        monkeypatch.setattr(module, name, getattr(module, name))
    config = small_run(cars, 6, snapshot_ticks=1, state_ticks=1)
    run_dir, state = shutil.copytree(started, tmp_path / "run"), fresh_state(config)
    with pytest.raises(OSError, match="could not be saved: Input/output error: '.*/training-state-"):
        with reporter_of(config, state, run_dir) as reporter:
            set_point(point, fail)
            state.cur_nimg += config.batch_size * 2
            reporter._save(save_training_state)
    _, found = find_resume_state(str(run_dir), "")
    assert found["cur_nimg"] in (0, state.cur_nimg) and not list(run_dir.glob(".*.tmp"))


def test_the_newest_valid_state_wins(started, tmp_path, capsys):
    """By its number, not by its time; whatever else lies there."""
    content = last_state(started)
    valid = tmp_path / "training-state-000010.pt"
    files.save_atomic({**content, "cur_nimg": 10_000}, valid)
    (tmp_path / "training-state-000009.pt").write_bytes(valid.read_bytes())  # newer by its time
    whole = valid.read_bytes()
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 1
    for number, data in {11: b"", 12: whole[:-100], 13: bytes(spoilt), 14: b"PK\3\4"}.items():
        (tmp_path / f"training-state-{number:06d}.pt").write_bytes(data)
    (tmp_path / ".training-state-000015.pt.1.tmp").write_bytes(whole)
    (tmp_path / "training-state-000016.pt.partial").write_bytes(whole)
    path, found = find_resume_state(str(tmp_path), "")
    assert path == valid and found["cur_nimg"] == 10_000
    assert capsys.readouterr().out.count("Passing over") == 4
