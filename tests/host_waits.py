"""Finds, without a GPU, calls that would make the host wait for one: values read back, and constants sent over."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from genvs.config import GeNVSConfig
from genvs.data.types import ViewBatch
from tests.conftest import ROOT
from tests.small_training import BATCH, small_run
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.reporting import Reporter
from training.signals import StopRequest
from training.state import create_state
from training.training_loop import accumulate_gradients, update_ema, update_weights

# Operators that read their result, or its size, back to the host; item() and bool() call the first.
READ_BACK = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim"}
BROUGHT_BACK = {"tolist", "cpu", "numpy", "__array__"}
SENT_OVER = {"tensor", "as_tensor", "new_tensor", "from_numpy", "asarray"}


def _place() -> str:
    """The project's file and line that made the call."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(f"{ROOT}/")]
    ours = [frame for frame in frames if "site-packages" not in frame.filename and frame.filename != __file__]
    return f"{ours[-1].filename.removeprefix(f'{ROOT}/')}:{ours[-1].lineno}"


class _Watch:
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found


class _Operators(_Watch, TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and len(args) > 1 and isinstance(args[1], (list, tuple))
        if name in READ_BACK or by_mask and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.found.append(f"{_place()} {name}")
        return func(*args, **(kwargs or {}))


class _Functions(_Watch, TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, device = getattr(func, "__name__", ""), (kwargs or {}).get("device")
        value = args[-1] if name == "new_tensor" else args[0] if args else None
        # Without a device it stays with the host.
        sent = name in SENT_OVER and not isinstance(value, Tensor) and (name == "new_tensor" or device is not None)
        if sent or name in BROUGHT_BACK:
            self.found.append(f"{_place()} {name}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def host_waits() -> Iterator[list[str]]:
    """The list collects, inside, the places in the project that would wait for a device: "file:line operator"."""
    found: list[str] = []
    with _Functions(found), _Operators(found):
        yield found


@contextlib.contextmanager
def loop_steps(run_dir: Path, device: torch.device, batches: Iterator[ViewBatch], **changes) -> Iterator[dict]:
    """The parts of an update in the training loop, by name and in order. Only the last, "record", records anything."""
    config = small_run("nowhere", 100, log_kimg=1000.0, kimg_per_tick=1000.0, **changes)
    state = create_state(config, config.net.scene, device)
    loss_fn = GeNVSLoss(config.loss, GeNVSConfig(), 0)
    monitor = Monitor(run_dir, device, rank=0, cur_nimg=0, total=config.total_nimg)
    reporter = Reporter(config, state, monitor)
    reporter.first_status = []

    def count() -> None:
        state.cur_nimg += BATCH

    def record() -> dict[str, float]:
        monitor.record(state.cur_nimg, **{"Gradient/skipped": state.check()})
        return monitor.last_numbers

    steps: dict[str, Callable[[], object]] = {
        "gradients": lambda: accumulate_gradients(state.net, loss_fn, batches, config, monitor),
        "update": lambda: update_weights(state, config, monitor),
        "ema": lambda: update_ema(state, config),
        "count": count,
        "report": reporter.step,
    }
    with contextlib.closing(monitor), contextlib.closing(reporter.files):
        yield {"stop": StopRequest(device).agreed, **steps, "record": record}
