"""Architectures, learned view weightings, labels and fp16 on a GPU: as CUDA graphs, and without waiting."""

import dataclasses

import pytest
import torch

from genvs.config import ARCHITECTURES, AUGMENT_LABELS
from genvs.data.types import ViewBatch
from tests.gpu.test_graphed_step import Run, batch_of, check_same, config_of
from tests.gpu.test_no_host_sync import no_syncs
from tests.small_training import BATCH
from training.config import TrainConfig
from training.training_loop import accumulate_gradients, update_weights

pytestmark = pytest.mark.gpu
NUM_CLASSES = 3


def labelled_run(arch: str, weighting: str, **changes) -> TrainConfig:
    """A run whose network is conditioned on classes and augmentation labels."""
    config = config_of(**changes)
    denoiser = dataclasses.replace(
        config.net.denoiser, arch=arch, residual_encoder=arch == "ncsnpp", augment_labels=AUGMENT_LABELS
    )
    scene = dataclasses.replace(config.net.scene, num_classes=NUM_CLASSES)
    net = dataclasses.replace(config.net, denoiser=denoiser, scene=scene, view_weighting=weighting)
    return dataclasses.replace(config, net=net, loss=dataclasses.replace(config.loss, augment=0.5))


def labelled(num_inputs: int, seed: int) -> ViewBatch:
    batch = batch_of(num_inputs, seed)
    classes = torch.eye(NUM_CLASSES, device="cuda")[torch.arange(len(batch.sample_index), device="cuda") % NUM_CLASSES]
    return dataclasses.replace(batch, classes=classes)


WEIGHTINGS = pytest.mark.parametrize("weighting", ["learned_cross_attention", "relative_pose_self_attention"])
PRECISIONS = [*((arch, False, 2e-3) for arch in ARCHITECTURES), ("ddpmpp", True, 5e-2)]


@pytest.mark.parametrize(("arch", "bf16", "tolerance"), PRECISIONS)
@WEIGHTINGS
def test_replayed_steps_are_the_plain_ones(arch, bf16, tolerance, weighting):
    config = labelled_run(arch, weighting, bf16=bf16)
    ours, plain = Run(config, graphs=True), Run(config, graphs=False)
    for seed, num_inputs in enumerate((2, 3, 2)):
        batch = labelled(num_inputs, seed)
        check_same(ours.gradients(batch), plain.gradients(batch), tolerance)


@WEIGHTINGS
def test_the_weighting_alone_learns_as_in_plain_steps(weighting):
    """As with --only_train_cam_weighter: the rest has no gradients."""
    config = dataclasses.replace(labelled_run("ddpmpp", weighting, bf16=False), only_train_cam_weighter=True)
    runs = [Run(config, graphs=graphs) for graphs in (True, False)]
    for seed, num_inputs in enumerate((2, 3, 2)):
        for run in runs:
            run.state.net.zero_grad(set_to_none=True)
            accumulate_gradients(run.net, run.loss_fn, iter([labelled(num_inputs, seed)]), config, run.monitor)
        ours, plain = ({name: p.grad for name, p in run.state.net.named_parameters()} for run in runs)
        learning = [name for name in plain if name.startswith("renderer.view_weights.")]
        for gradients in (ours, plain):
            assert [name for name, gradient in gradients.items() if gradient is not None] == learning
        whole = torch.stack([plain[name].norm() for name in learning]).norm()
        for name in learning:  # the gradient of a bias that all views share is rounding alone
            assert (ours[name] - plain[name]).norm() <= 2e-3 * (plain[name].norm() + 1e-2 * whole)
        assert whole > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("graphs", [True, False])
def test_fp16_trains_and_waits_for_nothing(arch, graphs):
    config = labelled_run(arch, "distance", bf16=False, fp16=True)
    run, batch = Run(config, graphs=graphs), labelled(2, 0)

    def step() -> None:
        accumulate_gradients(run.net, run.loss_fn, iter([batch]), config, run.monitor, scale=run.state.scale)
        update_weights(run.state, config, run.monitor)
        run.state.cur_nimg += BATCH

    for _ in range(4):
        step()
    before = run.weights()
    with no_syncs():
        for _ in range(4):
            step()
    assert run.state.check() < 8 and run.weights().isfinite().all()
    assert not torch.equal(before, run.weights())
