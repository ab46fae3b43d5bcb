"""Run folders: making them, what they hold besides weights, and which training state a run resumes from."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dnnlib.util import logged
from genvs import files
from genvs.errors import InputError
from torch_utils import distributed
from training.config import TrainConfig
from training.state import load_training_state, state_paths

OPTIONS_FILE = "training_options.json"


def check_outdir(outdir: str, *, nosubdir: bool) -> None:
    """Raise InputError if no run folder can be made in `outdir`, or if `outdir` itself (nosubdir) already is one."""
    if nosubdir and Path(outdir, OPTIONS_FILE).exists():
        raise InputError(f"{outdir}: already holds a run: continue it with `resume`={outdir}, or choose another")
    root = Path(outdir).absolute()
    existing = next(path for path in [root, *root.parents] if path.exists())
    try:
        tempfile.TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        raise InputError(f"{existing}: cannot be written ({error.strerror}): choose another `outdir`") from None


def new_run_folder(config: TrainConfig, outdir: str, device: str, words: str | None, *, nosubdir: bool) -> Path:
    """Make `outdir/NNNNN-data-preset-...`, or `outdir` itself (nosubdir). words: added at the end of the name.

    Raises OSError if the folder cannot be made.
    """
    if nosubdir:
        Path(outdir).mkdir(parents=True, exist_ok=True)
        return Path(outdir)
    data = os.path.basename(os.path.normpath(config.data or config.embedded.path)).removesuffix(".zip")
    precision = "fp16" if config.fp16 else "bf16" if config.bf16 and device == "cuda" else "fp32"
    processes = f"{device}{distributed.get_world_size()}"
    parts = [data, config.preset, processes, f"batch{config.batch_size}", precision, *([words] if words else [])]
    return files.new_numbered_folder(outdir, "-".join(parts))


@contextlib.contextmanager
def locked_and_logged(run_dir: Path, config: TrainConfig) -> Iterator[None]:
    """Keep other processes from training in `run_dir`, write the run's options there, and log what is printed.

    Raises InputError if another process trains there already (on file systems that support locks).
    """
    with files.lock(run_dir / ".lock"):
        files.remove_orphans(run_dir)
        files.write_atomic(json.dumps(dataclasses.asdict(config), indent=2) + "\n", run_dir / OPTIONS_FILE)
        with logged(run_dir / "log.txt"):
            yield


def find_resume_state(resume: str, outdir: str) -> tuple[Path, dict]:
    """The file of the newest valid training state, and its content.

    resume: a state file, a run folder, or "newest" for the newest run in `outdir` that has a state. Damaged files are
    named and passed over. Raises InputError if no valid state is left.
    """
    folder = Path(resume)
    if resume == "newest":
        states = list(Path(outdir).glob("[0-9][0-9][0-9][0-9][0-9]-*/training-state-*.pt"))
        folder = max(states).parent if states else Path(outdir)
    if folder.is_file():
        return folder, load_training_state(folder)
    for path in sorted(folder.glob("training-state-*.pt"), reverse=True):
        try:
            return path, load_training_state(path)
        except InputError as error:
            print(f"Passing over {error}", flush=True)
    raise InputError(f"{folder}: no training-state-*.pt there to `resume`: name a run folder or a state file of a run")


def last_line(cur_nimg: int, config: TrainConfig, run_dir: Path) -> str:
    """The last line that a run prints: where its results are, or how to continue it."""
    if cur_nimg >= config.total_nimg:
        return f"Done: the snapshots and logs are in {run_dir}"
    usual, longer = state_paths(run_dir, cur_nimg)
    state = longer if longer.exists() else usual
    return f"Stopped at {cur_nimg / 1000:.6g} kimg. To continue: ./train.sh --resume {state}"
