"""Training runs of a small network: what they learn, what they leave on disk, and that they repeat exactly."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import genvs
from genvs import files
from genvs.data.baselines import mean_training_image
from genvs.data.view_sampling import SampleRequest
from genvs.errors import InputError
from tests.small_model import randomize
from tests.small_training import (
    BATCH,
    CPU,
    distance,
    fresh_state,
    kimg,
    last_state,
    opened,
    records,
    resume,
    save_state,
    small_run,
    train,
    unequal,
)
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import open_data
from training.evaluation import HeldOutScenes
from training.loss import GeNVSLoss, LossTerms
from training.monitor import Monitor
from training.reporting import Reporter
from training.run_folder import find_resume_state
from training.state import saved_config

ROOT = Path(__file__).parents[2]


def launch(*arguments: str, processes: int = 1, start_new_session: bool = False) -> subprocess.Popen:
    """`train.py` in processes of its own, as train.sh launches it."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    launcher = ["-m", "torch_utils.launch", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [sys.executable, *(launcher if processes > 1 else []), "train.py", *arguments],
        cwd=ROOT,
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def finished(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of a process that ends with this exit code within two minutes."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, err
    return out, err


def mimg(updates: int) -> str:
    return f"{updates * BATCH / 1e6:.8f}"


@pytest.fixture(scope="module")
def six_updates(cars, tmp_path_factory) -> dict:
    """The training state after an undisturbed run of six updates."""
    return train(small_run(cars, 6), tmp_path_factory.mktemp("six"))


# Learning


def test_training_learns(cars, tmp_path):
    config = small_run(cars, 40, lr=5e-3, ema_halflife_kimg=kimg(5))
    data = opened(config)
    batch = data.train[[SampleRequest(scene, 10_000 + scene, 2, 2) for scene in range(12)]].to("cpu")
    loss_fn = GeNVSLoss(config.loss, sigma_data=0.5, seed=1)
    net, state = fresh_state(config).net, train(config, tmp_path)

    def loss_of(weights: dict) -> LossTerms:
        net.load_state_dict(weights)
        with torch.no_grad():
            return loss_fn(net, batch)

    before, after, of_ema = loss_of(net.state_dict()), loss_of(state["net"]), loss_of(state["ema"])
    assert state["cur_nimg"] == 40 * BATCH and state["skipped"] == 0
    for part in ("total", "loss", "rgb_loss"):
        ours, averaged, unlearned = (getattr(terms, part).mean().item() for terms in (after, of_ema, before))
        assert ours < 0.75 * unlearned and averaged < 0.75 * unlearned, (part, ours, averaged, unlearned)
    logged = [record["Loss/all"] for record in records(tmp_path)]
    assert len(logged) == 40 and sum(logged[-10:]) < 0.75 * 2 * sum(logged[:5])


# The same run, interrupted, divided, or shared out


def test_a_run_is_a_function_of_its_seed(cars, tmp_path, six_updates):
    assert unequal(train(small_run(cars, 6), tmp_path / "again", held_out=True), six_updates) == []
    assert distance(train(small_run(cars, 6, seed=1), tmp_path / "other"), six_updates) > 0.1


@pytest.mark.parametrize("stop", [1, 4])
def test_stop_and_resume_is_bitwise_the_undisturbed_run(cars, tmp_path, six_updates, stop):
    assert train(small_run(cars, stop), tmp_path)["cur_nimg"] == stop * BATCH
    state = resume(tmp_path, duration_kimg=kimg(6), workers=1)
    assert unequal(state, six_updates) == []
    assert [record["nimg"] for record in records(tmp_path)] == [BATCH * (step + 1) for step in range(6)]


def test_an_interrupted_run_saves_itself_and_continues_bitwise(cars, tmp_path):
    config, run_dir = small_run(cars, 1), tmp_path / "00000-run"
    run_dir.mkdir()
    save_state(run_dir, config, fresh_state(config))
    process = launch("--outdir", str(tmp_path), "--resume", "--duration", "1")
    deadline = time.monotonic() + 100
    while not ((run_dir / "stats.jsonl").exists() and len(records_so_far(run_dir)) >= 2):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = finished(process, code=130)
    stopped = last_state(run_dir)["cur_nimg"]
    assert stopped >= 2 * BATCH and f"stopped at {stopped / 1000:.1f} kimg" in out
    updates = stopped // BATCH + 2
    state = resume(run_dir, duration_kimg=kimg(updates))
    assert unequal(state, train(small_run(cars, updates), tmp_path / "undisturbed")) == []
    assert [record["nimg"] for record in records(run_dir)] == [BATCH * (step + 1) for step in range(updates)]


def begun(cars: Path, run_dir: Path, processes: int) -> subprocess.Popen:
    """A run with a loader for each process, in a session of its own, that has made two records."""
    options = ["--preset=cpu-demo", f"--data={cars}", f"--outdir={run_dir}", "--nosubdir", "--cbase=8", "--batch=4"]
    options += ["--workers=1", "--log_freq=0.004", "--tick=0.1", "--snap=10000", "--notensorboard"]
    process = launch(*options, processes=processes, start_new_session=True)
    deadline = time.monotonic() + 100
    while not ((run_dir / "stats.jsonl").exists() and len(records_so_far(run_dir)) >= 2):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("processes", "receiver"), [(1, "group"), (2, "launcher")])
def test_sigterm_saves_the_run_though_loaders_get_it_too(cars, tmp_path, processes, receiver):
    """As launchers and schedulers send it: torchrun passes it on to the group of every process."""
    process = begun(cars, tmp_path, processes)
    send = os.killpg if receiver == "group" else os.kill
    send(process.pid, signal.SIGTERM)
    out, _ = finished(process, code=130)
    stopped = last_state(tmp_path)["cur_nimg"]
    assert f"stopped at {stopped / 1000:.1f} kimg" in out
    assert records(tmp_path)[-1]["nimg"] == stopped


def test_when_one_process_is_killed_all_end_soon(cars, tmp_path):
    process = begun(cars, tmp_path, processes=2)
    pids = map(int, filter(str.isdecimal, os.listdir("/proc")))
    (of_rank_1,) = [pid for pid in pids if is_rank_1(pid, process.pid)]
    start = time.monotonic()
    os.kill(of_rank_1, signal.SIGKILL)
    finished(process, code=137)
    assert time.monotonic() - start < 20, "without the launcher's patience, which is half a minute"


def is_rank_1(pid: int, launcher: int) -> bool:
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return parent == launcher and b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone meanwhile
        return False


def records_so_far(run_dir: Path) -> list[str]:
    return (run_dir / "stats.jsonl").read_text().splitlines()


@pytest.fixture
def started(cars, tmp_path) -> tuple[TrainConfig, Path]:
    """A run at its start. No weight is zero, so that no gradient is so small that Adam blows up its rounding."""
    config, run_dir = small_run(cars, 4, lr=1e-3), tmp_path / "00000-started"
    state = fresh_state(config)
    randomize(state.net)
    randomize(state.ema.net)
    run_dir.mkdir()
    save_state(run_dir, config, state)
    return config, run_dir


@pytest.mark.parametrize("batch_gpu", [2, 4])
def test_accumulated_rounds_equal_one_round(started, tmp_path, batch_gpu):
    config, start = started
    content = last_state(start)
    whole = train(config, tmp_path / "whole", content)
    rounds = train(dataclasses.replace(config, batch_gpu=batch_gpu), tmp_path / "rounds", content)
    assert distance(rounds, whole) < 1e-5 and distance(rounds, whole, "ema") < 1e-5
    norms = [[record["Gradient/norm"] for record in records(tmp_path / run)] for run in ("rounds", "whole")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    less = train(dataclasses.replace(config, duration_kimg=kimg(3)), tmp_path / "less", content)
    assert distance(less, whole) > 1e-4, "a step shows"


def test_two_processes_equal_one_at_the_same_batch(started, tmp_path):
    config, run_dir = started
    content = last_state(run_dir)
    out, _ = finished(launch("--resume", str(run_dir), "--duration", mimg(4), processes=2))
    assert out.count("done:") == 1, "one process speaks"
    one, two = train(config, tmp_path / "one", content, held_out=True), last_state(run_dir)
    assert two["cur_nimg"] == one["cur_nimg"] == 4 * BATCH
    assert distance(two, one) < 1e-5 and distance(two, one, "ema") < 1e-5
    ours, theirs = records(tmp_path / "one"), records(run_dir)
    assert [record["nimg"] for record in ours] == [record["nimg"] for record in theirs]
    for name in ("Loss/all", "Loss/rgb", "Gradient/norm", "PSNR/mean_image", "PSNR/3_input", "PSNR/1_input_nearest"):
        found = [[record[name] for record in run if name in record] for run in (theirs, ours)]
        assert found[0] == pytest.approx(found[1], rel=1e-4), name
    assert json.loads((run_dir / "training_options.json").read_text())["duration_kimg"] == kimg(4)


# What a run leaves on disk


@pytest.fixture(scope="module")
def run_folder(cars, tmp_path_factory) -> tuple[Path, str]:
    """A run of `train.py` as a person starts it, and what it printed."""
    outdir = tmp_path_factory.mktemp("training_runs")
    options = {"outdir": outdir, "data": cars, "preset": "cpu-demo", "desc": "trial", "seed": 3}
    options |= {"cbase": 8, "cres": "1,1,1", "batch": 8, "targets": 2, "views": "1-2"}
    options |= {"duration": 48e-6, "tick": 0.016, "log_freq": 0.008, "snap": 2}
    out, _ = finished(launch(*[part for name, value in options.items() for part in (f"--{name}", f"{value}")]))
    (run,) = outdir.iterdir()
    return run, out


def test_the_run_folder(run_folder, cars):
    run, out = run_folder
    assert run.name == "00000-cars-cpu-demo-cpu1-batch8-fp32-trial"
    names = sorted(path.name for path in run.iterdir())
    (events,) = [name for name in names if name.startswith("events.out.tfevents")]
    assert names == sorted(
        [
            ".lock",
            "log.txt",
            "network-snapshot-000000.pkl",
            "samples-000000.png",
            "stats.jsonl",
            "training-state-000000.pt",
            "training_options.json",
            events,
        ]
    )
    options = json.loads((run / "training_options.json").read_text())
    assert (options["seed"], options["data"], options["batch_size"]) == (3, str(cars), 8)
    log = (run / "log.txt").read_text()
    assert log == out, "the log is what was printed"
    assert log.count("tick ") == 3 and "held-out PSNR" in log and log.count("done:") == 1


def test_stats_and_events_tell_the_same(run_folder):
    run, _ = run_folder
    lines = records(run)
    steps = [line for line in lines if "Progress/lr" in line]
    assert sorted({line["nimg"] for line in lines}) == [8, 16, 24, 32, 40, 48]
    timing = ("Timing/images_per_sec", "Timing/data_wait")
    for name in ("Loss/all", "Gradient/norm", "Gradient/skipped", *timing, "Memory/cpu_gb"):
        assert all(name in line for line in steps), name
    assert any(name.startswith("Loss/sigma_") for name in steps[0])
    ramp = TRAIN_PRESETS["cpu-demo"].lr * 40 / 2000
    assert steps[-1]["Progress/lr"] == pytest.approx(ramp, rel=1e-5), "that of the last update, at 40 images"
    assert all(0 < line["Timing/data_wait"] < 1 for line in steps)
    assert 0 < lines[-1]["Timing/evaluation_sec"] < lines[-1]["time"]
    scores = [name for name in lines[-1] if name.startswith("PSNR/")]
    assert sorted(scores) == sorted(
        f"PSNR/{name}" for name in ("mean_image", "1_input", "1_input_nearest", "3_input", "3_input_nearest")
    )
    events = EventAccumulator(str(run)).Reload()
    for name, line in [("Loss/all", steps[-1]), ("Progress/lr", steps[-1]), *((score, lines[-1]) for score in scores)]:
        values = {event.step: event.value for event in events.Scalars(name)}
        assert values[48] == pytest.approx(line[name], rel=1e-5)
    assert {event.step for event in events.Images("Samples")} == {32, 48}


def test_the_samples_sheet_is_a_picture_of_all_held_out_scenes(run_folder):
    with Image.open(run_folder[0] / "samples-000000.png") as sheet:
        assert sheet.width > 3 * 192 and sheet.height > 7 * 192
        assert len(sheet.convert("RGB").resize((64, 64)).getcolors(4096)) > 100


def test_the_snapshot_is_the_ema_with_the_datas_cameras(run_folder):
    run, _ = run_folder
    net, state = genvs.load_snapshot(run / "network-snapshot-000000.pkl"), last_state(run)
    assert state["cur_nimg"] == 48
    assert all(torch.equal(tensor, state["ema"][name]) for name, tensor in net.state_dict().items())
    scene = net.config.scene
    assert (scene.near, scene.far) == (0.8, 1.8)
    assert scene.focal == pytest.approx(131.25 / 128) and scene.radius == pytest.approx(1.3, rel=1e-4)


def test_files_are_written_when_due(cars, tmp_path):
    """States every second tick of 0.5 kimg and snapshots every fourth, with updates that pass over the marks."""
    config = dataclasses.replace(small_run(cars), batch_size=240, kimg_per_tick=0.5, log_kimg=1.0, duration_kimg=4.8)
    config = dataclasses.replace(config, snapshot_ticks=4, state_ticks=2)
    state = fresh_state(config)
    monitor = Monitor(tmp_path, CPU, rank=0, tensorboard=False, cur_nimg=0, total=config.total_nimg)
    reporter = Reporter(config, tmp_path, opened(config), state, monitor, CPU)
    for _ in range(20):
        state.cur_nimg += 240
        reporter.step()
    reporter.finish(interrupted=False)
    reporter.close()
    monitor.close()
    written = sorted(path.name for path in tmp_path.iterdir())
    states, snapshots = (1, 2, 3, 4), (2, 4)
    expected = [f"training-state-{number:06d}.pt" for number in states]
    assert written == sorted(
        [*expected, *(f"network-snapshot-{number:06d}.pkl" for number in snapshots), "stats.jsonl"]
    )
    contents = [files.load(tmp_path / name)["cur_nimg"] for name in expected]
    assert contents == [1200, 2160, 3120, 4800], "the last of a number is kept: at 4080 and at the end"
    assert [record["nimg"] for record in records(tmp_path)] == [
        720,
        1200,
        1680,
        2160,
        2640,
        3120,
        3600,
        4080,
        4560,
        4800,
    ]


def test_the_scores_are_those_of_the_snapshot(run_folder, cars):
    run, _ = run_folder
    data = open_data(small_run(cars))
    held_out = HeldOutScenes(data.held_out, range(3), mean_training_image(data.train, range(12)), CPU)
    scores = held_out.measure(genvs.load_snapshot(run / "network-snapshot-000000.pkl"), 8)
    assert scores == pytest.approx({name: records(run)[-1][name] for name in scores}, abs=1e-4)


def test_training_starts_from_a_transferred_snapshot(cars, tmp_path):
    config = small_run(cars, 1)
    state = fresh_state(config)
    randomize(state.net, seed=5)
    genvs.save_snapshot(tmp_path / "net.pkl", state.net.config, state.net.state_dict())
    started = fresh_state(dataclasses.replace(config, transfer=str(tmp_path / "net.pkl")))
    source = state.net.state_dict()
    for net in (started.net, started.ema.net):
        assert all(torch.equal(tensor, source[name]) for name, tensor in net.state_dict().items())


def test_a_transferred_network_may_be_told_more_or_less_than_before(cars, tmp_path):
    plain = small_run(cars, 1)
    denoiser = dataclasses.replace(plain.net.denoiser, augment_labels=6)
    net, loss = dataclasses.replace(plain.net, denoiser=denoiser), dataclasses.replace(plain.loss, augment=0.12)
    told = dataclasses.replace(plain, net=net, loss=loss)
    layer = "denoiser.unet.embed_augment.weight"
    for source, target in ((plain, told), (told, plain)):
        state = fresh_state(source)
        randomize(state.net, seed=5)
        genvs.save_snapshot(tmp_path / "net.pkl", state.net.config, state.net.state_dict())
        weights = state.net.state_dict()
        started = fresh_state(dataclasses.replace(target, transfer=str(tmp_path / "net.pkl"))).net.state_dict()
        assert started.keys() ^ weights.keys() == {layer}
        assert all(torch.equal(weights.get(name, torch.zeros(())), tensor) for name, tensor in started.items()
                   if name != layer) and not started.get(layer, torch.zeros(())).any()  # fmt: skip


def test_a_damaged_state_gives_way_to_the_one_before(cars, tmp_path, six_updates, capsys):
    train(small_run(cars, 4), tmp_path)
    good = tmp_path / "training-state-000000.pt"
    for number, keep in ((1, 0), (2, 1000), (10, 50_000)):
        damaged = tmp_path / f"training-state-{number:06d}.pt"
        shutil.copy(good, damaged)
        os.truncate(damaged, keep)
    for path in tmp_path.glob("training-state-*.pt"):
        if path != good:
            with pytest.raises(InputError):
                files.load(path)
    capsys.readouterr()
    path, content = find_resume_state(str(tmp_path), "")
    assert path == good and content["cur_nimg"] == 4 * BATCH
    out = capsys.readouterr().out
    assert all(f"training-state-{number:06d}.pt" in out for number in (1, 2, 10))
    longer = dataclasses.replace(saved_config(content), duration_kimg=kimg(6))
    assert unequal(train(longer, tmp_path / "on", content), six_updates) == []
