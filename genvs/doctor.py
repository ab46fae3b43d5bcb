"""What would stop or slow a run on this machine: `python -m genvs.doctor`.

Describe the machine, as plain text for a bug report, then print one line with the fix for each fault.

Until it has found torch it imports only the standard library, so that it runs in any Python.
"""

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from genvs import __version__, machine
from genvs.errors import InputError, as_options, run_program
from genvs.programs import Parser
from genvs.requirements import lacking, requirements

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
STATE_BYTES, RUN_BYTES = 1.65e9, 30e9  # of srn128, the largest preset: one training state, and all that a run writes
BATCH_BYTES = 12e6  # of its default batch, over all GPUs
SETTINGS = ("CUDA_", "IMAGEIO_", "NCCL_", "NGPU", "OMP_", "PYTORCH_", "TORCH_", "TRITON_")  # variables that affect runs
VIEW_STEPS = 5

Line = tuple[str, str]  # of the report: what, and what there is; or STOPS or SLOWS, and a fault with its fix
STOPS, SLOWS = "stops", "slows"


def software() -> Iterator[Line]:
    """The project, the Python, and the packages."""
    commit = ""
    if PYPROJECT.is_file() and shutil.which("git"):
        git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        commit = f", commit {git.stdout.strip() or 'unknown'}"
    yield "genvs", __version__ + commit
    yield "system", platform.platform()
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    for extra, wanted in requirements(PYPROJECT).items():
        there = [name for name in (text.partition(">=")[0] for text in wanted) if has(name)]
        texts = [", ".join(f"{name} {metadata.version(name)}" for name in there)] if there else []
        if missing := ", ".join(lacking(wanted)):
            texts.append(f"lacks {missing}: {install(extra)}")
            if not extra:
                made = ROOT / ".venv" / "bin" / "activate"  # by the scripts
                elsewhere = made.is_file() and Path(sys.prefix) != made.parents[1]
                fix = f"source {made}" if elsewhere else f"{install('')}, or use ./train.sh, which does that"
                yield STOPS, f"this Python lacks {missing}: {fix}"
        yield f"extra {extra}" if extra else "packages", "; ".join(texts)


def has(name: str) -> bool:
    return not lacking([name])


def install(extra: str) -> str:
    extras = f"[{extra}]" if extra else ""
    return f"pip install {'-c constraints.txt -e .' if PYPROJECT.is_file() else 'genvs'}{extras}"


def cores() -> Iterator[Line]:
    """Processors, memory, and the variables that change what a run does with the machine."""
    usable, gpus = machine.usable_cores(), len(drivers_gpus()[1])
    total, load = os.cpu_count() or 1, os.getloadavg()[0]
    yield "cores", f"{usable} of {total}, load {load:.1f}"
    wanted = gpus * (machine.LOADERS + 1)
    if usable < wanted:
        fewer = max(usable // gpus - 1, 0)
        fault = f"{usable} cores are fewer than {wanted}: {machine.LOADERS} loaders and a training process for each GPU"
        yield SLOWS, f"{fault}; give the job more, or set `workers`={fewer}"
    if load > total / 2:
        free = max(total - round(load), 1)
        fault = f"other programs are busy: the load is {load:.1f} on {total} cores"
        done = os.environ.get("OMP_NUM_THREADS") == str(free)
        yield SLOWS, f"{fault}; end them" + ("" if done else f", or without a GPU set OMP_NUM_THREADS={free}")
    yield "memory", gigabytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    variables = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
    yield "variables", " ".join(f"{name}={value}" for name, value in sorted(variables.items())) or "none"
    if machine.is_launched():
        left = " ".join(f"{name}={os.environ[name]}" for name in machine.LAUNCH_VARIABLES)
        fault = f"{left} make a program wait for other processes of a launcher"
        yield STOPS, f"{fault}: unset {' '.join(machine.LAUNCH_VARIABLES)}, or use that launcher"


@functools.cache
def drivers_gpus() -> tuple[str, list[str]]:
    """The version of NVIDIA's driver and the names of its GPUs, as far as they can be known without torch."""
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True).stdout if shutil.which(query[0]) else ""
    lines = [line.split(", ", 1) for line in answer.splitlines() if ", " in line]
    if lines:
        return lines[0][0], [line[1] for line in lines]
    loaded = Path("/proc/driver/nvidia/version")  # in a container without nvidia-smi
    version = re.search(r"\b\d+\.[\d.]+", loaded.read_text()) if loaded.is_file() else None
    return (version[0] if version else ""), [path.name for path in Path("/dev").glob("nvidia[0-9]*")]


def gpus() -> Iterator[Line]:
    """The driver, and what torch can do with the GPUs."""
    import torch

    driver, names = drivers_gpus()
    yield "driver", f"NVIDIA {driver}: {', '.join(names) or 'no GPU'}" if driver else "none by NVIDIA"
    yield "CUDA", torch.version.cuda or "none in this build of torch"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if names and torch.version.cuda is None:
        fault = f"torch {torch.__version__} is a build without CUDA, so that runs do not use the GPU"
        yield STOPS, f"{fault}: pip install --force-reinstall torch, in a build for CUDA that driver {driver} can run"
    elif names and not usable:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f"CUDA_VISIBLE_DEVICES={hidden}" if hidden is not None else "".join(str(w.message) for w in caught)
        fix = "unset it" if hidden is not None else f"update driver {driver}, or install torch for an older CUDA"
        yield STOPS, f"torch cannot use the GPU ({reason.splitlines()[0] if reason else 'no reason given'}): {fix}"
    for number in range(usable):
        free, total = torch.cuda.mem_get_info(number)
        capability = "{}.{}".format(*torch.cuda.get_device_capability(number))
        name = torch.cuda.get_device_name(number)
        yield f"GPU {number}", f"{name}, capability {capability}, {gigabytes(free)} of {gigabytes(total)} free"
        if free < 0.9 * total:
            yield SLOWS, f"GPU {number}: another program uses its memory: end it (nvidia-smi lists it), or choose a GPU"
    yield "Triton", metadata.version("triton") if has("triton") else "none"
    if usable and not has("triton"):
        yield SLOWS, "there is no Triton, so that the fused kernels cannot run: pip install triton"


def memory_and_disk() -> Iterator[Line]:
    """Where loaders leave their batches, and where runs go."""
    free, needed = machine.free_shared_memory(), machine.shared_memory_of_loaders(machine.LOADERS, int(BATCH_BYTES))
    yield "shared memory", f"{free / 1e6:.0f} MB free in {machine.SHARED_MEMORY}"
    if free < needed:
        fault = f"{machine.SHARED_MEMORY} has {free / 1e6:.0f} MB free; the loaders of srn128 use {needed / 1e6:.0f} MB"
        yield SLOWS, f"{fault}, or else pipes, which are slower: give the container more (docker run --shm-size=1g)"
    folder = next((path for path in (ROOT / "training_runs", ROOT) if path.is_dir() and PYPROJECT.is_file()), Path())
    space = shutil.disk_usage(folder)
    yield "disk", f"{gigabytes(space.free)} of {gigabytes(space.total)} free where runs go"
    fix = "make room, or give `outdir` on another disk"
    if not os.access(folder, os.W_OK):
        yield STOPS, f"{folder.resolve()} cannot be written: allow it, or give `outdir` elsewhere"
    elif space.free < RUN_BYTES:
        severity = STOPS if space.free < STATE_BYTES else SLOWS
        yield severity, f"a run of srn128 writes {gigabytes(RUN_BYTES)}, and {gigabytes(space.free)} are free: {fix}"


def videos() -> Iterator[Line]:
    """The encoder of MP4."""
    try:
        yield "ffmpeg", f"with libx264, {machine.find_encoder()}"
    except InputError as error:
        yield "ffmpeg", "none with libx264"
        yield STOPS, str(error)


def clock() -> Iterator[Line]:
    """How long a small network, of random weights, takes to draw one view on the GPU or CPU."""
    try:
        import numpy as np
        import torch

        import genvs
        from genvs.config import PRESETS
        from genvs.geometry.trajectories import orbit

        preset, device = ("demo", "cuda") if torch.cuda.is_available() else ("cpu-demo", "cpu")
        net = genvs.GeNVS(PRESETS[preset]).eval().requires_grad_(False).to_device(torch.device(device))
        given, wanted = orbit(2, net.config.scene.radius).numpy()[:, None]
        image = np.full((1, net.config.resolution, net.config.resolution, 3), 255, np.uint8)
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            genvs.sample_views(net, image, given, wanted, sampler="unipc", steps=VIEW_STEPS, progress=False)
            seconds.append(time.perf_counter() - start)
    except Exception as error:  # of a driver, a compiler, a package: each has its own kinds
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
        yield STOPS, f"a network cannot run ({reason}): if the other lines do not help, report it with this output"
        return
    where = f"preset {preset}, {VIEW_STEPS} steps, {device}, {torch.get_num_threads()} CPU threads"
    yield "one view", f"{min(seconds):.2g} s, the first one {seconds[0]:.2g} s ({where})"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def main() -> None:
    Parser("python -m genvs.doctor", (__doc__ or "\n\n").split("\n\n")[1]).parse_args()
    checks: list[Callable[[], Iterator[Line]]] = [software, cores, memory_and_disk, videos]
    checks += [gpus, clock] if has("torch") else []
    faults: list[Line] = []
    for check in checks:
        for what, text in check():
            if what in (STOPS, SLOWS):
                faults.append((what, text))
            else:
                print(f"{what:14} {text}", flush=True)
    print()
    for what, text in sorted(faults, key=lambda fault: fault[0], reverse=True):
        print(f"{what} a run: {as_options(text)}")
    if not faults:
        print("Nothing would stop or slow a run.")
    sys.exit(any(what == STOPS for what, _ in faults))


if __name__ == "__main__":
    run_program(main)
