"""Decides when a run records numbers, prints a status line, evaluates and saves."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import torch

from genvs.data.validate import camera_sheet
from genvs.errors import InputError
from genvs.files import replacing
from genvs.settings import flat
from torch_utils import distributed
from torch_utils.background_writer import BackgroundWriter
from training.config import TrainConfig
from training.data import RunData
from training.evaluation import Evaluation, summary
from training.monitor import Monitor
from training.state import TrainState, save_network_snapshot, save_training_state

FIRST_STATUS_UPDATES = (1, 3, 10)  # early status lines show that training works, and how long it will take


class Reporter:
    """Records numbers every `log_kimg`, prints a status line every tick, saves a snapshot and evaluates it every
    `snapshot_ticks`, saves a training state every `state_ticks`, and does everything at the end, and before the
    resolution grows.

    Files are written while training continues. If one cannot be written, its OSError ends the run at the next record
    at the latest.
    """

    def __init__(self, config: TrainConfig, state: TrainState, monitor: Monitor) -> None:
        self.config, self.run_dir, self.state, self.monitor = config, monitor.run_dir, state, monitor
        self.loggers = monitor.loggers
        self.evaluation: Evaluation | None = None
        self.last_nimg = state.cur_nimg
        self.saved_nimg = state.cur_nimg or -1  # a resumed run has its state already
        self.first_status = [state.cur_nimg + updates * config.batch_size for updates in FIRST_STATUS_UPDATES]
        self.files = BackgroundWriter()

    def evaluate_on(self, data: RunData) -> None:
        """Evaluate on the held-out scenes of `data`, if there are some, from now on."""
        self.evaluation = Evaluation(data, self.monitor.device) if data.held_out_scenes else None
        if self.loggers.new:
            splits = {"train": data.train} | ({} if data.held_out is data.train else {"held out": data.held_out})
            cameras = camera_sheet(splits, "Cameras of the data")
            self.loggers.introduce(flat(dataclasses.asdict(self.config)), {"Cameras": cameras} if cameras else {})

    def _passed(self, kimg: float) -> bool:
        """Whether the last step reached or passed a multiple of `kimg`."""
        interval = max(round(kimg * 1000, 3), 1)  # images; rounded because 0.1 * 3 is not 0.3
        return self.state.cur_nimg // interval > self.last_nimg // interval

    def step(self) -> None:
        """Call after every update, on all ranks.

        Raises FloatingPointError after too many updates in a row without finite gradients, or if the weights to be
        saved have grown without bound, and RuntimeError if they are not the same on all ranks.
        """
        config, nimg = self.config, self.state.cur_nimg
        tick = config.kimg_per_tick
        status = self._passed(tick) or nimg in self.first_status
        if status or self._passed(config.log_kimg):
            self._record()
        if status:
            self.monitor.status(int(nimg // (tick * 1000)), nimg)
        if nimg < config.total_nimg:
            grows = nimg == config.low_resolution_nimg  # next, and may then run out of memory
            if self._passed(tick * config.snapshot_ticks) or grows:
                self._save(save_network_snapshot)
                self.evaluate()
            if self._passed(tick * config.state_ticks) or grows:
                self._save(save_training_state)
                self.saved_nimg = nimg
        self.last_nimg = nimg

    def _record(self) -> None:
        skipped = self.state.check()
        self.files.check()
        self.monitor.record(self.state.cur_nimg, **{"Gradient/skipped": skipped})

    def evaluate(self) -> None:
        """Measure the PSNR of the EMA network, and draw a sheet of samples."""
        if self.evaluation is None:
            return
        nimg, net = self.state.cur_nimg, self.state.ema
        start = time.perf_counter()
        # Trying algorithms on these new shapes would take longer than the few batches.
        torch.backends.cudnn.benchmark = False
        scores = self.evaluation.measure(net, self.config.batch_gpu_or_share(distributed.get_world_size()))
        line = summary(scores, self.evaluation.kind)
        self.monitor.say(line)
        if distributed.get_rank() == 0:
            panel = self.evaluation.panel(net, f"after {nimg / 1000:.6g} kimg; {line}")
            with replacing(self.run_dir / f"samples-{nimg // 1000:06d}.png") as file:
                panel.save(file, "png")
            if self.loggers:
                self.loggers.image("Samples", panel, nimg)
                with contextlib.suppress(InputError):  # nothing goes around cameras at the origin
                    self.loggers.animation("Orbit", self.evaluation.orbit(net), nimg)
        torch.backends.cudnn.benchmark = self.config.bench
        self.monitor.record(nimg, **scores, **{"Timing/evaluation_sec": time.perf_counter() - start})

    def _save(self, save: Callable[[Path, TrainConfig, TrainState, BackgroundWriter], None]) -> None:
        self.state.check()  # all ranks end alike
        distributed.check_ddp_consistency(self.state.net)
        if distributed.get_rank() == 0:
            start = time.perf_counter()
            save(self.run_dir, self.config, self.state, self.files)
            self.monitor.report("Timing/save_pause_sec", time.perf_counter() - start)

    def save_alone(self) -> None:
        """Save the training state without the other ranks, which have the same one."""
        if self.saved_nimg != self.state.cur_nimg:
            save_training_state(self.run_dir, self.config, self.state, self.files)
        self.files.wait()

    def finish(self, interrupted: bool) -> None:
        """Save what is not saved yet, and evaluate unless `interrupted`. Raises the same errors as `step`."""
        if self.monitor.last_nimg < self.state.cur_nimg:
            self._record()
        if self.saved_nimg != self.state.cur_nimg:
            self._save(save_training_state)
        self._save(save_network_snapshot)
        if not interrupted:
            self.evaluate()
        self.files.wait()
