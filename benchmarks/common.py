"""What every benchmark shares: its options, its timing, and the table that it prints."""

import contextlib
import datetime
import functools
import gc
import itertools
import json
import math
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import numpy as np
import torch
from torch.utils.benchmark import timer

from dnnlib.command import Command, FiniteRange, option_group, run_command
from genvs.config import PRESETS

ROOT = Path(__file__).resolve().parents[1]
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PRECISIONS = ("bf16", "tf32", "fp32") if ON_GPU else ("fp32",)  # the first is train.sh's default
LESS_IS_BETTER = ("ms", "s", "GB", "% of the time", "% of what a seed changes")
WARM_UP, MIN_REPEATS, MAX_REPEATS = (3, 5, 200) if ON_GPU else (1, 2, 200)
PUBLISHED = json.loads(Path(__file__).with_name("reference_figures.json").read_text())
COLUMNS = ("what", "figure", "of the reference", "of the floor", "goal", "precision", "batch")

T = TypeVar("T")


class Result(NamedTuple):
    """One measured figure.

    name: what was measured, a key of `reference_figures.json` if there is a goal. unit: of value; for those in
    LESS_IS_BETTER less is better, for others more. spread: (90th - 10th percentile) / median of its repetitions.
    floor: the shortest time in seconds that an H200 needs for one item (the image of "images/s", the call that took
    "ms").
    """

    name: str
    value: float
    unit: str
    precision: str = ""
    batch: int = 1
    spread: float | None = None
    floor: float | None = None
    note: str = ""

    def gain(self, other: float) -> float:
        """Returns how many times better this is than `other`, in the same unit."""
        better, worse = (other, self.value) if self.unit in LESS_IS_BETTER else (self.value, other)
        return better / worse if worse else math.inf

    def row(self, preset: str, device: str) -> str:
        """A row of the table. Published figures and goals hold for their own device, preset and batch alone."""
        published, ratio, share, goal = {}, "", "", ""
        same_device = device == PUBLISHED["device"]
        if same_device and preset == PUBLISHED["preset"]:
            published = PUBLISHED["figures"].get(self.name, {})
        if published.get("batch", self.batch) != self.batch:
            published = {}
        if "reference" in published:
            ratio = f"{self.gain(published['reference']):.2f}x"
        if "goal" in published:
            sign, met = "<=" if self.unit in LESS_IS_BETTER else ">=", self.gain(published["goal"]) >= 1
            goal = f"{sign} {published['goal']:g} {self.unit}: {'met' if met else 'missed'}"
        if same_device and self.floor is not None:
            took = self.value / 1e3 if self.unit == "ms" else 1 / self.value
            share = f"{self.floor / took:.0%}"
        what = self.name + (f" ({self.note})" if self.note else "")
        figure = f"{self.value:.4g} {self.unit}" + (f" ±{self.spread:.1%}" if self.spread is not None else "")
        return f"| {' | '.join((what, figure, ratio, share, goal, self.precision, str(self.batch)))} |"


sizes, measuring = option_group("Sizes"), option_group("Measuring")


def size_option(name: str, gpu: Any, cpu: Any, help: str, least: int = 1) -> Callable:
    """An option for a number, with one default on a GPU and another on a CPU."""
    return sizes(f"--{name}", type=click.IntRange(min=least), default=gpu if ON_GPU else cpu, help=help)


views_option = size_option("views", 2, 2, "Input views of a scene.")
seconds_option = measuring("--seconds", type=FiniteRange(min=0), default=1.0, help="How long each thing is measured.")
precision_option = measuring(
    "--precision", type=click.Choice(PRECISIONS), default=PRECISIONS[0], help="Of matrix products; fp32 is strict."
)


def benchmark(function: Callable[..., Iterator[Result]]) -> click.Command:
    """Makes a program of a generator of results, `function(preset, **options)`.

    It prints a table in Markdown to stdout, each row at once: what was measured survives a failure. The program runs if
    its file does (`python -m`), so it comes last there.
    """

    @click.command(cls=Command, help=function.__doc__)
    @sizes("--preset", type=click.Choice(list(PRESETS)), default="srn128" if ON_GPU else "cpu-demo", help="Model.")
    @functools.wraps(function)
    def command(preset: str, **options) -> None:
        device = torch.cuda.get_device_name(DEVICE) if ON_GPU else f"CPU ({platform.machine()})"
        table, above = sys.stdout, heading(preset, device)
        with contextlib.redirect_stdout(sys.stderr):  # what training prints
            for result in function(preset=preset, **options):
                print(above + result.row(preset, device), file=table, flush=True)
                above = ""

    if function.__module__ == "__main__":
        run_command(command)
    return command


def heading(preset: str, device: str) -> str:
    """What runs, where and when, and the head of the table. COMMIT names the commit of a copy without .git."""
    git = subprocess.run("git describe --always --dirty", shell=True, cwd=ROOT, capture_output=True, text=True)
    commit = os.environ.get("COMMIT") or git.stdout.strip() or "unknown"
    versions = f"torch {torch.__version__}, commit {commit}, {datetime.datetime.now():%Y-%m-%d %H:%M}"
    command = shlex.join([Path(sys.argv[0]).stem, *sys.argv[1:]])
    columns = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"
    return f"\n## {command}\n\nPreset {preset}, {device}, {versions}\n\n{columns}"


def timed(call: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Returns the median seconds of `call` and their spread, after some calls to warm up.

    It is repeated for about `seconds`, timed by a GPU's events, or on a CPU by the clock.
    """
    for _ in range(WARM_UP):
        call()
    repeats = min(max(int(seconds / max(clock(call), 1e-9)), MIN_REPEATS), MAX_REPEATS)
    if not ON_GPU:
        return summarize([clock(call) for _ in range(repeats)])
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    return summarize([first.elapsed_time(second) / 1e3 for first, second in itertools.pairwise(marks)])


def throughput(call: Callable[[], Any], blank: Result, seconds: float) -> Iterator[Result]:
    """The rate of a call that makes a batch and, on a GPU, the memory that torch reserves for it.

    blank: the result without these figures.
    """
    call()  # compiles and records, which takes memory of its own
    if ON_GPU:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    took, spread = timed(call, seconds)
    yield blank._replace(value=blank.batch / took, spread=spread)
    if ON_GPU:
        peak = torch.cuda.max_memory_reserved() / 2**30  # with that of CUDA graphs, unlike max_memory_allocated
        yield blank._replace(name=f"{blank.name}: peak memory", value=peak, unit="GB", floor=None)


def clock(call: Callable[[], Any]) -> float:
    """Seconds that a call takes, with the work that it leaves to the GPU."""
    start = timer()  # waits for the GPU
    call()
    return timer() - start


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a new process, whose memory holds nothing else."""
    # The initializer resets the start method there, so that the function's own processes start as usual.
    context, usual = multiprocessing.get_context("spawn"), (None, True)
    with ProcessPoolExecutor(1, context, multiprocessing.set_start_method, usual) as process:
        return process.submit(function, *arguments).result()


def summarize(samples: Sequence[float]) -> tuple[float, float]:
    """Median, and the spread (90th - 10th percentile) as a share of it."""
    low, median, high = np.quantile(samples, (0.1, 0.5, 0.9))
    return float(median), float((high - low) / median)


def set_precision(precision: str) -> None:
    """From now on float32 matrix products are strict for "fp32", and may use TF32 otherwise."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"


def rotating(function: Callable[[T], Any], sets: Sequence[T]) -> Callable[[], Any]:
    """A call of `function` on each of `sets` in turn, so that no call finds its inputs in the cache."""
    turn = itertools.cycle(sets)
    return lambda: function(next(turn))
