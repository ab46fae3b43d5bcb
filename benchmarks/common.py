"""What every benchmark shares: its command line, timing, and the JSON file that `report` reads."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import gc
import inspect
import itertools
import json
import math
import os
import platform
import runpy
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

from dnnlib.command import run_command
from genvs import files
from genvs.config import PRESETS
from genvs.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PRECISIONS = ("bf16", "tf32", "fp32") if ON_GPU else ("fp32",)  # the first is train.sh's default
PLAIN, REFERENCE = "plain path in strict fp32", "reference in this process"  # baselines
LESS_IS_BETTER = ("ms", "s", "GB", "% of the time", "% of what a seed changes")
MIN_REPEATS, MAX_REPEATS = 5, 200

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """One measured figure.

    name: what was measured, a key of `reference_figures.json` if there is a goal. unit: of value; for those in
    LESS_IS_BETTER less is better, for others more. spread: (90th - 10th percentile) / median of its repetitions.
    floor: the shortest time in seconds that an H200 needs for one item (the image of "images/s", the call that took
    "ms"). baseline: the slow way, measured in the same process and unit. curves: numbers behind the figure.
    """

    name: str
    value: float
    unit: str
    precision: str = ""
    batch: int = 1
    spread: float | None = None
    floor: float | None = None
    baseline: float | None = None
    baseline_name: str = ""
    note: str = ""
    curves: dict[str, list[float]] | None = None

    @property
    def figure(self) -> str:
        return f"{self.value:.4g} {self.unit}" + (f" ±{self.spread:.1%}" if self.spread is not None else "")

    @property
    def line(self) -> str:
        parts = [f"{self.name}: {self.figure}"]
        if self.precision:
            parts.append(f"[{self.precision}, batch {self.batch}]")
        if self.baseline is not None:
            parts.append(f"{self.gain(self.baseline):.2f}x the {self.baseline_name} ({self.baseline:.4g})")
        return " ".join([*parts, self.note])

    def gain(self, other: float) -> float:
        """Returns how many times better this is than `other`, in the same unit."""
        better, worse = (other, self.value) if self.unit in LESS_IS_BETTER else (self.value, other)
        return better / worse if worse else math.inf


class OutputFile(click.Path):
    """A file to write, refused before anything is measured if its folder is missing or cannot be written."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.access(Path(value).absolute().parent, os.W_OK | os.X_OK):
            self.fail(f"{value}: its folder is missing or cannot be written: make it, or choose another", param, ctx)
        return super().convert(value, param, ctx)


def size_option(name: str, gpu: Any, cpu: Any, help: str, least: int = 1, **options: Any) -> Callable:
    """An option for a number (with `multiple`, for several), with one default on a GPU and another on a CPU."""
    kind = click.IntRange(min=least)
    return click.option(f"--{name}", type=kind, default=gpu if ON_GPU else cpu, help=help, **options)


views_option = size_option("views", 2, 2, "Input views of a scene.")
precision_option = click.option(
    "--precision", type=click.Choice(PRECISIONS), default=PRECISIONS[0], help="fp32 is strict."
)
reference_option = click.option(
    "--reference", type=click.Path(path_type=Path), help="Folder of an adapter.py (benchmarks/README.md)."
)


def benchmark(device: torch.device = DEVICE) -> Callable[[Callable[..., Iterator[Result]]], click.Command]:
    """Makes a program of a generator of results, `function(preset, seconds, **options)`, named as its file.

    Each result is printed, and the file --out rewritten, at once: what was measured survives a failure. The program
    runs if its file does (`python -m`), so it comes last there.
    """

    def make(function: Callable[..., Iterator[Result]]) -> click.Command:
        name = Path(inspect.getfile(function)).stem

        @click.command(name, help=function.__doc__, context_settings={"max_content_width": 110, "show_default": True})
        @click.option("--preset", type=click.Choice(list(PRESETS)), default="srn128" if ON_GPU else "cpu-demo")
        @click.option("--seconds", type=float, default=1.0, help="How long each thing is measured.")
        @click.option("--out", type=OutputFile(), help="A JSON file for the results.")
        @functools.wraps(function)
        def command(preset: str, seconds: float, out: Path | None, **options) -> None:
            record = {"benchmark": name, "preset": preset, **environment(device), "results": []}
            for result in function(preset=preset, seconds=seconds, **options):
                print(result.line, flush=True)
                record["results"].append(dataclasses.asdict(result))
                if out is not None:
                    files.write_atomic(json.dumps(record, indent=1) + "\n", out)

        if function.__module__ == "__main__":
            run_command(command)
        return command

    return make


def environment(device: torch.device) -> dict[str, Any]:
    """What ran, on which device, with which versions. The variable COMMIT names the commit of a copy without .git."""
    git = subprocess.run("git describe --always --dirty", shell=True, cwd=ROOT, capture_output=True, text=True)
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "torch": torch.__version__,
        "commit": os.environ.get("COMMIT") or git.stdout.strip() or "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def timed(call: Callable[[], Any], seconds: float, warmup: int = 3) -> tuple[float, float]:
    """Returns the median seconds of `call` and their spread, after `warmup` calls (a CPU needs one).

    It is repeated for about `seconds`, timed by a GPU's events, or on a CPU by the clock.
    """
    for _ in range(warmup if ON_GPU else 1):
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
    """`blank` with the rate of a call that makes a batch and, on a GPU, with the peak memory."""
    call()  # compiles and records, which takes memory of its own
    start_memory_peak()
    took, spread = timed(call, seconds)
    yield replace(blank, value=blank.batch / took, spread=spread)
    if ON_GPU:
        yield replace(
            blank, name=f"{blank.name}: peak memory", value=memory_peak(), unit="GB", floor=None, baseline=None
        )


def clock(call: Callable[[], Any]) -> float:
    """Seconds that a call takes, with the work that it leaves to the GPU."""
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def summarize(samples: Sequence[float]) -> tuple[float, float]:
    """Median of at least two times, and the spread (90th - 10th percentile) as a share of it."""
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    median = statistics.median(samples)
    return median, (deciles[-1] - deciles[0]) / median


def synchronize() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def start_memory_peak() -> None:
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_peak() -> float:
    """GB (2^30 bytes) that tensors took at once since `start_memory_peak`, on a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Inside, products of float32 numbers are strict for "fp32", and may use TF32 otherwise."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


def rotating(function: Callable[[T], Any], sets: Sequence[T]) -> Callable[[], Any]:
    """A call of `function` on each of `sets` in turn, so that no call finds its inputs in the cache."""
    turn = itertools.cycle(sets)
    return lambda: function(next(turn))


def adapter_function(folder: Path, name: str) -> Callable[..., Callable[[], Any]]:
    """A function of `folder/adapter.py`, which may import what lies beside it (see benchmarks/README.md)."""
    path = folder / "adapter.py"
    if not path.is_file():
        raise InputError(f"--reference={folder}: has no adapter.py: write one as benchmarks/README.md says")
    sys.path.insert(0, str(folder.resolve()))
    module = runpy.run_path(str(path))
    if name not in module:
        raise InputError(f"{path}: has no function {name}: write it as benchmarks/README.md says")
    return module[name]
