"""Trains a small network that is killed again and again, and compares it with one that was not.

    python -m tests.faults.kills CARS FOLDER KILLS SEED

Prints a JSON object: kills, the updates that were made, and what was found to be wrong.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import genvs
from tests.faults.points import POINTS, kill, set_point
from tests.small_training import CPU, fresh_state, kimg, last_state, opened, small_run, train, unequal
from training.config import TrainConfig
from training.run_folder import find_resume_state, locked_and_logged
from training.state import load_training_state, restore
from training.training_loop import training_loop

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


def main(cars: str, folder: Path, kills: int, seed: int) -> dict:
    torch.set_num_threads(1)
    chance, run_dir = random.Random(seed), folder / "run"
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
    return {"kills": kills, "updates": updates, "found": found}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
