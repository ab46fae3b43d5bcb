"""The training loop."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from genvs.data.types import ViewBatch
from torch_utils import distributed
from training.adam import Adam
from training.config import TrainConfig
from training.data import RunData, at_resolution, load_batches
from training.distillation import MATCHING_RATE, DistillationLoss, MatchingLoss
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.parallel import sum_over_ranks, training_net, training_precision
from training.reporting import Reporter
from training.run_folder import last_line
from training.signals import CutShort, SlowStep, StopRequest
from training.state import TrainState

SCALE_GROWTH_UPDATES = 2000  # GradScaler's default


@distributed.silent_ranks_named()
def training_loop(config: TrainConfig, run_dir: Path, data: RunData, state: TrainState, device: torch.device) -> None:
    """Train `state` to `config.total_nimg` images or until interrupted. All files go to `run_dir`.

    data: at the config's resolution. The first `config.low_resolution_nimg` images are trained on at half of it.
    Between records nothing waits for the device. Raises KeyboardInterrupt if this rank has stopped without the others,
    InputError for data that cannot be used, FloatingPointError if training diverges, and OSError for a file that cannot
    be written.
    """
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    stop = StopRequest(device, config.rounds(world_size))
    torch.backends.cudnn.benchmark = config.bench
    distributed.check_ddp_consistency(state.net)
    for network in filter(None, (state.net, state.critic)):
        sum_over_ranks(network, config)
    first_nimg = state.cur_nimg
    monitor = Monitor(
        run_dir, device, rank=rank, cur_nimg=first_nimg, total=config.total_nimg, loggers=config.logger or ()
    )
    reporter = Reporter(config, state, monitor)

    def start_stage() -> tuple[nn.Module, GeNVSLoss, Iterator[ViewBatch]]:
        """The network for training, its loss and its batches, as they are in this part of the run."""
        sizes = dataclasses.replace(config.net_at(state.cur_nimg), scene=state.net.config.scene)
        for network in (state.net, state.ema):
            network.set_sizes(sizes)
        views = at_resolution(data, sizes.resolution, config.cache)
        reporter.evaluate_on(views)
        net = training_net(state.net, config, device)
        loss_fn = loss_of(state, config, device)
        return net, loss_fn, load_batches(config, views, state.cur_nimg, device, stop.while_waiting)

    def save_alone() -> None:
        reporter.save_alone()
        print(last_line(state.cur_nimg, config, run_dir), flush=True)

    slow_step = SlowStep(device, save_alone)
    # However the run ends, the current write is completed.
    with contextlib.closing(monitor), contextlib.closing(reporter.files), contextlib.closing(slow_step):
        try:
            net, loss_fn, batches = start_stage()
            if config.transfer and state.cur_nimg == 0:
                reporter.evaluate()  # what training has to improve on
            while state.cur_nimg < config.total_nimg and not stop.agreed():
                if state.cur_nimg in (config.low_resolution_nimg, config.matching_nimg) and state.cur_nimg > first_nimg:
                    net, loss_fn, batches = start_stage()
                with stop.step(), slow_step:
                    accumulate_gradients(net, loss_fn, batches, config, monitor, scale=state.scale)
                update_weights(state, config, monitor)
                update_ema(state, config)
                state.cur_nimg += config.batch_size
                with stop.may_cut_short():
                    reporter.step()
        except (StopIteration, CutShort):  # of `batches`, when the run is to stop
            if world_size > 1:
                save_alone()
                raise KeyboardInterrupt from None
        reporter.finish(interrupted=state.cur_nimg < config.total_nimg)


def loss_of(state: TrainState, config: TrainConfig, device: torch.device) -> GeNVSLoss:
    """The loss in this part of the run."""
    if state.critic and state.teacher and state.cur_nimg >= config.matching_nimg:
        return MatchingLoss(config, state.teacher, training_net(state.critic, config, device))
    if state.teacher:
        return DistillationLoss(config, state.teacher)
    return GeNVSLoss(config.loss, state.net.config, config.seed)


def accumulate_gradients(
    net: nn.Module,
    loss_fn: GeNVSLoss,
    batches: Iterator[ViewBatch],
    config: TrainConfig,
    monitor: Monitor,
    scale: Tensor | float = 1.0,
) -> None:
    """Forward and backward passes of one update, in one or more rounds.

    net: from `training_net`. scale: `[]`, a factor on the loss besides `config.loss_scale`. The gradients are those of
    this rank's share of the mean loss, or with `sum_over_ranks` those of the mean loss.
    """
    world_size = distributed.get_world_size()
    rounds = config.rounds(world_size)
    for round_number in range(rounds):
        with monitor.waiting_for_data():
            batch = next(batches)
        with training_precision(config, batch.sample_index.device):
            terms = loss_fn(net, batch)
        (terms.total * (scale * config.loss_scale / (rounds * world_size))).backward()
        monitor.report_losses(terms, config.batch_size, last_round=round_number == rounds - 1)


def update_weights(state: TrainState, config: TrainConfig, monitor: Monitor) -> None:
    """One optimizer step with a scheduled learning rate and clipped gradients, skipped if a gradient is not finite.

    Gradients are those of all ranks, which therefore decide alike. The device decides, so the host does not wait.
    """
    rates = learning_rates(state, config)
    norms = torch.stack(
        [
            nn.utils.get_total_norm([weight.grad for weight in optimizer.parameters if weight.grad is not None])
            for optimizer in rates
        ]
    )
    skipped = ~norms.isfinite().all()
    norms = norms / state.scale
    for (optimizer, lr), norm in zip(rates.items(), norms, strict=True):
        # As by torch.nn.utils.clip_grad_norm_.
        clip = ((norm + 1e-6) / (config.max_grad_norm * config.loss_scale)).clamp(min=1.0)
        optimizer.step(lr, grad_scale=state.scale * clip, skip=skipped.float())
    state.count_update(skipped)
    if config.fp16:  # half the scale after an update that is not finite, twice after a long row of finite ones
        torch._amp_update_scale_(state.scale, state.scale_updates, skipped.float(), 2.0, 0.5, SCALE_GROWTH_UPDATES)
    monitor.report("Gradient/norm", norms[0])
    monitor.report("Progress/lr", rates[state.optimizer])


def learning_rates(state: TrainState, config: TrainConfig) -> dict[Adam, float]:
    """The learning rate of each optimizer that takes part in the next update."""
    lr = config.lr_at(state.cur_nimg)
    if not state.critics_optimizer:
        return {state.optimizer: lr}
    fallen = 2 * state.cur_nimg / max(config.matching_nimg, 1) - 1  # from 0 to 1 before matching begins
    rates = {state.optimizer: lr * (1 - min(max(fallen, 0.0), 1.0) * (1 - MATCHING_RATE))}
    return rates | ({state.critics_optimizer: lr} if state.cur_nimg >= config.matching_nimg else {})


@torch.no_grad()
def update_ema(state: TrainState, config: TrainConfig) -> None:
    """Move the moving average towards the weights, with beta = 0.5 ** (batch_size / half-life), as in EDM.

    The half-life is at most `config.ema_rampup_ratio` times the images seen before this update; None for no ramp-up.
    """
    halflife = config.ema_halflife_kimg * 1000
    if config.ema_rampup_ratio is not None:
        halflife = min(halflife, state.cur_nimg * config.ema_rampup_ratio)
    beta = 0.5 ** (config.batch_size / max(halflife, 1e-8))
    torch._foreach_lerp_(list(state.ema.parameters()), list(state.net.parameters()), 1 - beta)
