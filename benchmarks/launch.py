"""Runs of ./train.sh as a user starts them, watched from outside."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks.common import ROOT
from genvs.data.synthetic.dataset import ensure_dataset
from training.config import TRAIN_PRESETS

POLL_SECONDS = 0.02
RECORDS = 10


@dataclass(frozen=True)
class Run:
    """records: the lines of `stats.jsonl`. first_step: seconds from the start of ./train.sh to the first of them."""

    records: list[dict]
    first_step: float

    @property
    def settled(self) -> list[dict]:
        """The later half of training's records: compilation and warm-up lie before. An evaluation's own record repeats
        the number of images, and is left out."""
        seen = [0, *(record["nimg"] for record in self.records)]
        advancing = [record for record, before in zip(self.records, seen, strict=False) if record["nimg"] > before]
        return advancing[len(advancing) // 2 :]

    @property
    def images_per_second(self) -> float:
        first, last = self.settled[0], self.settled[-1]
        return (last["nimg"] - first["nimg"]) / (last["time"] - first["time"])


def train(data: Path, preset: str, *options: str, batch: int, updates: int, **variables: str) -> Run:
    """Run `./train.sh` on `data` for `updates` updates of `batch` images over all processes, recorded RECORDS times.

    options: more of train.py's. variables: of the environment, besides this process's own; NGPU is 1 unless given.
    Raises ClickException if the run fails.
    """
    kimg = batch * updates / 1000
    every = max(kimg / RECORDS, batch / 1000)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        stats, output = Path(folder, "stats.jsonl"), Path(folder, "output.txt")
        command = [str(ROOT / "train.sh"), "--preset", preset, "--data", str(data), "--outdir", folder, "--nosubdir"]
        command += ["--notensorboard", f"--batch={batch}", f"--kimg={kimg:.9g}", f"--tick={every:.9g}"]
        command += [f"--log_freq={every * 1000:.9g}", *options]
        start, first_step = time.perf_counter(), None
        environment = {**os.environ, "NGPU": "1", **variables}
        with (
            output.open("w") as file,
            subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
        ):
            while process.poll() is None:
                if first_step is None and stats.exists() and stats.stat().st_size > 0:
                    first_step = time.perf_counter() - start
                time.sleep(POLL_SECONDS)
        if process.returncode != 0 or first_step is None:
            tail = "\n".join(output.read_text().splitlines()[-20:])
            raise click.ClickException(f"{' '.join(command)} ended with code {process.returncode}:\n{tail}")
        return Run([json.loads(line) for line in stats.read_text().splitlines()], first_step)


@contextlib.contextmanager
def dataset(data: Path | None, preset: str, scenes: int | None = None, views: int = 24) -> Iterator[Path]:
    """`data`, or else one that is made for the block: like the preset's embedded one, or with fewer `scenes`."""
    if data is not None:
        yield data
        return
    size = TRAIN_PRESETS[preset].embedded
    if scenes is not None:
        size = replace(size, scenes=scenes, views=views, val_scenes=2)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        options = {name: getattr(size, name) for name in ("scenes", "views", "resolution", "val_scenes")}
        ensure_dataset(Path(folder, "cars"), **options, workers=os.cpu_count() or 1)
        yield Path(folder, "cars")


data_option = click.option("--data", type=click.Path(path_type=Path), help="A dataset [default: one made for it].")
