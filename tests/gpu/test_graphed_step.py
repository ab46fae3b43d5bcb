"""Training steps replayed as CUDA graphs compute the same as plain ones."""

import dataclasses
import gc
import itertools
import threading
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor

from genvs.data.types import ViewBatch
from genvs.errors import InputError
from tests.gpu.conftest import on_ranks
from tests.gpu.test_no_host_sync import no_syncs
from tests.small_model import randomize, some_batch
from tests.small_training import BATCH, small_run
from torch_utils import distributed
from training.config import TrainConfig
from training.monitor import Monitor
from training.parallel import sum_over_ranks, training_net
from training.state import TrainState, create_state
from training.training_loop import accumulate_gradients, loss_of, update_weights

pytestmark = pytest.mark.gpu


def config_of(**changes) -> TrainConfig:
    """A small run whose sizes suit the fused renderer."""
    config = small_run("nowhere", **changes)
    encoder = dataclasses.replace(config.net.encoder, volume_channels=16)
    renderer = dataclasses.replace(config.net.renderer, hidden_channels=32)
    return dataclasses.replace(config, net=dataclasses.replace(config.net, encoder=encoder, renderer=renderer))


class Run:
    """Training of a network of random weights, replayed or not, in single steps."""

    def __init__(self, config: TrainConfig, *, graphs: bool) -> None:
        self.config = config
        device = torch.device("cuda", torch.cuda.current_device())
        self.state: TrainState = create_state(self.config, config.net.scene, device)
        randomize(self.state.net)
        for seed, network in enumerate((self.state.teacher, self.state.critic), start=1):
            if network:
                randomize(network, seed=seed)
        sum_over_ranks(self.state.net, config)
        how = dataclasses.replace(config, cuda_graphs=graphs)
        self.net, self.loss_fn = training_net(self.state.net, how, device), loss_of(self.state, how, device)
        self.monitor = Monitor(Path(), device, rank=1, cur_nimg=0, total=1)

    def gradients(self, *batches: ViewBatch) -> tuple[Tensor, list[Tensor]]:
        """Losses and gradients of one update, without the update itself."""
        self.state.net.zero_grad(set_to_none=True)
        self.monitor.losses.clear()
        accumulate_gradients(self.net, self.loss_fn, iter(batches), self.config, self.monitor)
        gradients = [parameter.grad for parameter in self.state.net.parameters() if parameter.requires_grad]
        assert all(gradient is not None for gradient in gradients)
        return torch.cat(self.monitor.losses, dim=1), gradients

    def step(self, batch: ViewBatch) -> None:
        accumulate_gradients(self.net, self.loss_fn, iter([batch]), self.config, self.monitor)
        update_weights(self.state, self.config, self.monitor)
        self.state.cur_nimg += BATCH

    def weights(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.state.net.parameters()])


def batch_of(num_inputs: int, seed: int, scenes: int = BATCH // 2) -> ViewBatch:
    return some_batch(scenes, num_inputs, seed=seed).to("cuda")


def check_same(ours: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]], tolerance: float) -> None:
    torch.testing.assert_close(ours[0], expected[0], rtol=tolerance, atol=tolerance)
    whole = torch.stack([gradient.norm() for gradient in expected[1]]).norm()
    for gradient, other in zip(ours[1], expected[1], strict=True):
        assert gradient.isfinite().all()
        assert (gradient - other).norm() <= tolerance * (other.norm() + 1e-2 * whole), gradient.shape


PRECISIONS = pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-3), (True, 5e-2)])


@PRECISIONS
@pytest.mark.parametrize("rounds", [1, 2])
def test_losses_and_gradients_are_those_of_plain_calls(bf16, tolerance, rounds):
    """Each number of input views more than once, in any order, with other images and cameras."""
    config = config_of(bf16=bf16, batch_gpu=BATCH // rounds)
    ours, plain = Run(config, graphs=True), Run(config, graphs=False)
    names, seen = list(ours.state.net.state_dict()), []
    for seed, num_inputs in enumerate((1, 2, 3, 1, 3, 2)):
        batches = [batch_of(num_inputs, 10 * seed + number, BATCH // 2 // rounds) for number in range(rounds)]
        losses, gradients = ours.gradients(*batches)
        check_same((losses, gradients), plain.gradients(*batches), tolerance)
        seen.append((losses, gradients, [gradient.clone() for gradient in gradients]))
    for (losses, gradients, _), (others, other_gradients, _) in itertools.combinations(seen, 2):
        assert not torch.allclose(losses, others, rtol=1e-3)
        assert not torch.allclose(gradients[0], other_gradients[0], rtol=0.1)
    for _, gradients, copies in seen:
        assert all(torch.equal(gradient, copy) for gradient, copy in zip(gradients, copies, strict=True))
    # The network itself has not changed, and still works without graphs.
    assert list(ours.state.net.state_dict()) == names
    ours.net = ours.state.net
    check_same(ours.gradients(*batches), plain.gradients(*batches), tolerance)


@PRECISIONS
@pytest.mark.parametrize("matching_kimg", [0.0, 1.0])
def test_so_are_those_of_distillation(bf16, tolerance, matching_kimg):
    """Where the encoder and the renderer are frozen, and the teacher is replayed too, and the critic."""
    config = config_of(bf16=bf16, distill_steps=2, matching_kimg=matching_kimg)
    ours, plain = Run(config, graphs=True), Run(config, graphs=False)
    for seed, num_inputs in enumerate((1, 2, 1)):
        batch = batch_of(num_inputs, seed)
        check_same(ours.gradients(batch), plain.gradients(batch), tolerance)
        if matching_kimg:
            both = [list(run.state.critic.denoisers.parameters()) for run in (ours, plain)]
            for weight, other in zip(*both, strict=True):
                torch.testing.assert_close(weight.grad, other.grad, rtol=tolerance, atol=tolerance)
                weight.grad = other.grad = None
    frozen = [*ours.state.net.encoders.parameters(), *ours.state.net.renderer.parameters()]
    assert all(parameter.grad is None for parameter in frozen)


def divide_by_zero_while_recording(images: Tensor) -> None:
    if torch.cuda.is_current_stream_capturing():
        _ = 1 // 0


def wait_for_the_gpu(images: Tensor) -> None:
    float(images.sum())


def fail_to_record(rank: int) -> None:
    """Runs in another process, because torch's allocator stays in a recording that CUDA has aborted."""
    for fault, expected in ((divide_by_zero_while_recording, ZeroDivisionError), (wait_for_the_gpu, InputError)):
        run = Run(config_of(), graphs=True)
        run.state.net.encoders["rgb"].register_forward_pre_hook(
            lambda module, arguments, fault=fault: fault(*arguments)
        )
        with pytest.raises(expected):
            run.gradients(batch_of(2, seed=0))


def test_only_a_step_that_cuda_cannot_record_is_an_input_error():
    """A step that waits for the GPU runs without a recording; another fault is a bug, and raises its own error."""
    torch.multiprocessing.spawn(fail_to_record, nprocs=1)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-2), (True, 0.2)])
def test_updates_train_the_same_weights(bf16, tolerance):
    config = config_of(bf16=bf16, lr=1e-3, lr_rampup_kimg=0.0)
    ours, plain = Run(config, graphs=True), Run(config, graphs=False)
    initial = ours.weights()
    for seed, num_inputs in enumerate((1, 2, 1, 3, 2)):
        for run in (ours, plain):
            run.step(batch_of(num_inputs, seed))
    change, expected = ours.weights() - initial, plain.weights() - initial
    assert expected.norm() > 0 and (change - expected).norm() < tolerance * expected.norm()
    assert ours.state.check() == 0


@pytest.mark.parametrize(("distill_steps", "matching_kimg"), [(0, 0.0), (2, 0.0), (2, 1.0)])
def test_a_replayed_step_waits_for_nothing(distill_steps, matching_kimg):
    run = Run(config_of(distill_steps=distill_steps, matching_kimg=matching_kimg), graphs=True)
    batches = [batch_of(num_inputs, seed=num_inputs) for num_inputs in (1, 3)]
    for batch in batches * 2:
        run.step(batch)
    with no_syncs():
        for batch in batches * 2:
            run.step(batch)


def test_threads_that_pin_memory_do_not_spoil_a_recording():
    """As a data loader does. All memory is kept, so that torch has to ask the driver for more."""
    stop, kept, errors = threading.Event(), [], []

    def pin() -> None:
        try:
            while not stop.wait(1e-3):
                kept.append(torch.empty(1 << 16, dtype=torch.uint8).pin_memory())
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        run = Run(config_of(), graphs=True)
        for num_inputs in (1, 2, 3):
            run.step(batch_of(num_inputs, seed=0))
        torch.cuda.synchronize()
    finally:
        stop.set()
        thread.join()
    assert errors == [] and len(kept) > 10


def test_all_shapes_share_the_memory_of_the_largest():
    run = Run(config_of(batch_size=128), graphs=True)

    def reserved() -> int:
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    before = reserved()
    run.step(batch_of(3, seed=0, scenes=64))
    largest = reserved() - before
    for num_inputs in (1, 2):
        run.step(batch_of(num_inputs, seed=0, scenes=64))
    assert reserved() - before < 1.7 * largest


# Ranks


def graphs_beside_plain_calls(rank: int, device: torch.device) -> None:
    """The sums over ranks of gradients, of one round and of two."""
    for rounds in (1, 2):
        scenes = BATCH // 2 // rounds
        batch_size = BATCH * distributed.get_world_size()
        config = config_of(bf16=False, batch_size=batch_size, batch_gpu=BATCH // rounds)
        ours, plain = (Run(config, graphs=graphs) for graphs in (True, False))
        for seed, num_inputs in enumerate((1, 2, 3, 2)):
            batches = [batch_of(num_inputs, 10 * (2 * seed + number) + rank, scenes) for number in range(rounds)]
            check_same(ours.gradients(*batches), plain.gradients(*batches), 1e-3)


def test_ranks_replay_too():
    on_ranks(graphs_beside_plain_calls, min(torch.cuda.device_count(), 2))
