"""The training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from genvs.config import PRESETS, GeNVSConfig, SceneConfig, scaled_to
from genvs.data.types import ViewBatch
from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.snapshot import build_net, load_snapshot
from torch_utils import distributed, misc
from training.checkpoint import TrainState
from training.config import TrainConfig
from training.data import BatchSchedule, RunData, load_batches
from training.ema import EMA
from training.encoder_weights import initialize_encoder
from training.graphed import GraphedGeNVS
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.reporting import Reporter

LABEL_LAYERS = re.compile(r"denoiser\.unet\.embed_(augment|class)\..*")
STOP_CHECK_ROUNDS = 4  # GPUs tell each other this often whether they were asked to stop


def training_loop(config: TrainConfig, run_dir: Path, data: RunData, state: TrainState, device: torch.device) -> None:
    """Train `state` to `config.total_nimg` images or until interrupted; every file goes to `run_dir`.

    Between records nothing waits for the device. Raises InputError for data that cannot be used or a step that cannot
    be recorded, FloatingPointError when training diverges, and OSError for a file that cannot be written.
    """
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    torch.backends.cudnn.benchmark = config.bench
    misc.check_ddp_consistency(state.net)
    net = training_net(state.net, config, device)
    denoiser = config.net.denoiser
    loss_fn = GeNVSLoss(config.loss, sigma_data=denoiser.sigma_data, seed=config.seed, precond=denoiser.precond)
    schedule = BatchSchedule(config, len(data.train_scenes), rank=rank, world_size=world_size, cur_nimg=state.cur_nimg)
    batches = load_batches(data, schedule, config.workers, device)
    monitor = Monitor(
        run_dir,
        device,
        rank=rank,
        tensorboard=config.tensorboard,
        cur_nimg=state.cur_nimg,
        total=config.total_nimg,
    )
    reporter = Reporter(config, run_dir, data, state, monitor, device)
    stop = StopRequest(device, config.rounds(world_size))
    if world_size > 2:
        batches = settle_order_of_sums(net, loss_fn, batches, config)

    # Whatever ends the run, the file that is being written is completed.
    with contextlib.closing(monitor), contextlib.closing(reporter):
        while state.cur_nimg < config.total_nimg and not stop.agreed():
            accumulate_gradients(net, loss_fn, batches, config, monitor, scale=state.scale)
            update_weights(state, config, monitor)
            state.ema.update(state.net, batch_size=config.batch_size, cur_nimg=state.cur_nimg)
            state.cur_nimg += config.batch_size
            reporter.step()
        reporter.finish(interrupted=state.cur_nimg < config.total_nimg)


def create_state(config: TrainConfig, scene: SceneConfig, device: torch.device) -> TrainState:
    """Network (for the cameras of `scene`), EMA and optimizer at birth; the same on every rank.

    Raises InputError for a snapshot or encoder weights that cannot be used.
    """
    torch.manual_seed(config.seed)
    net = build_net(dataclasses.replace(config.net, scene=scene))
    initialize_encoder(net.encoder.backbone, config.encoder_weights)
    if config.transfer is not None:
        source = load_snapshot(config.transfer)
        try:
            net.load_state_dict(state_to_transfer(net, source))
        except RuntimeError:
            raise InputError(f"{config.transfer}: of another network: give {sizes_of(source.config)}") from None
    net.place_on(device)
    ema = EMA(net, config.ema_halflife_kimg, config.ema_rampup_ratio)
    if config.only_train_cam_weighter:
        net.requires_grad_(False)
        cast(nn.Module, net.renderer.view_weights).requires_grad_(True)
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=config.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    return TrainState(net, ema, optimizer, fp16=config.fp16)


def sizes_of(net: GeNVSConfig) -> str:
    """The options that make such a network, as far as there are any."""
    like = [name for name, config in PRESETS.items() if scaled_to(config, net.resolution).encoder == net.encoder]
    sizes = ",".join(map(str, net.denoiser.channel_mult))
    return (
        f"{f'--preset {like[0]}' if like else 'its preset,'} --resolution {net.resolution} --arch {net.denoiser.arch} "
        f"--cbase {net.denoiser.model_channels} --cres {sizes}"
    )


def state_to_transfer(net: GeNVS, source: GeNVS) -> dict[str, Tensor]:
    """The weights of `source` for `net`; those of a view weighting that it does not have are the own ones of `net`.

    Where only one of them is told classes or augmentations, that begins at 0, or is left out: nothing changes at first.
    """
    prefix = "renderer.view_weights."
    state = source.state_dict()
    of_weighting = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    own = {name: tensor for name, tensor in net.state_dict().items() if name.startswith(prefix)}
    ours = {name: tensor for name, tensor in net.state_dict().items() if LABEL_LAYERS.fullmatch(name)}
    told = {name: state.pop(name) for name in list(state) if LABEL_LAYERS.fullmatch(name)}
    labels = {name: told.get(name, torch.zeros_like(tensor)) for name, tensor in ours.items()}
    return {**state, **labels, **(of_weighting if of_weighting.keys() == own.keys() else own)}


def training_net(net: GeNVS, config: TrainConfig, device: torch.device) -> nn.Module:
    """`net` as training calls it: its kernels replayed as CUDA graphs on a GPU, its gradients the mean over ranks."""
    module = GraphedGeNVS(net) if config.cuda_graphs and device.type == "cuda" else net
    return module if distributed.get_world_size() == 1 else distributed_net(module, config)


def distributed_net(net: nn.Module, config: TrainConfig) -> DistributedDataParallel:
    """`net`, whose gradients become their mean over the ranks. Compressing them needs GPUs."""
    # cuDNN lays out the gradients of 1x1 convolutions in its own way; the copy costs little, the warning a page.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ddp = DistributedDataParallel(net, gradient_as_bucket_view=True)
    if config.grad_compression == "bf16":
        ddp.register_comm_hook(None, bf16_compress_hook)
    return ddp


def settle_order_of_sums(
    net: nn.Module, loss_fn: GeNVSLoss, batches: Iterator[ViewBatch], config: TrainConfig
) -> Iterator[ViewBatch]:
    """`batches`, after a backward pass whose gradients are thrown away.

    In its first one DDP learns in which order gradients come, and arranges them anew for all that follow. What more
    than two ranks sum depends on that in its last bits, so that a resumed run's first update would differ from the
    undisturbed one's.
    """
    first = next(batches)
    with training_precision(config, first.sample_index.device):
        loss_fn(net, first).total.backward()
    net.zero_grad(set_to_none=True)
    return itertools.chain([first], batches)


def accumulate_gradients(
    net: nn.Module,
    loss_fn: GeNVSLoss,
    batches: Iterator[ViewBatch],
    config: TrainConfig,
    monitor: Monitor,
    scale: Tensor | float = 1.0,
) -> None:
    """Forward and backward for one update, in as many rounds as the batch takes; ranks synchronise in the last.

    net: as `training_net` gives it. scale: `[]`, a factor on the loss besides `--ls`.
    Raises InputError as GraphedGeNVS does.
    """
    rounds = config.rounds(distributed.get_world_size())
    for number in range(rounds):
        start = time.perf_counter()
        batch = next(batches)
        monitor.data_wait += time.perf_counter() - start
        last = number == rounds - 1
        with misc.ddp_sync(net, sync=last):
            device = batch.sample_index.device
            with training_precision(config, device):
                terms = loss_fn(net, batch)
            (terms.total * (scale * config.loss_scale / rounds)).backward()
        monitor.step(terms, config.batch_size, last_round=last)


def training_precision(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The autocast that the network trains in: fp16 or bf16 as the options ask, on GPUs alone."""
    if config.fp16:
        return torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda")
    # Where bf16 would be emulated, on a CPU or an old GPU, it stays off: it would be slow.
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.bf16 and native)


def update_weights(state: TrainState, config: TrainConfig, monitor: Monitor) -> None:
    """One optimizer step with warmed-up learning rate and clipped gradients; skipped where a gradient is not finite.

    Gradients are already summed over ranks, so all ranks decide alike; the device decides, and the host does not wait.
    """
    optimizer = state.optimizer
    lr = config.lr * min(state.cur_nimg / max(config.lr_rampup_kimg * 1000, 1e-8), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = lr
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    finite, norm = norm.isfinite(), norm / state.scale
    # What torch.amp.GradScaler.step hands to fused optimizers: gradients are divided by `grad_scale`, and where
    # `found_inf` is 1 nothing changes, nor the count of steps. Clipped as torch.nn.utils.clip_grad_norm_ does.
    limit = config.max_grad_norm * config.loss_scale
    optimizer.grad_scale = state.scale * ((norm + 1e-6) / limit).clamp(min=1.0)  # type: ignore[attr-defined]
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    state.count_update(skipped=~finite)
    if config.fp16:
        state.adapt_scale(finite)
    monitor.report("Gradient/norm", norm, mask=finite)
    monitor.report("Progress/lr", lr)


class StopRequest:
    """Ctrl-C or SIGTERM ends training after the current step; a later one ends it at once."""

    # A launcher passes on the signal that its whole process group got: one request, twice.
    SAME_REQUEST_SECONDS = 5.0

    def __init__(self, device: torch.device, rounds: int = 1) -> None:
        """rounds: of an update. The longer it takes, the more often ranks ask: a launcher does not wait for ever."""
        self.first_time: float | None = None
        self.any_rank = distributed.AnyRank(device)
        # CPUs' updates are slow, and asking costs them nothing.
        self.check_steps = max(1, STOP_CHECK_ROUNDS // rounds) if device.type == "cuda" else 1
        self.checks = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number: int, frame) -> None:
        now = time.monotonic()
        if self.first_time is None:
            self.first_time = now
        elif now - self.first_time > self.SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt

    def agreed(self) -> bool:
        """Whether any rank was asked to stop. Every rank must call it once a step."""
        requested = self.first_time is not None
        if distributed.get_world_size() == 1:
            return requested
        self.checks += 1
        return self.checks % self.check_steps == 0 and self.any_rank(requested)
