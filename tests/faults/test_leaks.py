"""A long run holds no more files, threads, processes and memory at its end than before, and uses no network."""

import ctypes
import gc
import json
import os
import sys
import threading
from pathlib import Path

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


def test_a_long_run_holds_no_more_and_uses_no_network(cars, tmp_path, every_fault):
    updates, every = (2000, 25) if every_fault else (30, 5)
    on_ranks(a_long_run, str(cars), tmp_path, updates, every, world_size=1)
    result = json.loads((tmp_path / "held.json").read_text())
    assert result["attempts"] == []
    counts = [held[:3] for held in result["held"][2:]]
    assert len(counts) >= 4 and all(count == counts[0] for count in counts), counts
    if every_fault:
        grown = result["held"][-1][3] - result["held"][-41][3]
        assert grown < 2**20, f"{grown / 2**20:.1f} MB in 1,000 updates"
