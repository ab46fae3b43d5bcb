"""What runs need of a machine: cores, shared memory, an encoder of videos, no variables of another launcher.

`python -m genvs.doctor` checks all of it. Imports only the standard library.
"""

import os
import shutil
import subprocess
from pathlib import Path

from genvs.errors import InputError

LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # torchrun sets them for each process
LOADERS = 4  # processes per GPU that read training data, by default
SHARED_MEMORY = Path("/dev/shm")


def is_launched() -> bool:
    """Whether a launcher, such as torchrun, started this process. It sets all of these variables, not just some."""
    return all(name in os.environ for name in LAUNCH_VARIABLES)


def get_local_world_size() -> int:
    """The number of processes on this machine that a launcher has started; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_shared_memory() -> int:
    """The bytes that are free; 0 where there is no shared memory."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0


def shared_memory_of_loaders(workers: int, batch_bytes: int) -> float:
    """Bytes in which this many loaders send their batches: two for each, torch's default, and two in use."""
    return 1.05 * (2 * workers + 2) * batch_bytes


def find_encoder() -> str:
    """The path of an ffmpeg that encodes H.264. Raises InputError where there is none."""
    try:
        import imageio_ffmpeg

        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
        listed = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
        if "libx264" in listed.stdout:
            return ffmpeg
    except (ImportError, RuntimeError, OSError):
        pass
    chosen = os.environ.get("IMAGEIO_FFMPEG_EXE")
    install = "pip install --force-reinstall imageio-ffmpeg"
    remedy = f"correct or unset IMAGEIO_FFMPEG_EXE={chosen}" if chosen else install
    raise InputError(f"an MP4 needs an ffmpeg with libx264, and there is none: {remedy}")
