"""When a run records numbers, prints a status line, evaluates, and saves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from genvs.data.baselines import mean_training_image
from torch_utils import distributed
from torch_utils.background_writer import BackgroundWriter
from training.config import TrainConfig
from training.data import RunData
from training.evaluation import HeldOutScenes, verdict
from training.monitor import Monitor
from training.state import TrainState, save_network_snapshot, save_training_state


class Reporter:
    """Follows a run: numbers every `log_kimg`, a status line every tick, a snapshot with samples and held-out PSNR
    every `snapshot_ticks`, a training state every `state_ticks`, and everything at the end.

    Files are written while training goes on. A file that could not be written ends the run with its error (OSError),
    at the next record at latest.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        data: RunData,
        state: TrainState,
        monitor: Monitor,
        device: torch.device,
    ) -> None:
        self.config, self.run_dir, self.state, self.monitor = config, run_dir, state, monitor
        self.first = distributed.get_rank() == 0
        self.held_out = None
        if len(data.held_out_scenes) > 0:
            mean_image = mean_training_image(data.train, data.train_scenes)
            self.held_out = HeldOutScenes(
                data.held_out, data.held_out_scenes, mean_image, device, classes=data.held_out_classes
            )
        else:
            monitor.say("one scene only: none is held out, so no PSNR and no samples are reported")
        self.last_nimg = state.cur_nimg
        self.saved_nimg = -1
        self.files = BackgroundWriter()

    def _passed(self, kimg: float) -> bool:
        """Whether the last step went past a multiple of `kimg`; so any batch size keeps to the schedule."""
        nimg = round(kimg * 1000, 3)  # of a product such as 0.1 * 3, which is not 0.3
        return self.state.cur_nimg // nimg > self.last_nimg // nimg

    def step(self) -> None:
        """Call after every update, on all ranks.

        Raises FloatingPointError, at a record, after too many updates without finite gradients, and rather than save
        weights that have grown without bound.
        """
        config, nimg = self.config, self.state.cur_nimg
        tick = config.kimg_per_tick
        if self._passed(config.log_kimg) or self._passed(tick):
            skipped, _ = self.state.look_at_skipped()
            self.files.check()
            self.monitor.record(nimg, **{"Gradient/skipped": skipped})
        if self._passed(tick):
            self.monitor.status(int(nimg // (tick * 1000)), nimg)
        if nimg < config.total_nimg:
            if self._passed(tick * config.snapshot_ticks):
                self.snapshot()
            if self._passed(tick * config.state_ticks):
                self.save_state()
        self.last_nimg = nimg

    def snapshot(self) -> None:
        """Save the EMA network, held-out PSNR and a sheet of samples."""
        nimg, net = self.state.cur_nimg, self.state.ema.net
        self._save(save_network_snapshot, self.run_dir, self.state)
        if self.held_out is None:
            return
        start = time.perf_counter()
        scores = self.held_out.measure(net, self.config.images_at_a_time(distributed.get_world_size()))
        self.monitor.say(verdict(scores))
        if self.first:
            panel = self.held_out.panel(net, f"held-out scenes after {nimg / 1000:.1f} kimg; {verdict(scores)}")
            panel.save(self.run_dir / f"samples-{nimg // 1000:06d}.png")
            self.monitor.picture("Samples", panel, nimg)
        self.monitor.record(nimg, **scores, **{"Timing/evaluation_sec": time.perf_counter() - start})

    def save_state(self) -> None:
        self._save(save_training_state, self.run_dir, self.config, self.state)
        self.saved_nimg = self.state.cur_nimg

    def _save(self, save: Callable[..., None], *what) -> None:
        self.state.check_weights()  # all ranks end alike
        if self.first:
            start = time.perf_counter()
            save(*what, self.files)
            self.monitor.report("Timing/save_pause_sec", time.perf_counter() - start)

    def finish(self, interrupted: bool) -> None:
        """Save what is not saved yet. Raises as `step` does."""
        skipped, _ = self.state.look_at_skipped()  # here all ranks end alike; saving is the first one's
        if self.monitor.last_nimg < self.state.cur_nimg:
            self.monitor.record(self.state.cur_nimg, **{"Gradient/skipped": skipped})
        if self.saved_nimg != self.state.cur_nimg:
            self.save_state()
        if not interrupted:
            self.snapshot()
        self.files.wait()

    def close(self) -> None:
        """Wait for the file that is being written. Raises OSError where it could not be."""
        self.files.close()
