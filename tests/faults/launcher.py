"""Runs `train.py` in one or several separate processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.impatient_train import LIMIT, UPDATES
from tests.small_training import fresh_state, save_state
from tests.small_training import records as recorded
from training.config import TrainConfig

PATIENCE = 300  # seconds: the machine may be busy
LOOPBACK = "0100007F"  # as /proc writes 127.0.0.1


def at_start(config: TrainConfig, run_dir: Path) -> Path:
    """Make a run that has not made an update yet."""
    save_state(run_dir, config, fresh_state(config))
    return run_dir


@contextlib.contextmanager
def separate(command: Sequence, **options) -> Iterator[subprocess.Popen]:
    """A process in its own session, which is killed in the end if it has not ended."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **{"cwd": ROOT, **pipes, **options}) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def launched(
    run_dir: Path, *options: str, processes: int = 1, prefix: Sequence[str] = (), **variables: str
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """The run in `run_dir`, resumed by `train.sh` as a `separate` process, with the Python of these tests.

    prefix: a command that runs another one.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "NGPU": str(processes), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*prefix, "./train.sh", "--resume", str(run_dir), *options]
    return separate(command, env={**os.environ, **own, **variables})


@contextlib.contextmanager
def begun(run_dir: Path, *options: str, records: int = 2, **how) -> Iterator[subprocess.Popen]:
    """`launched`, once it has made this many records."""
    with launched(run_dir, *options, **how) as process:
        wait_for(process, lambda: (run_dir / "stats.jsonl").exists() and len(recorded(run_dir)) >= records)
        yield process


def wait_for(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    """Returns when `happened()`, which must be while the process lives and within PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def starting(process: subprocess.Popen) -> None:
    """Returns while the program, a `separate` process, imports torch."""
    wait_for(process, lambda: "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text())


def finished(process: subprocess.Popen, code: int) -> tuple[str, str]:
    """stdout and stderr of a process that ends with this exit code within PATIENCE."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    return out, err


def completed(run_dir: Path, *options: str, code: int = 0, **how) -> tuple[str, str]:
    """`finished`, of a run that is `launched`."""
    with launched(run_dir, *options, **how) as process:
        return finished(process, code)


def lives(pid: int | str) -> bool:
    """Whether a process has not ended. An orphan that has stays listed where no first process reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(process: subprocess.Popen) -> list[int]:
    """Its processes, those of a launcher in the order of their ranks."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def listening(process: subprocess.Popen) -> set[str]:
    """The addresses at which it and its children accept connections, as /proc writes them."""
    files = set()
    for path in (path for pid in (process.pid, *children(process)) for path in Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # it has been closed
            files.add(os.readlink(path))
    tables = [Path(f"/proc/{process.pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for line in "".join(tables).splitlines()]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in files}


def stalled(run_dir: Path, **variables: str) -> None:
    """Asserts that a run of two ranks, of which one is stopped, ends soon after the limit, by a line that names it."""
    command = ["torch_utils/launch.py", "--nproc-per-node=2", "tests/faults/impatient_train.py"]
    options = ["--resume", run_dir, "--duration=1", "--snap=1000000"]
    own = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    with separate([sys.executable, *command, *options], env={**os.environ, **own, **variables}) as process:
        wait_for(process, lambda: (run_dir / "stats.jsonl").exists() and len(recorded(run_dir)) > UPDATES)
        ranks = children(process)
        os.kill(ranks[1], signal.SIGSTOP)
        start = time.monotonic()
        _, err = process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - start
    assert [line for line in err.splitlines() if line.startswith("Error: rank 1 of 2 does not answer (")], err
    assert process.returncode in (1, 137), "of the rank that names the other, or of the other"
    assert LIMIT - 1 < seconds < LIMIT + 15 and not any(map(lives, ranks))
