"""Run folders: where they are made, what they record, and which training state a run resumes from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dnnlib.util import Logger
from genvs import files
from genvs.errors import InputError
from training.config import TrainConfig
from training.state import FORMAT, VERSION

OPTIONS_FILE = "training_options.json"


def check_outdir(outdir: str, *, nosubdir: bool) -> None:
    """Raise InputError where no run folder can be made in `outdir`; with nosubdir, where it cannot be one, or is."""
    if nosubdir and Path(outdir, OPTIONS_FILE).exists():
        raise InputError(f"{outdir}: already holds a run: continue it with --resume {outdir}, or choose another")
    root = Path(outdir).absolute()
    existing = next(path for path in [root, *root.parents] if path.exists())
    try:
        tempfile.TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        raise InputError(f"{existing}: cannot be written ({error.strerror}): choose another `outdir`") from None


def new_run_folder(outdir: str, description: str, *, nosubdir: bool) -> Path:
    """Make `outdir/00000-description`, numbered after the runs that are there; with nosubdir, `outdir` itself.

    Raises InputError where the folder cannot be made, or (with nosubdir) already holds a run.
    """
    try:
        if not nosubdir:
            return files.new_numbered_folder(outdir, description)
        Path(outdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename or outdir}: {error.strerror}: choose a writable `outdir`") from None
    check_outdir(outdir, nosubdir=True)  # a run may have begun there meanwhile
    return Path(outdir)


@contextlib.contextmanager
def recorded(run_dir: Path, config: TrainConfig) -> Iterator[None]:
    """Inside, `run_dir` holds the run's options, and keeps what is printed in `log.txt`.

    Raises InputError where another process trains in it already, as far as files can be locked there.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(files.lock(run_dir / ".lock"))
        except BlockingIOError:
            raise InputError(f"{run_dir}: another process trains there: wait for it, or resume another run") from None
        write_options(run_dir, config)
        held.enter_context(Logger(run_dir / "log.txt"))
        yield


def write_options(run_dir: Path, config: TrainConfig) -> None:
    """`training_options.json`: the whole config, for people. What killed runs have left, goes."""
    files.remove_orphans(run_dir)
    files.write_atomic(json.dumps(dataclasses.asdict(config), indent=2) + "\n", run_dir / OPTIONS_FILE)


def find_resume_state(resume: str, outdir: str) -> tuple[Path, dict]:
    """The newest valid training state, and the file that it came from.

    resume: a state file, a run folder, or "newest" for the newest run below `outdir` that has a state. Damaged files
    are named and passed over. Raises InputError where none is left.
    """
    if resume == "newest":
        runs = sorted(Path(outdir).glob("[0-9][0-9][0-9][0-9][0-9]-*"), reverse=True)
        runs = [run for run in [*runs, Path(outdir)] if any(run.glob("training-state-*.pt"))]
        if not runs:
            raise InputError(f"{outdir}: no run with a training-state-*.pt to resume: start one without --resume")
        path = runs[0]
    else:
        path = Path(resume)
    if path.is_file():
        return path, _load_state(path)
    states = sorted(path.glob("training-state-*.pt"), reverse=True)
    for candidate in states:
        try:
            return candidate, _load_state(candidate)
        except InputError as error:
            print(f"Passing over {error}")
    there = "no valid training-state-*.pt in it" if path.is_dir() else "no such file or folder"
    raise InputError(f"{path}: {there}: name a run folder or a state file of a run")


def _load_state(path: Path) -> dict:
    return files.load_format(path, FORMAT, VERSION, "give a training-state-*.pt that train.py wrote")


def records_before(path: Path, cur_nimg: int) -> Iterator[str]:
    """The lines of a `stats.jsonl` that a run resumed at `cur_nimg` keeps; a line cut short by a kill is dropped."""
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            keep = json.loads(line)["nimg"] <= cur_nimg
        except (ValueError, KeyError):
            keep = False
        if keep:
            yield line
