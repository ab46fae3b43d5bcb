"""Every architecture, preconditioning and view weighting trains, saves, comes back and samples, at tiny size."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch

import genvs
from genvs.config import (
    ARCHITECTURES,
    AUGMENT_LABELS,
    LEARNED_VIEW_WEIGHTINGS,
    SIGMA_RANGES,
    DenoiserConfig,
    GeNVSConfig,
)
from genvs.errors import InputError
from genvs.sampling.synthesis import synthesize_views
from tests.host_waits import host_waits
from tests.small_model import randomize, saved, small_config, small_net, some_batch, some_cameras
from tests.small_training import CPU, fresh_state, kimg, resume, small_run, train, unequal
from training.config import TrainConfig
from training.data import batch_schedule, load_batches, open_data
from training.evaluation import Evaluation
from training.loss import GeNVSLoss
from training.monitor import Monitor
from training.state import create_state
from training.training_loop import accumulate_gradients, update_weights

# Each pair of architecture and preconditioning, and each view weighting that learns, at least once. What weightings
# without weights compute is in tests/numerics/test_view_weighting.py.
WEIGHTINGS = [*LEARNED_VIEW_WEIGHTINGS, "baseline_mean", "error_weighting_alpha=0.5"]
PAIRS = itertools.product(ARCHITECTURES, SIGMA_RANGES)
FAMILIES = [(*pair, name) for pair, name in zip(PAIRS, itertools.cycle(WEIGHTINGS), strict=False)]


def family(data: Path, arch: str, precond: str, weighting: str = "baseline_mean", **changes) -> TrainConfig:
    low, high = SIGMA_RANGES[precond]
    settings = {"arch": arch, "precond": precond, "sigma_min": low, "sigma_max": high, "dropout": 0.1}
    net = small_config(residual_encoder=arch == "ncsnpp", centre_on_colours=False, **settings)
    net = dataclasses.replace(net, view_weighting=weighting)
    small = {"updates": 2, "net": net, "batch_size": 4, "num_targets": 1, "max_inputs": 2, "duration_kimg": 0.008}
    return small_run(data, **{**small, **changes})


@pytest.mark.parametrize(("arch", "precond", "weighting"), FAMILIES, ids=["-".join(each) for each in FAMILIES])
def test_every_family_trains_and_samples(cars, tmp_path, arch, precond, weighting):
    config = family(cars, arch, precond, weighting)
    initial = fresh_state(config).net.state_dict()
    content = train(config, tmp_path / "run")
    assert content["skipped"] == 0 and content["cur_nimg"] == 8
    moved = [name for name, tensor in content["net"].items() if not torch.equal(tensor, initial[name])]
    learned = [name for name in initial if "view_weights" in name and "weight_calculation_layer.bias" not in name]
    assert {"encoders", "renderer", "denoisers"} == {name.partition(".")[0] for name in moved}
    assert set(learned) <= set(moved) and bool(learned) == (weighting in LEARNED_VIEW_WEIGHTINGS)

    net = genvs.load_snapshot(next((tmp_path / "run").glob("network-snapshot-*.pkl")))
    assert net.config == dataclasses.replace(config.net, scene=net.config.scene)
    inputs = some_batch(1, num_inputs=2).inputs
    views = synthesize_views(net, inputs, some_cameras(1, 2, seed=9), num_steps=2, progress=False)
    images = torch.stack([image for image, _ in views])
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all() and images.std() > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_step_of_every_family_waits_for_nothing(tmp_path, arch):
    config = family(Path("nowhere"), arch, "vp", LEARNED_VIEW_WEIGHTINGS[arch == "adm"], fp16=True, bf16=False)
    state = create_state(config, config.net.scene, CPU)
    loss_fn = GeNVSLoss(config.loss, GeNVSConfig(denoiser=DenoiserConfig(precond="vp")), 0)
    monitor = Monitor(tmp_path, CPU, rank=1, cur_nimg=0, total=1)
    batches = itertools.repeat(some_batch(4, num_targets=1))
    for _ in range(2):
        with host_waits() as found:
            accumulate_gradients(state.net, loss_fn, batches, config, monitor, scale=state.scale)
            update_weights(state, config, monitor)
        assert found == []


# The view weighting alone


def test_the_view_weighting_alone_learns_in_a_transferred_network(cars, tmp_path):
    source = small_net()
    net = dataclasses.replace(source.config, view_weighting="relative_pose_self_attention")
    transfer = str(saved(tmp_path / "net.pkl", source))
    changes = {"net": net, "only_train_cam_weighter": True, "transfer": transfer, "min_inputs": 2}
    config = small_run(cars, 3, **changes)
    initial = fresh_state(config).net.state_dict()
    assert all(torch.equal(initial[name], tensor) for name, tensor in source.state_dict().items())

    whole = train(config, tmp_path / "whole")
    moved = {name for name, tensor in whole["net"].items() if not torch.equal(tensor, initial[name])}
    assert moved and all(name.startswith("renderer.view_weights.") for name in moved)
    assert len(whole["optimizer"]["state"]) == sum(name.startswith("renderer.view_weights.") for name in initial)
    train(dataclasses.replace(config, duration_kimg=kimg(2)), tmp_path / "stopped")
    assert unequal(whole, resume(tmp_path / "stopped", duration_kimg=kimg(3))) == []


# Classes and augmentation


@pytest.fixture(scope="module")
def labelled(cars, tmp_path_factory) -> Path:
    """The cars in three classes."""
    path = tmp_path_factory.mktemp("labelled") / "cars"
    for split in ("train", "val"):
        folder = path.with_name(f"cars_{split}")
        shutil.copytree(cars.with_name(f"cars_{split}"), folder)
        scenes = sorted(each.name for each in folder.iterdir() if each.is_dir())
        (folder / "labels.json").write_text(json.dumps({name: place % 3 for place, name in enumerate(scenes)}))
    return path


def conditional(data: Path, updates: int, **changes) -> TrainConfig:
    loss = dataclasses.replace(small_run(data).loss, augment=0.5)
    net = small_config(augment_labels=AUGMENT_LABELS)
    return small_run(data, updates, net=net, cond=True, loss=loss, fp16=True, bf16=False, **changes)


def test_a_network_with_all_labels_trains_resumes_and_samples(labelled, tmp_path):
    """fp16's loss scaling is on too; without a GPU arithmetic is in float32 nonetheless."""
    whole = train(conditional(labelled, 3), tmp_path / "whole", held_out=True)
    train(conditional(labelled, 2), tmp_path / "stopped")
    resumed = resume(tmp_path / "stopped", duration_kimg=kimg(3))
    assert unequal(whole, resumed) == [] and whole["scale"] == resumed["scale"] == 2.0**16
    assert whole["scale_updates"] == resumed["scale_updates"] == 3
    net = genvs.load_snapshot(next((tmp_path / "whole").glob("network-snapshot-*.pkl")))
    assert net.config.scene.num_classes == 3 and net.denoisers["rgb"].unet.embed_class.in_features == 3
    assert any(net.denoisers["rgb"].unet.embed_augment.weight.flatten() != 0)
    randomize(net)
    inputs, targets = some_batch(1, num_inputs=2).inputs, some_cameras(1, 2, seed=9)
    drawn = []
    for class_id in (None, 0, 2, 0):
        views = synthesize_views(net, inputs, targets, num_steps=1, class_id=class_id, progress=False)
        drawn.append(torch.stack([image for image, _ in views]))
    assert torch.equal(drawn[1], drawn[3])
    assert len({float(images.sum()) for images in drawn}) == 3
    for network, class_id in ((net, 3), (net, -1), (small_net(), 0)):
        with pytest.raises(InputError, match="class_id"):
            next(synthesize_views(network, inputs, targets, num_steps=1, class_id=class_id, progress=False))


def test_each_sample_comes_with_its_scenes_class(labelled):
    config = conditional(labelled, 8)
    data = open_data(config)
    schedule = batch_schedule(config, [("rgb",)] * len(data.train_scenes), rank=0, world_size=1, cur_nimg=16)
    batches = itertools.islice(load_batches(config, data, 16, CPU), 4)
    for batch, requests in zip(batches, schedule, strict=False):
        assert [request.sample_index for request in requests] == batch.sample_index.tolist()
        assert batch.classes.argmax(dim=1).tolist() == [request.scene % 3 for request in requests]


def test_evaluation_is_conditioned_on_the_class(labelled):
    config = conditional(labelled, 1)
    data, state = open_data(config), fresh_state(config)
    right = Evaluation(data, CPU)
    data.held_out.one_hot = data.held_out.one_hot.roll(1, 0)
    wrong = Evaluation(data, CPU)
    randomize(state.net)
    scores = [each.measure(state.net.eval(), 9)["PSNR/1_input"] for each in (right, wrong)]
    assert scores[0] != scores[1]
    assert right.panel(state.net, "title").size[0] > 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, ["labels.json", "is missing", "`cond`"]),
        ("[1]", ["labels.json", "JSON"]),
        ("{", ["labels.json", "JSON"]),
        ("{}", ["labels.json", "class None"]),
        (-1, ["labels.json", "-1"]),
        (99999, ["labels.json", "99999"]),
        ("car", ["labels.json", "'car'"]),
        ("of held-out scenes alone", ["class 7"]),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labelled, tmp_path, content, named):
    for split in ("train", "val"):
        shutil.copytree(labelled.with_name(f"cars_{split}"), tmp_path / f"cars_{split}")
    file, held_out = (tmp_path / f"cars_{split}" / "labels.json" for split in ("train", "val"))
    if content == "of held-out scenes alone":
        held_out.write_text(held_out.read_text().replace(": 2", ": 7"))
    elif content is None:
        file.unlink()
    elif content in ("[1]", "{", "{}"):
        file.write_text(content)
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"000000": content}))
    with pytest.raises(InputError) as caught:
        open_data(conditional(tmp_path / "cars", 1))
    assert all(name in str(caught.value) for name in named) and "\n" not in str(caught.value), caught.value
