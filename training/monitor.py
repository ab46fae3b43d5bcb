"""What a run reports: status lines, a progress bar, stats.jsonl, and to its loggers. Only rank 0 writes."""

import contextlib
import itertools
import json
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from genvs.files import write_atomic
from torch_utils import distributed
from training.loggers import Loggers
from training.loss import LossTerms

SIGMA_EDGES = (0.1, 1.0, 10.0)  # the loss is reported for noise levels below, between and above these


class Monitor:
    """Collects numbers on every rank and writes them on rank 0.

    All ranks must call `record` alike, because it averages over ranks. `report` and `report_losses` leave numbers on
    the device and wait for nothing; `record` reads them.
    """

    def __init__(
        self, run_dir: Path, device: torch.device, *, rank: int, cur_nimg: int, total: int, loggers: Iterable[str] = ()
    ):
        self.run_dir, self.device = run_dir, device
        self.enabled, self.total = rank == 0, total
        self.last_nimg = cur_nimg
        # Since the last record: loss, colour loss and sigma `[3, B * T]` of each micro-batch, and other numbers.
        self.losses: list[Tensor] = []
        self.values: dict[str, list[Tensor]] = {}
        self.data_wait = 0.0  # seconds, and on a GPU the events around each wait, since the last record
        self.waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.last_numbers: dict[str, float] = {}
        self.stats_file: TextIO | None = None
        # disable=None hides the bar if stderr is not a terminal.
        self.bar = tqdm(total=total, initial=cur_nimg, unit="img", disable=None if self.enabled else True)
        self.loggers = Loggers(loggers if self.enabled else (), run_dir, cur_nimg, self.say)
        self.start_time = self.last_time = time.monotonic()
        if not self.enabled:
            return
        kept = list(records_before(run_dir / "stats.jsonl", cur_nimg))
        if kept:  # the time of a resumed run continues too
            self.start_time -= json.loads(kept[-1]).get("time", 0.0)
        write_atomic("".join(f"{line}\n" for line in kept), run_dir / "stats.jsonl")
        self.stats_file = open(run_dir / "stats.jsonl", "a", buffering=1)

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Time the block as a wait for data. On a GPU only the time counts in which it has nothing else to do."""
        if self.device.type == "cuda":  # it may be updates behind the host
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            yield
            after.record()
            self.waits.append((before, after))
        else:
            start = time.perf_counter()
            yield
            self.data_wait += time.perf_counter() - start

    @torch.no_grad()
    def report_losses(self, terms: LossTerms, batch_size: int, *, last_round: bool) -> None:
        """Keep the losses of one micro-batch. The bar moves with the last round of an update."""
        self.losses.append(torch.stack([terms.loss, terms.rgb_loss, terms.sigma]).flatten(1))
        if last_round:
            self.bar.update(batch_size)

    def report(self, name: str, value: Tensor | float) -> None:
        """Keep a number or a tensor `[]`, whose mean the next record shows."""
        self.values.setdefault(name, []).append(torch.as_tensor(value))

    def means(self) -> dict[str, float]:
        """What was reported since the last call, averaged over steps and ranks, by name. All ranks must call it.

        A loss that is not finite shows in its means; the norms of gradients that are not finite are left out.
        """
        own = {name: torch.stack(values).double().cpu().numpy() for name, values in self.values.items()}
        if "Gradient/norm" in own:
            own["Gradient/norm"] = own["Gradient/norm"][np.isfinite(own["Gradient/norm"])]
        if self.losses:
            loss, rgb_loss, sigma = torch.cat(self.losses, dim=1).double().cpu().numpy()
            own |= {"Loss/all": loss, "Loss/rgb": rgb_loss}
            for low, high in itertools.pairwise((0.0, *SIGMA_EDGES, float("inf"))):
                own[f"Loss/sigma_{low:g}_to_{high:g}"] = loss[(sigma >= low) & (sigma < high)]
        self.values.clear()
        self.losses.clear()
        return mean_over_ranks({name: np.array([len(n), n.sum()]) for name, n in own.items()})

    def record(self, cur_nimg: int, **numbers: float) -> None:
        """Average over ranks what was reported since the last record, and write it together with `numbers`.

        Raises OSError, with the run folder's name, if it cannot be written.
        """
        is_new = cur_nimg > self.last_nimg
        if is_new:
            for before, after in self.waits:
                after.synchronize()
                self.data_wait += before.elapsed_time(after) / 1000
            self.report("Timing/data_wait", self.data_wait / (time.monotonic() - self.last_time))
        numbers |= self.means()
        now = time.monotonic()
        if is_new:
            rate = (cur_nimg - self.last_nimg) / (now - self.last_time)
            numbers |= {"Timing/images_per_sec": rate, "Timing/hours_left": (self.total - cur_nimg) / rate / 3600}
        # ru_maxrss counts kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        numbers["Memory/cpu_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
        if self.device.type == "cuda":
            numbers["Memory/gpu_peak_gb"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        self.last_numbers |= numbers
        # A record that follows an evaluation leaves the evaluation's time out of the next rate.
        self.last_time, self.last_nimg, self.data_wait = now, cur_nimg, 0.0
        self.waits.clear()
        try:
            if self.stats_file is not None:
                seconds = round(now - self.start_time, 3)
                self.stats_file.write(json.dumps({"nimg": cur_nimg, "time": seconds, **numbers}) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.run_dir)) from error
        self.loggers.scalars(numbers, cur_nimg)

    def status(self, tick: int, cur_nimg: int) -> None:
        """One line about the run so far, from the numbers last recorded."""
        get = self.last_numbers.get
        rate = get("Timing/images_per_sec", 0)
        parts = [
            f"tick {tick:<4d}",
            f"kimg {cur_nimg / 1000:<8.6g}",
            f"time {tqdm.format_interval(time.monotonic() - self.start_time):<8s}",
            f"left {tqdm.format_interval((self.total - cur_nimg) / rate) if rate else '?':<8s}",
            f"images/s {rate:<7.1f}",
            f"loss {get('Loss/all', float('nan')):<7.4f}",
            f"grad {get('Gradient/norm', float('nan')):<7.3f}",
            f"lr {get('Progress/lr', 0):<8.2g}",
            f"skipped {get('Gradient/skipped', 0):<3.0f}",
            f"cpumem {get('Memory/cpu_gb', 0):<5.2f}",
            f"gpumem {get('Memory/gpu_peak_gb', 0):<5.2f}",
        ]
        self.say(" ".join(parts))

    def say(self, line: str) -> None:
        """Print a line, above the progress bar where there is one."""
        if self.enabled:
            self.bar.write(line)
            sys.stdout.flush()

    def close(self) -> None:
        self.bar.close()
        self.loggers.close()
        if self.stats_file is not None:
            with contextlib.suppress(OSError):  # `record` has raised it already
                self.stats_file.close()


def mean_over_ranks(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means by name, the same on every rank. All ranks must call it.

    sums: of this rank, the number of values and their sum, `[2]`. A name without values is left out.
    """
    of_ranks = distributed.gather_objects(dict(sums))
    names = dict.fromkeys(name for of_rank in of_ranks for name in of_rank)
    of_all = {name: sum(of_rank[name] for of_rank in of_ranks if name in of_rank) for name in names}
    return {name: float(total / count) for name, (count, total) in of_all.items() if count}


def records_before(path: Path, cur_nimg: int) -> Iterator[str]:
    """The lines of a `stats.jsonl` up to `cur_nimg` images. A line that a kill cut short is dropped."""
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, KeyError):
            if json.loads(line)["nimg"] <= cur_nimg:
                yield line
