"""train.py's command line: what it makes of its options, and one line for each that cannot work."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import genvs
import train
from dnnlib.command import run_command
from genvs.config import PRESETS, DenoiserConfig
from genvs.models import GeNVS
from genvs.settings import from_dict, set_by_path
from tests.conftest import ROOT
from tests.small_model import saved
from tests.small_training import fresh_state, save_state, small_run
from training.config import TRAIN_PRESETS, TrainConfig
from training.run_folder import OPTIONS_FILE, check_outdir, last_line, locked_and_logged, new_run_folder


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def program(monkeypatch, capsys, tmp_path) -> Callable[..., Done]:
    """Runs train.py in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run_command(train.main, ["--outdir", "training_runs", *map(str, arguments)])
        return Done(end.value.code, *capsys.readouterr())

    return run


def options_of(done: Done) -> TrainConfig:
    """The config that a dry run printed."""
    assert done.code == 0, done.err
    text, _, rest = done.out.rpartition("}")
    assert "in order" in rest
    return from_dict(TrainConfig, json.loads(text + "}"))


# What options mean


@pytest.mark.parametrize("preset", list(TRAIN_PRESETS))
def test_a_dry_run_prints_all_settings_and_makes_nothing(program, tmp_path, preset):
    assert options_of(program("--dry-run", "--preset", preset)) == TRAIN_PRESETS[preset]
    assert list(tmp_path.iterdir()) == []


def test_options_change_the_preset(program, cars):
    words = """
        --near 0.7 --far 1.9 --resolution 64 --cbase 8 --cres 1,1,2 --dropout 0.2 --duration 0.5 --batch 24
        --batch_gpu 12 --views 1-2 --targets 3 --lr 0.01 --ema 0.25 --xflip --bf16 false --ls 2 --seed 9 --cache false
        --workers 3 --tick 2 --log_freq 500 --snap 7 --dump 8 --notensorboard --bench 1 --cuda-graphs 0
        --set loss.P_mean=-0.5 --set net.renderer.num_samples=96
    """.split()
    config = options_of(program("--preset", "cpu-demo", "--data", os.path.relpath(cars), *words, "-n"))
    settings = {
        **{"net.resolution": 64, "net.denoiser.model_channels": 8, "net.denoiser.channel_mult": (1, 1, 2), "seed": 9},
        **{"net.denoiser.dropout": 0.2, "net.renderer.num_samples": 96, "loss.P_mean": -0.5, "data": str(cars)},
        **{"near": 0.7, "far": 1.9, "duration_kimg": 500.0, "batch_size": 24, "batch_gpu": 12, "min_inputs": 1},
        **{"max_inputs": 2, "num_targets": 3, "lr": 0.01, "ema_halflife_kimg": 250.0, "xflip": True, "bf16": False},
        **{"loss_scale": 2.0, "cache": False, "workers": 3, "kimg_per_tick": 2.0, "log_kimg": 0.5, "bench": True},
        **{"snapshot_ticks": 7, "state_ticks": 8, "logger": None, "cuda_graphs": False},
    }
    assert config == set_by_path(TRAIN_PRESETS["cpu-demo"], settings)


def test_options_that_bring_others_along(program, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert options_of(program("-n")).preset == "srn128"
    arguments = ["--precond", "ve", "--augment", "0.12", "--fp16", "--arch", "adm", "--views", "2", "--kimg", "20"]
    config, base = options_of(program("-n", "--preset", "srn128", *arguments)), TRAIN_PRESETS["srn128"]
    assert config == dataclasses.replace(
        base,
        net=dataclasses.replace(base.net, denoiser=DenoiserConfig(arch="adm", precond="ve", augment_labels=6)),
        loss=dataclasses.replace(base.loss, augment=0.12),
        **{"fp16": True, "min_inputs": 2, "max_inputs": 2, "duration_kimg": 20.0},
    )


def test_help_shows_the_presets_values(program):
    done = program("--preset", "demo", "--help")
    words = " ".join(done.out.split())
    channels = ",".join(map(str, PRESETS["demo"].denoiser.channel_mult))
    for value in ("demo", "256", "0.002", channels, "1-3", "4", "1650", "5000"):
        assert f"[default: {value}" in words
    assert "None" not in done.out


# What cannot work


def assert_refused(done: Done, *named: str) -> None:
    """Exit code 2, and one line that names what is wrong."""
    assert done.code == 2, (done.code, done.err)
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("Error: ") and all(name in line for name in named), done.err
    assert "Traceback" not in done.out + done.err


REFUSED = {
    "--data nowhere/cars": "/nowhere/cars folder",
    "--batch 32 --batch-gpu 5": "--batch=32 --batch-gpu",
    "--duration 1 --kimg 1000": "--duration --kimg",
    "--desc a/b": "--desc 'a/b'",
    f"--outdir {__file__}": "test_train_options.py --outdir",
    "--outdir /proc/runs": "/proc --outdir",
    "--cres 1,1,1,1,1,1,1": "--resolution=32 --cres",
    "--cres 1,x": "--cres=1,x",
    "--views 3-1": "--views=3-1",
    "--only_train_cam_weighter": "--only_train_cam_weighter baseline_mean --cam_weighting_method",
    "--only_train_cam_weighter --cam_weighting_method learned_cross_attention": "--transfer",
    "--distill a.pkl --transfer b.pkl": "--distill --transfer",
    "--set distill_steps=2": "--set distill_steps=2 --distill",
    "--set distill_steps=3": "distill_steps=3",
    "--set matching_kimg=1": "matching_kimg few-step",
    "--grad-compression bf16": "--grad-compression GPU",
    "--set loss.P_mean": "--set loss.P_mean",
    "--set P_mean=1": "P_mean loss.P_mean",
    "--set net.scene.near=1": "--set net.scene.near",
    "--resume --outdir empty": "empty --resume",
    "--resume nowhere": "/nowhere folder",
}


@pytest.mark.parametrize("arguments", list(REFUSED))
def test_what_cannot_work_is_refused_before_anything_starts(program, monkeypatch, tmp_path, arguments):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = program("--preset", "cpu-demo", *arguments.split(), "--dry-run")
    assert_refused(done, *REFUSED[arguments].split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--transfer", "--encoder-weights"])
def test_weights_that_cannot_be_read_are_refused(program, cars, tmp_path, option):
    path = tmp_path / "weights"
    arguments = ("--preset", "cpu-demo", "--data", cars, option, path, "-n")
    assert_refused(program(*arguments), str(path))
    path.write_text("no weights")
    assert_refused(program(*arguments), str(path))
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, path)
    assert_refused(program(*arguments), "encoder" if option == "--encoder-weights" else str(path))


def test_weights_that_cannot_be_downloaded_are_named(program, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("training.state.IMAGENET_URL", "http://127.0.0.1:9/resnet34-b627a593.pth")
    done = program("--preset", "cpu-demo", "--encoder-weights", "imagenet", "-n")
    assert_refused(done, "--encoder-weights", "127.0.0.1", str(tmp_path / "torch"))


@pytest.fixture
def snapshot(tmp_path) -> Callable[[dict], Path]:
    """Saves a snapshot of cpu-demo with other settings."""

    def save(settings: dict, **notes) -> Path:
        return saved(tmp_path / "snapshot.pkl", GeNVS(set_by_path(PRESETS["cpu-demo"], settings)), **notes)

    return save


@pytest.mark.parametrize("other", [{"encoder.aspp_rates": (1, 2)}, {"denoiser.model_channels": 8, "resolution": 64}])
def test_a_snapshot_of_another_size_names_settings_that_fit(program, cars, snapshot, other):
    """For a snapshot of an older version too, which has a branch of ASPP with a rate that is refused now."""
    arguments = ["--preset", "cpu-demo", "--data", cars, "--transfer", snapshot(other), "--dry-run"]
    done = program(*arguments)
    assert_refused(done, "snapshot.pkl", *(f"--set net.{name}=" for name in other))
    remedy = done.err[done.err.index("--set") :]
    assert program(*arguments, *remedy.split()).code == 0


def test_a_snapshot_of_another_size_is_refused_before_images_are_drawn_or_packed(program, cars, snapshot, monkeypatch):
    monkeypatch.setattr(train, "draw_embedded_data", lambda config: pytest.fail("drawn"))
    monkeypatch.setattr(train, "pack_data", lambda data: pytest.fail("packed"))
    arguments = ["--preset", "cpu-demo", "--transfer", snapshot({"denoiser.model_channels": 8})]
    for data in ([], ["--data", cars]):
        assert_refused(program(*arguments, *data), "snapshot.pkl", "leave out --preset")


def test_a_snapshot_brings_the_preset_of_its_network(program, monkeypatch):
    """Unless another one is given."""
    monkeypatch.setattr(train, "default_preset", lambda: "srn64")
    arguments = ["--modalities", "rgb,raysar", "--transfer", ROOT / "models" / "demo.pkl", "-n"]
    config = options_of(program(*arguments))
    assert config.preset == "demo" and config.net.modalities == ("rgb", "sar")
    assert_refused(program(*arguments, "--preset", "srn64"), "demo.pkl", "--set net.encoder.widths=32,64,128,128")


def test_a_snapshot_needs_its_own_preconditioning(program, cars, snapshot):
    arguments = ["--preset", "cpu-demo", "--data", cars, "--transfer", snapshot({"denoiser.precond": "vp"}), "-n"]
    assert_refused(program(*arguments), "snapshot.pkl", "--precond=vp")
    assert options_of(program(*arguments, "--precond", "vp")).net.denoiser.precond == "vp"


def test_distillation_takes_a_quarter_of_the_images_and_matches_distributions_in_half_of_them(program, cars, snapshot):
    """Of a shorter run too."""
    arguments = ["--data", cars, "--distill", snapshot({"denoiser.dropout": 0.1}), "-n"]
    for options, kimg in ((), 4.5), (("--kimg", 2), 2.0):
        config = options_of(program(*arguments, *options))
        found = config.duration_kimg, config.lr_rampup_kimg, config.lr_decay_kimg, config.matching_kimg
        assert found == pytest.approx((kimg, kimg / 18, kimg / 6, kimg / 2))
        assert (config.preset, config.distill_steps, config.net.denoiser.dropout) == ("cpu-demo", 2, 0)


@pytest.mark.parametrize(
    ("settings", "notes", "options", "named"),
    [
        ({}, {"num_steps": 2}, [], "snapshot.pkl: is a few-step network already"),
        ({}, {}, ["--preset", "srn64"], "snapshot.pkl"),
        ({"denoiser.precond": "vp"}, {}, ["--precond", "vp"], "--precond=vp: distill_steps"),
    ],
)
def test_what_cannot_be_distilled_is_refused(program, cars, snapshot, settings, notes, options, named):
    arguments = ["--data", cars, "--distill", snapshot(settings, **notes), "-n"]
    assert_refused(program(*arguments, *options), named)


# Run folders and resuming


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """A run's folder, in `training_runs` below the working folder."""
    run = tmp_path / "training_runs" / "00003-run"
    run.mkdir(parents=True)
    return run


@pytest.fixture
def saved_state(run_folder, cars) -> Callable[..., TrainConfig]:
    """Saves a training state in a folder, by default a run's that has just begun."""

    def save(folder: Path = run_folder, *, cur_nimg: int = 0, seed: int = 4, **facts) -> TrainConfig:
        folder.mkdir(exist_ok=True)
        config = small_run(cars, 5, seed=seed)
        state = fresh_state(config)
        state.cur_nimg = cur_nimg
        state.data |= facts
        save_state(folder, config, state)
        return config

    return save


def test_resume_takes_the_saved_options_and_allows_another_length(program, run_folder, saved_state):
    saved = saved_state()
    for arguments in (["--resume"], ["--resume", run_folder], ["--resume", run_folder / "training-state-000000.pt"]):
        config = options_of(program(*arguments, "--duration", "0.25", "--workers", "2", "--dry-run"))
        assert config == dataclasses.replace(saved, duration_kimg=250.0, workers=2)
    saved_state(run_folder.with_name("00010-newer"), seed=7)
    (run_folder.parent / "00011-without-a-state").mkdir()
    assert options_of(program("--resume", "--dry-run")).seed == 7


def test_resume_refuses_what_would_be_another_run(program, saved_state):
    saved_state()
    for options in (["--lr", "0.5"], ["--views", "1"], ["--preset", "srn128"], ["--set", "loss.P_std=1"]):
        name = {"--views": "inputs", "--set": "loss.P_std"}.get(options[0], options[0][2:])
        assert_refused(program("--resume", *options, "--dry-run"), "--resume", f"{name} ")
    saved_state(scenes=11)
    assert_refused(program("--resume", "--dry-run"), "other data", "scenes 11 -> 12")
    saved_state(cur_nimg=20)
    assert_refused(program("--resume", "--dry-run"), "training-state-000000_020.pt", "--kimg")
    assert options_of(program("--resume", "--duration", "1", "--dry-run")).duration_kimg == 1000


def test_one_process_at_a_time_trains_in_a_run(program, run_folder, saved_state):
    """The lock ends with the process that holds it, though a child of that process lives on."""
    config = saved_state()
    code = "import os, sys, time; from genvs.files import lock\n"
    code += "with lock(sys.argv[1] + '/.lock'):\n    print(os.fork() or '', end='', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, run_folder], cwd=ROOT, stdout=subprocess.PIPE)
    with holder.stdout:
        child = int(os.read(holder.stdout.fileno(), 20))
    try:
        assert_refused(program("--resume"), str(run_folder.name), "another process")
        holder.kill()
        holder.wait()
        with locked_and_logged(run_folder, config):
            pass
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)


def test_the_last_line_names_what_goes_on_from_here(tmp_path, cars):
    config = small_run(cars, 1000)
    # Not there yet, or on another machine's disk: other ranks are asked too.
    assert last_line(2400, config, tmp_path).endswith(f"--resume {tmp_path}/training-state-000002.pt")
    for name in ("000001", "000001_600"):
        (tmp_path / f"training-state-{name}.pt").touch()
        assert last_line(1600, config, tmp_path).endswith(f"--resume {tmp_path}/training-state-{name}.pt")


def test_a_damaged_state_is_named(program, run_folder, saved_state):
    saved_state()
    state = run_folder / "training-state-000000.pt"
    os.truncate(state, state.stat().st_size // 2)
    assert_refused(program("--resume", state, "--dry-run"), str(state))
    assert_refused(program("--resume", "--dry-run"), run_folder.name)
    for content in ({"format": "something else"}, [1]):
        torch.save(content, state)
        assert_refused(program("--resume", state, "--dry-run"), str(state))


def test_run_folders_are_numbered_and_never_reused(tmp_path):
    outdir, config = str(tmp_path / "runs"), small_run("/data/cars.zip")
    names = [new_run_folder(config, outdir, "cpu", words, nosubdir=False).name for words in (None, "x=1")]
    assert names == ["00000-cars-cpu-demo-cpu1-batch4-fp32", "00001-cars-cpu-demo-cpu1-batch4-fp32-x=1"]
    (tmp_path / "runs" / "00041-other").mkdir()
    (tmp_path / "runs" / "notes").mkdir()
    assert new_run_folder(config, outdir, "cpu", None, nosubdir=False).name.startswith("00042-")
    plain = new_run_folder(config, outdir, "cpu", None, nosubdir=True)
    assert plain == tmp_path / "runs"
    check_outdir(outdir, nosubdir=True)
    (plain / OPTIONS_FILE).write_text("{}")
    with pytest.raises(genvs.errors.InputError, match="already holds a run"):
        check_outdir(outdir, nosubdir=True)
