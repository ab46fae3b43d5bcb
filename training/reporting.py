"""When a run records numbers, prints a status line, evaluates, and saves."""

from __future__ import annotations

from pathlib import Path

import torch

from torch_utils import distributed
from training.checkpoint import TrainState, save_network_snapshot, save_training_state
from training.config import TrainConfig
from training.data import RunData
from training.evaluation import HeldOutScenes, mean_training_image, verdict
from training.monitor import Monitor


class Reporter:
    """Follows a run: numbers every `log_kimg`, a status line every tick, a snapshot with samples and held-out PSNR
    every `snapshot_ticks`, a training state every `state_ticks`, and everything at the end."""

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
            self.held_out = HeldOutScenes(data.held_out, data.held_out_scenes, mean_image, device)
        else:
            monitor.say("one scene only: none is held out, so no PSNR and no samples are reported")
        self.last_nimg = state.cur_nimg
        self.saved_nimg = -1

    def _passed(self, kimg: float) -> bool:
        """Whether the last step went past a multiple of `kimg`; so any batch size keeps to the schedule."""
        return self.state.cur_nimg // (kimg * 1000) > self.last_nimg // (kimg * 1000)

    def step(self) -> None:
        """Call after every update, on all ranks."""
        config, nimg = self.config, self.state.cur_nimg
        tick = config.kimg_per_tick
        if self._passed(config.log_kimg) or self._passed(tick):
            self.monitor.record(nimg, **{"Gradient/skipped": self.state.skipped})
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
        if self.first:
            save_network_snapshot(self.run_dir, self.state)
        if self.held_out is None:
            return
        scores = self.held_out.measure(net, self.config.images_at_a_time(distributed.get_world_size()))
        self.monitor.record(nimg, **scores)
        self.monitor.say(verdict(scores))
        if self.first:
            panel = self.held_out.panel(net, f"held-out scenes after {nimg / 1000:.1f} kimg; {verdict(scores)}")
            panel.save(self.run_dir / f"samples-{nimg // 1000:06d}.png")
            self.monitor.picture("Samples", panel, nimg)

    def save_state(self) -> None:
        if self.first:
            save_training_state(self.run_dir, self.config, self.state)
        self.saved_nimg = self.state.cur_nimg

    def finish(self, interrupted: bool) -> None:
        """Save what is not saved yet, and say where things are."""
        if self.saved_nimg != self.state.cur_nimg:
            self.save_state()
        if interrupted:
            self.monitor.say(f"stopped at {self.state.cur_nimg / 1000:.1f} kimg; ./train.sh --resume continues")
        else:
            self.snapshot()
            self.monitor.say(f"done: {self.run_dir} holds the snapshot, samples and logs")
