"""What every benchmark shares: its command line, precisions, timing, and the JSON file that `report` reads."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import gc
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import torch

from genvs import files
from genvs.config import PRESETS
from genvs.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("bf16", "tf32", "fp32")
PLAIN, REFERENCE = "plain path in strict fp32", "reference in this process"  # baselines
LESS_IS_BETTER = ("ms", "s", "GB", "% of the time", "% of what a seed changes")
MIN_REPEATS, MAX_REPEATS = 5, 200

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes moved."""

    operations: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def __mul__(self, factor: float) -> Work:
        return Work(self.operations * factor, self.bytes * factor)

    def seconds(self, rate: float, bandwidth: float) -> float:
        """The shortest time possible: `rate` in operations/s, `bandwidth` in bytes/s."""
        return max(self.operations / rate, self.bytes / bandwidth)


@dataclass(frozen=True)
class Result:
    """One measured figure.

    name: what was measured, a key of `reference_figures.json` if there is a goal. unit: of value; for those in
    LESS_IS_BETTER less is better, for others more. spread: (90th - 10th percentile) / median of its repetitions.
    work: per item (the image of "images/s", the call that took "ms"). baseline: the slow way, measured in the same
    process, in the same unit; baseline_name: which one. curves: numbers behind the figure.
    """

    name: str
    value: float
    unit: str
    precision: str = ""
    batch: int = 1
    spread: float | None = None
    work: Work | None = None
    baseline: float | None = None
    baseline_name: str = ""
    note: str = ""
    curves: dict[str, list[float]] | None = None

    def beside(self, baseline: float, name: str) -> Result:
        """The same, with a baseline."""
        return dataclasses.replace(self, baseline=baseline, baseline_name=name)

    @property
    def line(self) -> str:
        parts = [f"{self.name}: {self.value:.4g} {self.unit}"]
        if self.spread is not None:
            parts.append(f"+-{self.spread:.1%}")
        if self.precision:
            parts.append(f"[{self.precision}, batch {self.batch}]")
        if self.baseline is not None:
            parts.append(f"{self.gain(self.baseline):.2f}x the {self.baseline_name} ({self.baseline:.4g})")
        return " ".join([*parts, self.note])

    def gain(self, other: float) -> float:
        """How many times better this is than `other`, in the same unit."""
        better, worse = (other, self.value) if self.unit in LESS_IS_BETTER else (self.value, other)
        return better / worse if worse else math.inf


class Timing(NamedTuple):
    """Seconds per call: the median, and the spread (90th - 10th percentile) as a share of it."""

    seconds: float
    spread: float


def benchmark(name: str, device: str | None = None) -> Callable[[Callable[..., Iterator[Result]]], click.Command]:
    """Makes a click command of a generator of results `function(preset, meter, **options)`. device: if not the GPU.

    Each result is printed, and the file --out rewritten, at once: what was measured survives a failure.
    """

    def make(function: Callable[..., Iterator[Result]]) -> click.Command:
        @click.command(name, help=function.__doc__, context_settings={"max_content_width": 110, "show_default": True})
        @click.option("--preset", type=click.Choice(list(PRESETS)), show_default="srn128 with a GPU, else cpu-demo")
        @click.option("--seconds", type=float, default=1.0, help="How long each thing is measured.")
        @click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A JSON file for the results.")
        @functools.wraps(function)
        def command(preset: str | None, seconds: float, out: Path | None, **options) -> None:
            there = "cuda" if torch.cuda.is_available() else "cpu"
            meter = Meter(torch.device(device or there), seconds)
            preset = preset or ("srn128" if meter.on_gpu else "cpu-demo")
            check_writable(out)
            record = {"benchmark": name, "preset": preset, **environment(meter.device), "results": []}
            for result in function(preset=preset, meter=meter, **options):
                print(result.line, flush=True)
                record["results"].append(dataclasses.asdict(result))
                if out is not None:
                    files.write_atomic(json.dumps(record, indent=1) + "\n", out)

        return command

    return make


def check_writable(file: Path | None) -> None:
    """Raise InputError, before anything is measured, if a file could not be written. None always could."""
    if file is not None and not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        raise InputError(f"{file}: its folder does not exist or cannot be written: make it, or choose another")


def environment(device: torch.device) -> dict[str, Any]:
    """What ran, on which device, with which versions. COMMIT of the environment names a copy without .git."""
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


@dataclass(frozen=True)
class Meter:
    """Measures on `device`, each thing for about `seconds`."""

    device: torch.device
    seconds: float

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def precision(self, wanted: str) -> str:
        """`wanted`, or fp32 on a CPU, where everything runs in it."""
        return wanted if self.on_gpu else "fp32"

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def time(self, call: Callable[[], Any], warmup: int = 3) -> Timing:
        """Time `call` by device events (on a CPU by the clock), after `warmup` calls (a CPU needs one)."""
        for _ in range(warmup if self.on_gpu else 1):
            call()
        self.synchronize()
        start = time.perf_counter()
        call()
        self.synchronize()
        repeats = int(self.seconds / max(time.perf_counter() - start, 1e-9))
        repeats = min(max(repeats, MIN_REPEATS), MAX_REPEATS)
        return summarize(_event_times(call, repeats) if self.on_gpu else [clock(call) for _ in range(repeats)])

    def start_memory_peak(self) -> None:
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory_peak(self) -> float:
        """GB (2^30 bytes) that tensors took at once since `start_memory_peak`, on a GPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30


def _event_times(call: Callable[[], Any], repeats: int) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(second) / 1e3 for first, second in itertools.pairwise(marks)]


def clock(call: Callable[[], Any]) -> float:
    """Seconds that a call takes the host."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summarize(samples: Sequence[float]) -> Timing:
    """Median and spread of at least two times, in seconds."""
    deciles = statistics.quantiles(samples, n=10, method="inclusive")
    median = statistics.median(samples)
    return Timing(median, (deciles[-1] - deciles[0]) / median)


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


def autocast(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def rotating(function: Callable[[T], Any], sets: Sequence[T]) -> Callable[[], Any]:
    """A call of `function` on each of `sets` in turn, so that no call finds its inputs in the cache."""
    turn = itertools.cycle(sets)
    return lambda: function(next(turn))


def adapter_function(folder: Path, name: str) -> Callable[..., Callable[[], Any]]:
    """A function of `folder/adapter.py`, which may import what lies beside it (see benchmarks/README.md).

    Raises InputError if there is none.
    """
    path = folder / "adapter.py"
    if not path.is_file():
        raise InputError(f"--reference={folder}: has no adapter.py: write one as benchmarks/README.md says")
    sys.path.insert(0, str(folder.resolve()))
    module = runpy.run_path(str(path))
    if name not in module:
        raise InputError(f"{path}: has no function {name}: write it as benchmarks/README.md says")
    return module[name]
