"""The benchmarks, at the smallest size: they run, refuse what is wrong, and their figures mean what the report says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import torch

from benchmarks import common, e2e, floors, kernels, launch, report, scaling, startup
from benchmarks.common import Meter, Result, Work
from genvs.config import PRESETS
from genvs.errors import InputError
from tests.unit.srn_folder import write_split

ROOT = Path(__file__).parents[2]
METER = Meter(torch.device("cpu"), seconds=0)
time_properly = Meter.time


@pytest.fixture(autouse=True)
def once(monkeypatch) -> None:
    """Everything is timed by one call: that it runs is what is tested here."""
    monkeypatch.setattr(Meter, "time", lambda _, call, warmup=0: common.Timing(common.clock(call), 0.1))


def run(name: str, folder: Path, *options: str) -> dict[str, dict]:
    """The results of a benchmark's command, by name, as its file holds them."""
    out = folder / f"{name}.json"
    arguments = ["--preset", "cpu-demo", "--seconds", "0", "--out", str(out), *options]
    importlib.import_module(f"benchmarks.{name}").main.main(arguments, standalone_mode=False)
    record = json.loads(out.read_text())
    assert record["preset"] == "cpu-demo" and record["device"] and record["torch"] and record["commit"]
    assert all(result["value"] > 0 for result in record["results"])
    return {result["name"]: result for result in record["results"]}


def have_goals(*names: str) -> bool:
    """Whether the report knows what these figures should be: it finds goals by name."""
    return all("goal" in floors.FIGURES["figures"][name] for name in names)


def test_a_time_is_the_median_after_a_warm_up() -> None:
    lengths = iter([0.03, 0.0, 0.002, 0.03, 0.002, 0.03, 0.002, 0.002])  # warm-up, estimate, repetitions
    timing = time_properly(METER, lambda: time.sleep(next(lengths)), warmup=1)
    assert 0.002 <= timing.seconds < 0.015 and timing.spread > 1
    assert len(list(lengths)) == 8 - 2 - common.MIN_REPEATS


@pytest.fixture
def data(tmp_path) -> str:
    write_split(tmp_path / "cars_train")
    return str(tmp_path / "cars")


def test_the_published_floors_of_srn128() -> None:
    config, rate = PRESETS["srn128"], (floors.RATES["bf16"], floors.BANDWIDTH)
    assert floors.training_work(config, 2, batch=32).seconds(*rate) == pytest.approx(1.56e-3, rel=0.01)
    assert (floors.denoise_work(config, batch=16) * 49).seconds(*rate) == pytest.approx(13.4e-3, rel=0.01)
    assert floors.update_work(config).seconds(*rate) == pytest.approx(0.86e-3, rel=0.01)
    # Few operations: two volumes of 16 x 64 x 128 x 128 bf16 numbers are read, 16 x 64 x 64 are written.
    render = floors.render_work(config, 2)
    assert render.bytes == 2 * (2 * 16 * 64 * 128 * 128 + 16 * 64 * 64)
    assert render.seconds(*rate) == render.bytes / floors.BANDWIDTH


def test_ceilings_and_parts(tmp_path, capsys) -> None:
    results = run("ceilings", tmp_path)
    assert {"copy", "matrix product, fp32"} == results.keys()
    assert len(capsys.readouterr().out.splitlines()) == len(results)  # one line each
    results = run("parts", tmp_path, "--batch", "1")
    passes = ["", ", forward + backward"]
    names = [name + suffix for name in ("encode", "render", "denoise") for suffix in passes]
    assert list(results) == [*names, "optimizer + EMA + finite check"]
    assert have_goals("render, forward + backward", "optimizer + EMA + finite check")


ADAPTER = """
from beside import LENGTH
def training_step(batch, views, device):
    return lambda: sum(range(LENGTH))
"""


def test_the_reference_is_measured_through_its_adapter(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ("--batch", "1", "--views", "1", "--reference", str(tmp_path))
    with pytest.raises(InputError, match="has no adapter.py"):
        run("train_step", tmp_path, *options)
    (tmp_path / "adapter.py").write_text(ADAPTER)
    (tmp_path / "beside.py").write_text("LENGTH = 10\n")
    results = run("train_step", tmp_path, *options)
    step = results["training step, fp32"]
    assert step["baseline"] > step["value"] > 0 and step["baseline_name"] == common.REFERENCE
    assert have_goals(*results)
    with pytest.raises(InputError, match="adapter.py: has no function sampler"):
        run("sample", tmp_path, "--reference", str(tmp_path))


def test_targets_of_a_scene_share_its_encoding(tmp_path) -> None:
    options = ("--batch", "2", "--views", "1")
    alone, pair = (run("train_step", tmp_path, *options, "--targets", count) for count in "12")
    (one,), (two,) = alone.values(), pair.values()
    assert two["work"]["operations"] < one["work"]["operations"]
    with pytest.raises(InputError, match="must be divisible"):
        run("train_step", tmp_path, *options, "--targets", "3")


def test_sampling(tmp_path) -> None:
    results = run("sample", tmp_path, "--batch", "1", "--views", "1")
    timed = {"25 Heun steps": "views/s", "multistep, 12 evaluations": "views/s", "multistep, 10 evaluations": "views/s"}
    timed |= {f"one view, {count}": "ms" for count in ("49 evaluations", "10 evaluations", "1 evaluation")}
    timed["autoregressive video, one step a frame"] = "frames/s"
    assert {name: each["unit"] for name, each in results.items()} == timed
    assert have_goals("25 Heun steps", "multistep, 12 evaluations")
    rates = [each["work"]["operations"] for each in results.values()]
    assert rates[0] == pytest.approx(4.9 * rates[2])


def test_an_image_on_the_cpu(tmp_path) -> None:
    (result,) = run("cpu", tmp_path, "--threads", "1").values()
    assert result["value"] < result["baseline"] and have_goals(result["name"])


def test_the_loader_alone(tmp_path, data) -> None:
    (name,) = run("loader", tmp_path, "--data", data, "--batch", "2", "--workers", "0")
    assert name == "loader alone, within the training process"


TRAIN_SH = """#!/bin/bash
for option; do
    case $option in --batch=*) batch=${option#*=} ;; /*) [[ -d $option ]] && out=$option ;; esac
done
[[ $batch == 7 ]] && { echo "Error: --batch=7 is odd"; exit 2; }
sleep 0.2
for step in 1 2 3 4; do
    echo "{\\"nimg\\": $((step * batch)), \\"time\\": $step.5, \\"gpus\\": $NGPU, \\"cache\\": \\"$CACHE\\"}"
done >"$out/stats.jsonl"
sleep 0.1
"""


def test_a_run_of_training_is_watched(tmp_path, monkeypatch) -> None:
    (tmp_path / "train.sh").write_text(TRAIN_SH)
    (tmp_path / "train.sh").chmod(0o755)
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    run = launch.train(tmp_path, "srn64", batch=8, updates=4, processes=3, environment={"CACHE": "here"})
    assert run.records[0] == {"nimg": 8, "time": 1.5, "gpus": 3, "cache": "here"}
    assert 0.2 <= run.first_step < 10
    assert run.images_per_second == 8
    with pytest.raises(click.ClickException, match="(?s)code 2.*--batch=7 is odd"):
        launch.train(tmp_path, "srn64", batch=7, updates=4)


def test_an_evaluations_record_does_not_count_as_progress() -> None:
    lines = [(8, 1.0), (16, 2.0), (24, 3.0), (32, 5.0), (32, 60.0), (40, 7.0)]
    run = launch.Run([{"nimg": nimg, "time": time} for nimg, time in lines], 0.0)
    assert run.images_per_second == pytest.approx(16 / 4)


@pytest.fixture
def runs(monkeypatch) -> list[SimpleNamespace]:
    """What `launch.train` was asked for; the runs themselves are made up: 100 images/s a process, less 4% for two."""
    asked = []

    def train(path, preset, *options, batch, updates, processes=1, environment=None) -> launch.Run:
        asked.append(SimpleNamespace(batch=batch, processes=processes, environment=environment))
        rate = 100 * processes * (0.96 if processes > 1 else 1)
        images = [step * batch for step in range(1, 9)]
        records = [{"nimg": nimg, "time": nimg / rate, "Timing/data_wait": 0.02} for nimg in images]
        return launch.Run(records, 20.0 / len(asked))

    monkeypatch.setattr(launch, "train", train)
    return asked


def figures(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


def test_end_to_end_scaling_and_startup_follow_the_runs_records(runs, data, monkeypatch) -> None:
    options = {"data": Path(data), "updates": 8}
    found = figures(e2e.main.callback.__wrapped__(preset="cpu-demo", meter=METER, scenes=None, **options))
    assert found == {"end to end": pytest.approx(100), "end to end: waits for data": pytest.approx(2)}
    assert have_goals(*found)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = Meter(torch.device("cuda"), seconds=0)
    found = figures(scaling.main.callback.__wrapped__(preset="srn128", meter=gpu, gpus=(), batch=4, **options))
    assert found["training, 1 GPU"] == pytest.approx(100) and found["weak scaling, 2 GPUs"] == pytest.approx(96)
    assert [(run.processes, run.batch) for run in runs[1:]] == [(1, 4), (2, 8)] and have_goals("weak scaling, 2 GPUs")
    runs.clear()
    found = figures(startup.main.callback.__wrapped__("cpu-demo", METER))
    assert found["start to first step, cold"] == 20 and found["start to first step, warm"] == 10
    cold, warm = (run.environment for run in runs)
    assert cold == warm and "TRITON_CACHE_DIR" in cold and have_goals(*found)


def row(result: Result, device: str = "NVIDIA H200", preset: str = "srn128") -> list[str]:
    return report.row(result, {"device": device, "preset": preset, "commit": "abc"})


WORK = Work(1.2e12, 5e8)
STEP = Result("training step, bf16", 390.0, "images/s", "bf16", 32, spread=0.012, work=WORK)


def test_a_figure_in_the_report() -> None:
    assert row(STEP) == [
        *("training step, bf16", "390 images/s ±1.2%", "12.50x the reference", "59%", ">= 12x (375): met"),
        *("bf16", "32", "srn128", "abc", "NVIDIA H200"),
    ]
    slow = Result("optimizer + EMA + finite check", 2.0, "ms", "fp32", work=Work(0, 4.3e9)).beside(16.0, "x")
    assert row(slow)[2:5] == ["11.50x the reference; 8.00x the x", "50%", ">= 10x: met"]


def test_a_goal_is_judged_by_the_reference_alone() -> None:
    view = Result("CPU: one image, 10 evaluations", 1.0, "s", "fp32").beside(20.0, common.PLAIN)
    assert row(view)[2:5:2] == [f"20.00x the {common.PLAIN}", ""]
    ratios = f"12.50x the reference; 10.00x the {common.REFERENCE}"
    assert row(STEP.beside(39.0, common.REFERENCE))[2:5:2] == [ratios, ">= 12x (375): missed"]


def test_other_devices_presets_and_batches_are_not_compared() -> None:
    assert row(STEP, device="CPU")[2:5] == ["", "", ""]
    assert row(STEP, preset="srn64")[2] == ""
    memory = Result("training step, bf16: peak memory", 16.3, "GB", "bf16", 32)
    assert row(memory)[2] == ""
    assert row(dataclasses.replace(memory, batch=24))[2:5:2] == ["3.00x the reference", "<= 0.35x: met"]


def test_goals_in_their_own_unit() -> None:
    for value, outcome in ((0.0, "met"), (0.2, "missed")):
        assert row(Result("pause of training for a snapshot", value, "s"))[4] == f"<= 0.1 s: {outcome}"
    assert row(Result("weak scaling, 2 GPUs", 97.0, "% of 1 GPU"))[4] == "98%: missed"


def test_a_file_of_another_kind_is_refused(tmp_path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="a.json: "):
        report.read(tmp_path / "a.json")


def test_run_all_goes_on_after_a_failure_and_leaves_few_files(tmp_path) -> None:
    out = tmp_path / "out"
    command = ["bash", "benchmarks/run_all.sh", str(out), "no_such", "floors"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Failed" in done.stdout and "no_such" in done.stdout.splitlines()[-1]
    assert sorted(file.name for file in out.iterdir()) == ["floors.json", "log.txt", "report.md"]
    assert "floor: training" in (out / "report.md").read_text()


def test_kernels_are_of_the_kind_that_their_names_say() -> None:
    named = {
        "sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": "convolutions",
        "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_bias_TNT": "matrix products",
        "input_gradient_kernel": "norms",
        "Memset (Device)": "others",
    }
    for kernel, kind in named.items():
        assert kernels.kind_of(kernel).startswith(kind)
