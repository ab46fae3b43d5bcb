"""What many scenes cost: seconds until training starts, memory of its process and of its loaders."""

import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.common import Result, benchmark, in_own_process, size_option, sizes
from benchmarks.model import data_option, random_batch, training_config
from genvs.config import PRESETS
from genvs.data.pack_index import PackIndex, mark
from genvs.data.packed import Pack
from training.config import TrainConfig
from training.data import load_batches, open_data, pack_data

LOADERS, BATCHES = 2, 200


def write_packs(folder: Path, preset: str, scenes: int, views: int, packs: int) -> Path:
    """Packs as training makes them, with so many scenes together; only the first scene's views are not all zeros, and
    the zeros take no room on the disk. Returns their folder.
    """
    net = PRESETS[preset]
    shown = random_batch(net, 1, views, 1, seed=0).inputs
    view_names = np.array(["\0".join(f"{view:06d}" for view in range(views)).encode()])
    settings: dict[str, Any] = {"normalize": False, "framing": ("squeeze", (255, 255, 255)), "planes": None}
    settings["depths"] = (net.scene.near, net.scene.far)
    for number, share in enumerate(np.array_split(np.arange(scenes), packs)):
        names = np.array([f"{scene:032x}".encode() for scene in share.tolist()])
        counts, one_list = np.full(len(share), views), np.zeros(len(share), np.int64)
        about = np.array(json.dumps(settings).encode())
        index = PackIndex(about, names, counts, view_names, one_list, np.empty((0, 2))).to_bytes()
        pack = Pack(folder / f"many{number}_train.{net.resolution}px.pack", net.resolution, counts, "", mark(index))
        records = np.zeros(views, pack.record)
        records["c2w"], records["intrinsics"] = shown.cameras.c2w[0], shown.cameras.intrinsics[0]
        with pack.path.open("wb") as file:
            file.write(pack.header + records.tobytes())
            file.seek(pack.index_place)
            file.write(index)
    return folder


def memory(process: int | None = None) -> float:
    """MB of a process that it has written to, and shares with no other."""
    text = Path(f"/proc/{process or 'self'}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"Private_Dirty: +(\d+) kB", text))) / 1024


def measure(config: TrainConfig) -> tuple[float, float, float]:
    """Seconds from opening the data to the first batch; MB that this takes, and that a loader takes while it works."""
    before, start = memory(), time.perf_counter()
    data = open_data(config)
    pack_data(data)
    data.facts()
    batches = load_batches(config, data, 0, torch.device("cpu"))
    next(batches)
    took, grown = time.perf_counter() - start, memory() - before
    loaders = [process.pid for process in multiprocessing.active_children()]
    early = [memory(loader) for loader in loaders]
    for _ in range(BATCHES):
        next(batches)
    return took, grown, max(np.subtract([memory(loader) for loader in loaders], early))


@benchmark
@data_option
@sizes("--scenes", type=click.IntRange(min=1), multiple=True, default=(1000, 10_000, 100_000), help="How many.")
@size_option("packs", 4, 4, "In how many packs they are.")
@size_option("views", 50, 50, "Views of a scene.", least=8)
def main(preset: str, data: Path | None, scenes: tuple[int, ...], packs: int, views: int) -> Iterator[Result]:
    """From `--data` to the first batch, with packs that are there, or with a dataset of your own."""
    for count in scenes if data is None else (0,):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            path = data or write_packs(Path(folder), preset, count, views, packs)
            config = training_config(preset, 8, 2, "fp32", data=str(path), workers=LOADERS)
            took, grown, loader = in_own_process(measure, config)
        name = f"{count} scenes" if count else path.name
        yield Result(f"{name}: start", took, "s")
        yield Result(f"{name}: memory of start", grown, "MB")
        yield Result(f"{name}: growth of a loader", loader, "MB", note=f"{BATCHES} batches")
