"""A long run holds no more files, threads, processes and memory at its end than before, and uses no network."""

import ctypes
import gc
import itertools
import json
import os
import sys
import threading
from pathlib import Path
from statistics import median

from tests.ranks import on_ranks
from tests.small_training import BATCH, kimg, small_run, train
from training import training_loop


def resident_bytes() -> int:
    """Of this process, without memory that it has freed and keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def a_long_run(rank: int, cars: str, folder: Path, updates: int, every: int) -> None:
    """Trains, with no way to a network; saves, and writes down what the process holds, every so many updates."""
    attempts: list[str] = []

    def watch(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            attempts.append(f"{event} {arguments[1:]}")
            raise OSError("no network")

    sys.addaudithook(watch)
    step, held = training_loop.update_weights, []

    def watched(state, *args) -> None:
        step(state, *args)
        if state.cur_nimg % (every * BATCH) == 0:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            held.append([len(os.listdir("/proc/self/fd")), threading.active_count(), len(children), resident_bytes()])

    training_loop.update_weights = watched
    train(small_run(cars, updates, kimg_per_tick=kimg(every), state_ticks=1, snapshot_ticks=2), folder / "run")
    (folder / "held.json").write_text(json.dumps({"held": held, "attempts": attempts}))


def growth(values: list[int]) -> int:
    """From the first half to the second, by the least of each: a file that happens to be open counts in neither."""
    half = len(values) // 2
    return min(values[half:]) - min(values[:half])


def test_a_long_run_holds_no_more_and_uses_no_network(cars, tmp_path, every_fault):
    updates, every = (2000, 25) if every_fault else (40, 4)
    on_ranks(a_long_run, str(cars), tmp_path, updates, every, world_size=1)
    result = json.loads((tmp_path / "held.json").read_text())
    assert result["attempts"] == []
    files, threads, children, memory = map(list, zip(*result["held"][2:], strict=True))
    assert len(files) >= 8 and [growth(files), growth(threads), growth(children)] == [0, 0, 0], result["held"]
    if every_fault:  # a leak grows all the time; memory that the allocator takes at once does not
        quarters = [min(memory[start : start + 10]) for start in range(len(memory) - 40, len(memory), 10)]
        grown = median(after - before for before, after in itertools.pairwise(quarters))
        assert grown < 2**18, f"{grown / 2**20:.1f} MB in 250 updates"
