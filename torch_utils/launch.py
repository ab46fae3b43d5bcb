"""torchrun that checks options first and ends as its program does:
`python torch_utils/launch.py [torchrun's options] SCRIPT [options]`.

torchrun ends a refused or interrupted run with tracebacks of its own and exit code 1. Here the options of SCRIPT, whose
click command `main` has `--dry-run`, are checked once, before its processes start. The exit code is that of the first
process to fail: of an interrupted run 130, unless it was just complete.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import runpy
import signal
import sys
from pathlib import Path

# The folder of a script comes first on its path, where `distributed` is this package's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from dnnlib.command import run_command

START = 200  # exit code of a check after which the processes start


def pass_on(number: int, frame) -> None:
    """Send a signal to the processes, if there are any yet."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    if not children:
        sys.exit(130)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)


def start_processes(torchrun_options) -> None:
    """Run the processes to their end. Exits as the first one that failed."""
    # How long torchrun waits before it kills processes that it has asked to stop: they may have to save first.
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    # torchrun's own error messages repeat, in a page, what the failing process has said.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # torchrun would end with the signal; the processes know whether there is anything left to interrupt.
    torchrun_options.signals_to_handle = ""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, pass_on)
    try:
        run.run(torchrun_options)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A negative exit code is a signal's number.
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


def main() -> None:
    torchrun_options = run.parse_args(sys.argv[1:])
    sys.argv[0] = torchrun_options.training_script  # for the usage line of --help
    command = runpy.run_path(sys.argv[0])["main"]
    program = command.callback

    def check(dry_run: bool, **options) -> None:
        with contextlib.nullcontext() if dry_run else contextlib.redirect_stdout(io.StringIO()):
            program(dry_run=True, **options)
        if not dry_run:
            sys.exit(START)

    # In a fork, because what is loaded to be checked, on GPUs too, would stay as long as this process.
    child = os.fork()
    if child == 0:
        machines = torchrun_options.nnodes.rpartition(":")[2]
        os.environ["WORLD_SIZE"] = str(int(machines) * int(torchrun_options.nproc_per_node))
        command.callback = check
        run_command(command, torchrun_options.training_script_args)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != START:
        sys.exit(code if code >= 0 else 128 - code)
    start_processes(torchrun_options)


if __name__ == "__main__":
    main()
