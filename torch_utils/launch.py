"""torchrun for the project's programs: `python torch_utils/launch.py [torchrun's options] SCRIPT [options]`.

torchrun ends a refused or interrupted run with its own tracebacks and exit code 1. Here the options of SCRIPT, whose
click command `main` has `--dry-run`, are checked once, before its processes start. Signals are passed on to these, and
the exit code is that of the first one that failed: 130 for an interrupted run, 0 if it had just finished. A run on one
machine listens to no other machine.
"""

import contextlib
import gc
import io
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# The folder of a script comes first on its path, where `distributed` is this package's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
from torch.distributed import TCPStore, run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousInfo, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from dnnlib.command import run_command
from torch_utils import distributed

START = 200  # exit code of a check after which the processes start


def number_of_machines(torchrun_options: Any) -> int:
    return int(torchrun_options.nnodes.rpartition(":")[2])


def check(command: Any, torchrun_options: Any) -> None:
    """Exit with START if the processes can start, else as `command` does for --help, --dry-run and wrong options."""
    distributed.announce(number_of_machines(torchrun_options) * int(torchrun_options.nproc_per_node))
    program = command.callback

    def dry_run(dry_run: bool, **options) -> None:
        with contextlib.nullcontext() if dry_run else contextlib.redirect_stdout(io.StringIO()):
            program(dry_run=True, **options)
        sys.exit(0 if dry_run else START)

    command.callback = dry_run
    run_command(command, torchrun_options.training_script_args)


class OneMachine(StaticTCPRendezvous):
    """The rendezvous of one machine. torchrun's own stores listen on all network interfaces, these on loopback only.

    Each start of the processes (--max-restarts) has a new store: what the last one left there would mislead them.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__("127.0.0.1", master_port=0, rank=0, world_size=1, run_id=run_id, timeout=600)

    def get_backend(self) -> str:
        return "one-machine"

    def next_rendezvous(self) -> RendezvousInfo:
        listener = socket.create_server((self.master_addr, 0))
        self.master_port = listener.getsockname()[1]
        self._store = TCPStore(self.master_addr, self.master_port, is_master=True, master_listen_fd=listener.detach())
        return super().next_rendezvous()


def stay_on_loopback(torchrun_options: Any) -> None:
    """Let nothing of a run on one machine listen on another interface."""
    rendezvous_handler_registry.register("one-machine", lambda parameters: OneMachine(parameters.run_id))
    torchrun_options.standalone = False
    torchrun_options.rdzv_backend, torchrun_options.rdzv_endpoint = "one-machine", "127.0.0.1"
    interface = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))  # "lo0" on macOS
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")


def pass_on(number: int, frame) -> None:
    """Send a signal to the processes, if there are any yet. torchrun offers no list of them."""
    processes = [each for each in gc.get_objects() if type(each) is subprocess.Popen and each.pid]
    if not processes:
        sys.exit(130)
    for process in processes:
        process.send_signal(number)  # does nothing to one that has ended


def main() -> None:
    torchrun_options = run.parse_args(sys.argv[1:])
    sys.argv[0] = torchrun_options.training_script  # for the usage line of --help
    command = runpy.run_path(sys.argv[0])["main"]
    # In a fork, because what is loaded to be checked, on GPUs too, would stay as long as this process.
    child = os.fork()
    if child == 0:
        check(command, torchrun_options)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == START:
        # How long torchrun waits before it kills processes that it has asked to stop: they may have to save first.
        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
        # Restarted processes (--max-restarts) that share the old store would often wait for each other without end.
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
        # torchrun's own error messages repeat, in a page, what the failing process has said.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        # torchrun would end with the signal; the processes know whether there is anything left to interrupt.
        torchrun_options.signals_to_handle = ""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, pass_on)
        if number_of_machines(torchrun_options) == 1:
            stay_on_loopback(torchrun_options)
        try:
            code = run.run(torchrun_options) or 0
        except ChildFailedError as error:
            code = error.get_first_failure()[1].exitcode
        except RendezvousError as error:
            where = torchrun_options.rdzv_endpoint or f"{torchrun_options.master_addr}:{torchrun_options.master_port}"
            print(f"Error: {where}: the machines cannot find each other there ({error})", file=sys.stderr)
            code = 2
    sys.exit(code if code >= 0 else 128 - code)  # a negative one is a signal's number


if __name__ == "__main__":
    main()
