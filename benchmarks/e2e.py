"""Training as a user starts it: ./train.sh on a dataset on disk, loader, loss, optimizer, logging and all."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.common import ON_GPU, PRECISIONS, ROOT, Result, benchmark, size_option, sizes
from benchmarks.model import data_option, dataset
from training.config import TRAIN_PRESETS

RECORDS = 10


def train(
    data: Path, preset: str, *options: str, batch: int, updates: int, **variables: str
) -> tuple[float, list[dict]]:
    """Run ./train.sh for `updates` updates of `batch` images over all processes, recorded RECORDS times.

    options: more of train.py's. variables: of the environment, besides this process's own; NGPU is 1 unless given.
    Returns the seconds from the start to the first record, and the records. Raises ClickException if the run fails.
    """
    kimg = batch * updates / 1000
    every = max(kimg / RECORDS, batch / 1000)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        stats, output = Path(folder, "stats.jsonl"), Path(folder, "output.txt")
        command = [str(ROOT / "train.sh"), "--preset", preset, "--data", str(data), "--outdir", folder, "--nosubdir"]
        command += ["--logger=none", f"--batch={batch}", f"--kimg={kimg:.9g}", f"--tick={every:.9g}"]
        command += [f"--log_freq={every * 1000:.9g}", *options]
        environment, start = {**os.environ, "NGPU": "1", **variables}, time.perf_counter()
        with (
            output.open("w") as file,
            subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT) as process,
        ):
            while process.poll() is None and not (stats.exists() and stats.stat().st_size):
                time.sleep(0.02)
            first_step = time.perf_counter() - start
        if process.returncode != 0:
            tail = "\n".join(output.read_text().splitlines()[-20:])
            raise click.ClickException(f"{' '.join(command)} ended with code {process.returncode}:\n{tail}")
        return first_step, [json.loads(line) for line in stats.read_text().splitlines()]


def settled(records: list[dict]) -> list[dict]:
    """The later half of training's records: compilation and warm-up lie before. An evaluation's own record repeats the
    number of images, and is left out."""
    seen = [0, *(record["nimg"] for record in records)]
    advancing = [record for record, before in zip(records, seen, strict=False) if record["nimg"] > before]
    return advancing[len(advancing) // 2 :]


def images_per_second(records: list[dict]) -> float:
    """Images/s from the first of these records to the last."""
    first, last = records[0], records[-1]
    return (last["nimg"] - first["nimg"]) / (last["time"] - first["time"])


@benchmark
@data_option
@click.argument("options", nargs=-1, metavar="[-- OPTIONS]")
@sizes("--gpus", type=click.IntRange(min=1), multiple=True, default=(1,), help="How many; may be given several times.")
@sizes("--batch", type=click.IntRange(min=1), help="Images of an update per GPU.", show_default="the preset's")
@size_option("updates", 100, 8, "Length of a run, updates.", least=4)
def main(
    preset: str,
    data: Path | None,
    options: tuple[str, ...],
    gpus: tuple[int, ...],
    batch: int | None,
    updates: int,
) -> Iterator[Result]:
    """images/s of the second half of a short ./train.sh with train.py's OPTIONS, and how long it waited for data.

    Given several numbers of GPUs (on a CPU, of processes), it also measures weak scaling: each keeps its batch, and
    the rate is a share of the first run's rate per GPU times the number of GPUs.
    """
    each, alone = batch or TRAIN_PRESETS[preset].batch_size, 0.0
    note = " ".join((f"{updates} updates", *options))
    with dataset(data, preset, scenes=64 if ON_GPU else 8, val_scenes=2) as path:
        for count in gpus:
            _, records = train(path, preset, *options, batch=count * each, updates=updates, NGPU=str(count))
            late = settled(records)
            several = "" if count == 1 else f", {count} {'GPUs' if ON_GPU else 'processes'}"
            rate = images_per_second(late)
            yield Result(f"end to end{several}", rate, "images/s", PRECISIONS[0], each, note=note)
            wait = 100 * statistics.mean(record["Timing/data_wait"] for record in late)
            yield Result(f"end to end{several}: waits for data", wait, "% of the time", PRECISIONS[0], each)
            alone = alone or rate / count
            if count != gpus[0]:
                share = 100 * rate / (count * alone)
                yield Result(f"weak scaling{several}", share, f"% of {gpus[0]} alone", PRECISIONS[0], each)
