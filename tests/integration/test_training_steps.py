"""The parts of a training step: the order of data, and what happens to a gradient that is not finite."""

import contextlib
import dataclasses
import hashlib
import itertools
import math
import shutil
from collections.abc import Iterator

import pytest
import torch

from genvs.config import GeNVSConfig
from genvs.data.types import ViewBatch
from tests.small_model import some_batch
from tests.small_training import BATCH, CPU, fresh_state, opened, records, small_run, train
from training.config import TrainConfig
from training.data import batch_schedule, load_batches, open_data
from training.loss import GeNVSLoss, LossTerms
from training.monitor import Monitor, records_before
from training.training_loop import accumulate_gradients, update_weights

# The order of data


def digest(batch: ViewBatch) -> str:
    parts = [batch.sample_index, batch.inputs.images, batch.targets.images]
    parts += [cameras.c2w for cameras in (batch.inputs.cameras, batch.targets.cameras)]
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def batches(config: TrainConfig, count: int, *, start: int = 0) -> list[ViewBatch]:
    return list(itertools.islice(load_batches(config, opened(config), start * config.batch_size, CPU), count))


def test_data_are_a_function_of_seed_and_place_for_any_workers_and_start(cars):
    config = small_run(cars, xflip=True)
    expected = [digest(batch) for batch in batches(config, 7)]
    assert len(set(expected)) == 7
    for workers in (1, 2):
        assert [digest(b) for b in batches(dataclasses.replace(config, workers=workers), 7)] == expected
    for start, workers in ((1, 0), (5, 0), (3, 2)):
        resumed = dataclasses.replace(config, workers=workers)
        assert [digest(batch) for batch in batches(resumed, 7 - start, start=start)] == expected[start:]
    other = dataclasses.replace(config, seed=1)
    assert not set(expected) & {digest(b) for b in batches(other, 7)}
    nets = [fresh_state(each).net for each in (config, config, other)]
    first, again, others = (torch.nn.utils.parameters_to_vector(net.parameters()) for net in nets)
    assert torch.equal(first, again) and not torch.equal(first, others), "so are the network's first weights"


def requests(config: TrainConfig, updates: int, world_size: int) -> list[list]:
    """Each update's requests in global order: rounds, then ranks, put together again."""
    rounds = config.rounds(world_size)
    ranks = [
        batch_schedule(config, [("rgb",)] * 11, rank=rank, world_size=world_size, cur_nimg=0)
        for rank in range(world_size)
    ]
    shares = [[next(rank) for _ in range(rounds) for rank in ranks] for _ in range(updates)]
    return [list(itertools.chain.from_iterable(update)) for update in shares]


@pytest.mark.parametrize(("world_size", "batch_gpu"), [(2, None), (4, None), (1, 4), (2, 4), (4, 4)])
def test_ranks_and_rounds_share_out_the_same_samples(world_size, batch_gpu):
    config = small_run("nowhere", batch_size=16, num_targets=2)
    whole = requests(config, 12, 1)
    assert requests(dataclasses.replace(config, batch_gpu=batch_gpu), 12, world_size) == whole
    flat = [request for update in whole for request in update]
    assert [request.sample_index for request in flat] == list(range(12 * 8)), "counted without a gap"
    assert {request.num_targets for request in flat} == {2}
    per_update = [{request.num_inputs for request in update} for update in whole]
    assert all(len(numbers) == 1 for numbers in per_update), "a batch has one number of inputs"
    assert set().union(*per_update) == {1, 2, 3}
    orders = [tuple(request.scene for request in flat[11 * epoch : 11 * epoch + 11]) for epoch in range(8)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(orders)) == 8, "each epoch has an order of its own"


def test_held_out_scenes_are_never_trained_on(cars):
    data = open_data(small_run(cars))
    assert data.held_out.path.name == "cars_val" and list(data.held_out_scenes) == [0, 1, 2]
    assert list(data.train_scenes) == list(range(12))
    # Without a validation split the last twentieth of the scenes, at least one, is kept apart.
    alone = open_data(small_run(cars.parent / "cars_val"))
    assert alone.train is alone.held_out
    assert (list(alone.train_scenes), list(alone.held_out_scenes)) == ([0, 1], [2])


# Gradients that are not finite


@pytest.fixture
def monitor(tmp_path) -> Iterator[Monitor]:
    with contextlib.closing(Monitor(tmp_path, CPU, rank=0, cur_nimg=0, total=1000)) as monitor:
        yield monitor


def test_a_run_whose_gradients_stay_bad_ends_and_says_so(cars, tmp_path, monkeypatch):
    monkeypatch.setattr("training.state.MAX_SKIPPED_IN_A_ROW", 5)
    with pytest.raises(FloatingPointError, match="5 updates in a row"):
        train(small_run(cars, 100, loss_scale=1e38, batch_size=1, num_targets=1, log_kimg=0.001), tmp_path)
    assert [record["Gradient/skipped"] for record in records(tmp_path)] == [1, 2, 3, 4]
    assert not list(tmp_path.glob("*.pt")) and not list(tmp_path.glob("*.pkl")), "nothing bad is saved"


def test_clipping_is_scaled_with_the_loss(cars, monitor):
    """So Adam, which only its epsilon keeps from ignoring a common factor, sees 64 times the gradients and no other."""
    config, moments = small_run(cars, optimizer="adam", max_grad_norm=0.01), []
    for scale in (1.0, 64.0):
        scaled, state = dataclasses.replace(config, loss_scale=scale), fresh_state(config)
        loss_fn = GeNVSLoss(config.loss, GeNVSConfig(), 0)
        accumulate_gradients(state.net, loss_fn, iter([some_batch(4)]), scaled, monitor)
        update_weights(state, scaled, monitor)
        moments.append([moment["exp_avg"] for moment in state.optimizer.moments])
    torch.testing.assert_close(moments[1], [64 * moment for moment in moments[0]], rtol=1e-3, atol=1e-10)


# What is recorded of the steps since the last record


def test_losses_are_means_over_all_targets_and_by_noise_level(monitor, tmp_path):
    generator = torch.Generator().manual_seed(0)
    rounds = []
    for shape in ((3, 2), (5, 1)):
        loss, rgb_loss = torch.rand(2, *shape, generator=generator).requires_grad_()
        sigma = 10 ** (4 * torch.rand(shape, generator=generator) - 2)
        monitor.report_losses(LossTerms(loss.mean(), loss, rgb_loss, sigma), BATCH, last_round=False)
        rounds.append(torch.stack([loss, rgb_loss, sigma]).flatten(1).detach())
    monitor.record(BATCH)
    monitor.record(2 * BATCH)
    loss, rgb_loss, sigma = torch.cat(rounds, dim=1)
    expected = {"Loss/all": loss, "Loss/rgb": rgb_loss}
    for low, high in itertools.pairwise((0, 0.1, 1, 10, math.inf)):
        expected[f"Loss/sigma_{low}_to_{high}"] = loss[(sigma >= low) & (sigma < high)]
    line, later = records(tmp_path)
    found = {name: value for name, value in line.items() if name.startswith("Loss/")}
    assert found == pytest.approx({name: values.mean().item() for name, values in expected.items()}, rel=1e-6)
    assert not later.keys() & expected.keys(), "each loss is recorded once"


# The log across a resume


def test_records_after_the_resumed_state_and_broken_lines_are_dropped(tmp_path):
    path = tmp_path / "stats.jsonl"
    lines = ['{"nimg": 8, "x": 1}', '{"nimg": 16}', '{"nimg": 24}', '{"x": 2}', '{"nimg": 1', ""]
    path.write_text("\n".join(lines))
    assert list(records_before(path, 16)) == lines[:2]
    assert list(records_before(tmp_path / "nothing", 16)) == []


def test_data_are_others_with_fewer_views_but_not_with_other_last_digits(cars, tmp_path):
    shutil.copytree(cars.parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / cars.name
    whole = opened(small_run(path))
    nearly = dataclasses.replace(whole.scene, far=whole.scene.far * (1 + 1e-15))
    assert dataclasses.replace(whole, scene=nearly).facts() == whole.facts()
    scene = min((tmp_path / f"{cars.name}_train").iterdir())
    for kind in ("rgb", "pose"):
        max((scene / kind).iterdir()).unlink()
    assert opened(small_run(path)).facts() != whole.facts()
