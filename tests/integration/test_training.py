"""Training runs of a small network: what they learn, what they leave on disk, and that they repeat exactly."""

import contextlib
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import genvs
import train as program
from genvs.config import GeNVSConfig
from genvs.data.scenes import SampleRequest
from genvs.settings import set_by_path
from tests.faults.launcher import completed
from tests.small_model import randomize, saved
from tests.small_training import (
    BATCH,
    CPU,
    distance,
    fresh_state,
    kimg,
    last_state,
    opened,
    records,
    reporter_of,
    save_state,
    small_run,
    train,
)
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import open_data
from training.evaluation import Evaluation
from training.loss import GeNVSLoss, LossTerms

# Learning


def test_training_learns(cars, tmp_path):
    config = small_run(cars, 50, lr=5e-3, ema_halflife_kimg=kimg(5))
    data = opened(config)
    batch = data.train[[SampleRequest(scene, 10_000 + scene, 2, 2) for scene in range(12)]].to("cpu")
    loss_fn = GeNVSLoss(config.loss, GeNVSConfig(), 1)
    net, state = fresh_state(config).net, train(config, tmp_path)

    def loss_of(weights: dict) -> LossTerms:
        net.load_state_dict(weights)
        with torch.no_grad():
            return loss_fn(net, batch)

    before, after, of_ema = loss_of(net.state_dict()), loss_of(state["net"]), loss_of(state["ema"])
    assert state["cur_nimg"] == 50 * BATCH and state["skipped"] == 0
    for part in ("total", "loss", "rgb_loss"):
        trained, averaged, untrained = (getattr(terms, part).mean().item() for terms in (after, of_ema, before))
        assert trained < 0.75 * untrained and averaged < 0.75 * untrained, (part, trained, averaged, untrained)


# The same run, divided, or shared out


@pytest.fixture(scope="module")
def started(cars, tmp_path_factory) -> tuple[TrainConfig, Path]:
    """A run at its start. No weight is zero, so that no gradient is so small that Adam blows up its rounding."""
    run_dir = tmp_path_factory.mktemp("started")
    config = small_run(cars, 3, lr=1e-3, snapshot_ticks=1)
    state = fresh_state(config)
    randomize(state.net)
    randomize(state.ema)
    save_state(run_dir, config, state)
    return config, run_dir


def test_accumulated_rounds_equal_one_round(started, tmp_path):
    config, run_dir = started
    content = last_state(run_dir)
    whole = train(config, tmp_path / "whole", content)
    rounds = train(dataclasses.replace(config, batch_gpu=2), tmp_path / "rounds", content)
    assert distance(rounds, whole) < 1e-5 and distance(rounds, whole, "ema") < 1e-5
    norms = [[record["Gradient/norm"] for record in records(tmp_path / run)] for run in ("rounds", "whole")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    less = train(dataclasses.replace(config, duration_kimg=kimg(2)), tmp_path / "less", content)
    assert distance(less, whole) > 1e-4, "a step shows"


def test_two_processes_equal_one_at_the_same_batch(started, tmp_path):
    config, start = started
    run_dir = shutil.copytree(start, tmp_path / "two")
    out, err = completed(run_dir, "--workers=1", "--logger=tensorboard", processes=2)
    assert out.count("Done:") == 1 and "Traceback" not in err and list(run_dir.glob("events.*"))
    one, two = train(config, tmp_path / "one", last_state(start), held_out=True), last_state(run_dir)
    assert two["cur_nimg"] == one["cur_nimg"] == 3 * BATCH
    assert distance(two, one) < 1e-5 and distance(two, one, "ema") < 1e-5
    for name in ("Loss/all", "Loss/rgb", "Gradient/norm", "PSNR/mean_image", "PSNR/3_input", "PSNR/1_input_nearest"):
        found = [[record[name] for record in records(run) if name in record] for run in (run_dir, tmp_path / "one")]
        assert found[0] == pytest.approx(found[1], rel=1e-4), name


# What a run leaves on disk


@pytest.fixture(scope="module")
def run_folder(cars, tmp_path_factory) -> tuple[Path, str]:
    """A run of `train.py` as a person starts it, and what it printed."""
    outdir = tmp_path_factory.mktemp("training_runs")
    options = {"outdir": outdir, "data": cars, "preset": "cpu-demo", "desc": "trial", "seed": 3}
    options |= {"cbase": 8, "cres": "1,1,1", "batch": 8, "targets": 2, "views": "1-2", "workers": 0}
    options |= {"duration": 48e-6, "tick": 0.016, "log_freq": 8, "snap": 2}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        program.main.main([f"--{name}={value}" for name, value in options.items()], standalone_mode=False)
    (run,) = outdir.iterdir()
    return run, printed.getvalue()


def test_the_run_folder(run_folder, cars):
    run, out = run_folder
    machine, precision = ("cuda1", "bf16") if torch.cuda.is_available() else ("cpu1", "fp32")
    assert run.name == f"00000-cars-cpu-demo-{machine}-batch8-{precision}-trial"
    (events,) = run.glob("events.out.tfevents*")
    expected = {".lock", "log.txt", "network-snapshot-000000.pkl", "samples-000000.png", "stats.jsonl", events.name}
    expected |= {"training-state-000000.pt", "training_options.json"}
    assert {path.name for path in run.iterdir()} == expected
    options = json.loads((run / "training_options.json").read_text())
    assert (options["seed"], options["data"], options["batch_size"]) == (3, str(cars), 8)
    log = (run / "log.txt").read_text()
    assert log == out, "the log is what was printed"
    assert "held-out PSNR" in log and log.count("Done:") == 1
    status = [line for line in log.splitlines() if line.startswith("tick ")]
    assert len(status) == 5, "of the first and third update, and of each tick"
    assert all("left" in line for line in status)


def test_stats_and_events_tell_the_same(run_folder):
    run, _ = run_folder
    lines = records(run)
    steps, last = [line for line in lines if "Progress/lr" in line], lines[-1]
    assert sorted({line["nimg"] for line in lines}) == [8, 16, 24, 32, 40, 48]
    timings = ("Timing/images_per_sec", "Timing/data_wait", "Timing/hours_left")
    for name in ("Loss/all", "Gradient/norm", "Gradient/skipped", *timings, "Memory/cpu_gb"):
        assert all(name in line for line in steps), name
    ramp = TRAIN_PRESETS["cpu-demo"].lr * 40 / 2000
    assert steps[-1]["Progress/lr"] == pytest.approx(ramp, rel=1e-5), "that of the last update, at 40 images"
    assert 0 < last["Timing/evaluation_sec"] < last["time"]
    scores = {f"PSNR/{name}" for name in ("mean_image", "1_input", "1_input_nearest", "3_input", "3_input_nearest")}
    assert scores == {name for name in last if name.startswith("PSNR/")}
    events = EventAccumulator(str(run)).Reload()
    shown = {name: value for name, value in (steps[-1] | last).items() if name not in ("nimg", "time")}
    assert any(name.startswith("Loss/sigma_") for name in shown)
    for name, value in shown.items():
        values = {event.step: event.value for event in events.Scalars(name)}
        assert values[48] == pytest.approx(value, rel=1e-5), name
    assert {event.step for event in events.Images("Samples")} == {32, 48}
    assert [event.step for event in events.Images("Cameras")] == [0]
    orbits = events.Images("Orbit")
    assert [event.step for event in orbits] == [32, 48]
    with Image.open(io.BytesIO(orbits[-1].encoded_image_string)) as animation:
        assert (animation.format, animation.n_frames, animation.size) == ("GIF", 12, (256, 256))
        first, opposite = (animation.seek(place) or np.asarray(animation.convert("RGB")) for place in (0, 6))
        assert (first != opposite).any()
    with Image.open(run / "samples-000000.png") as sheet:
        assert sheet.width > 3 * 192 and sheet.height > 7 * 192
        assert len(sheet.convert("RGB").resize((64, 64)).getcolors(4096)) > 100


def test_the_snapshot_is_the_ema_with_the_datas_cameras_and_scores(run_folder, cars):
    run, _ = run_folder
    net, state = genvs.load_snapshot(run / "network-snapshot-000000.pkl"), last_state(run)
    assert all(torch.equal(tensor, state["ema"][name]) for name, tensor in net.state_dict().items())
    scene = net.config.scene
    assert (scene.near, scene.far) == (0.8, 1.8)
    assert scene.focal == pytest.approx(131.25 / 128) and scene.radius == pytest.approx(1.3, rel=1e-4)
    scores = Evaluation(open_data(small_run(cars)), CPU).measure(net, 8)
    assert scores == pytest.approx({name: records(run)[-1][name] for name in scores}, abs=1e-4)


@pytest.mark.parametrize(("max_inputs", "views"), [(3, "held-out"), (4, "training-view")])
def test_one_scene_alone_is_evaluated_on_views_held_out_if_enough_are_left(cars, tmp_path, capsys, max_inputs, views):
    train_split = cars.with_name("cars_train")
    shutil.copytree(train_split / "000000", tmp_path / "one" / "000000")
    train(small_run(tmp_path / "one", 1, max_inputs=max_inputs), tmp_path / "run", held_out=True)
    assert f"{views} PSNR" in capsys.readouterr().out
    assert "PSNR/1_input" in records(tmp_path / "run")[-1] and list((tmp_path / "run").glob("samples-*.png"))


def test_files_are_written_when_due(cars, tmp_path):
    """With updates that pass over the marks, and 1.1 * 3, which is a little more than 3.3."""
    config = small_run(cars, batch_size=660, kimg_per_tick=1.1, log_kimg=2.0, duration_kimg=7.26)
    config = dataclasses.replace(config, snapshot_ticks=6, state_ticks=3)
    state = fresh_state(config)
    with reporter_of(config, state, tmp_path) as reporter:
        while state.cur_nimg < config.total_nimg:
            state.cur_nimg += 660
            reporter.step()
        reporter.finish(interrupted=False)
    files = {"training-state-000003", "training-state-000006", "training-state-000007", "stats"}
    files |= {"network-snapshot-000006", "network-snapshot-000007"}
    assert {path.stem for path in tmp_path.iterdir()} == files
    due = [1320, 2640, 3300, 4620, 5940, 6600, 7260]
    first = [660, 1980, 6600]  # the first, third and tenth update
    assert [record["nimg"] for record in records(tmp_path)] == sorted({*due, *first})


# Starting from a snapshot


AT_48_PIXELS, LABELLED = {"net.resolution": "48"}, {"loss.augment": "0.12"}


@pytest.mark.parametrize(("source", "target"), [({}, AT_48_PIXELS), ({}, LABELLED), (LABELLED, {})])
def test_training_starts_from_a_transferred_snapshot(cars, tmp_path, source, target):
    """Layers for labels that the snapshot lacks are 0, and those that the run lacks are left out."""
    configs = [set_by_path(small_run(cars, 1), changes) for changes in (source, target)]
    state = fresh_state(configs[0])
    randomize(state.net, seed=5)
    transfer = str(saved(tmp_path / "net.pkl", state.net))
    started = fresh_state(dataclasses.replace(configs[1], transfer=transfer))
    assert started.net.config.resolution == configs[1].net.resolution
    layer, given = "denoisers.rgb.unet.embed_augment.weight", state.net.state_dict()
    for net in (started.net, started.ema):
        weights = net.state_dict()
        assert weights.keys() ^ given.keys() == ({layer} if LABELLED in (source, target) else set())
        if source is not LABELLED:
            assert not weights.pop(layer, torch.zeros(())).any()
        assert all(torch.equal(given[name], tensor) for name, tensor in weights.items())


def test_a_snapshot_of_numbers_that_are_not_finite_is_refused(cars, tmp_path):
    net = fresh_state(small_run(cars, 1)).net
    next(net.denoisers.parameters()).data.view(-1)[0] = float("nan")
    path = saved(tmp_path / "net.pkl", net)
    with pytest.raises(genvs.errors.InputError, match=f"^{path}: .*finite"):
        fresh_state(small_run(cars, 1, transfer=str(path)))
