"""The benchmarks at the smallest size: they run, and their figures mean what the report says."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from benchmarks import common, floors, launch, report
from benchmarks.common import Result
from genvs.config import PRESETS
from genvs.errors import InputError
from tests.unit.srn_folder import write_split


@pytest.fixture
def timed_once(monkeypatch) -> None:
    monkeypatch.setattr(common, "timed", lambda call, seconds, warmup=0: (common.clock(call), 0.1))


def run(name: str, folder: Path, *options: str) -> dict[str, dict]:
    """The results of a benchmark's command, by name, as its file holds them."""
    out = folder / f"{name}.json"
    arguments = ["--preset", "cpu-demo", "--seconds", "0", "--out", str(out), *options]
    importlib.import_module(f"benchmarks.{name}").main.main(arguments, standalone_mode=False)
    record = json.loads(out.read_text())
    assert record["benchmark"] == name and record["device"] and record["torch"] and record["commit"]
    assert all(result["value"] > 0 for result in record["results"])
    return {result["name"]: result for result in record["results"]}


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [("parts", ["--batch=1"], 7), ("sample", ["--batch=1", "--views=1"], 7), ("cpu", ["--threads=1"], 1)],
)
def test_a_benchmark_runs(name, options, count, tmp_path, timed_once) -> None:
    assert len(run(name, tmp_path, *options)) == count


def test_a_benchmark_runs_as_a_program_and_is_reported(tmp_path, capsys) -> None:
    out = str(tmp_path / "ceilings.json")
    command = [sys.executable, "-m", "benchmarks.ceilings", "--seconds=0", f"--out={out}"]
    printed = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True).stdout.splitlines()
    report.main.main([out], standalone_mode=False)
    reported = capsys.readouterr().out
    assert len(printed) >= 2 and all(f"| {line.partition(':')[0]}" in reported for line in printed)
    with pytest.raises(click.BadParameter, match="folder"):
        run("ceilings", tmp_path / "absent")


def test_the_published_floors_of_srn128() -> None:
    config = PRESETS["srn128"]
    assert floors.floor(floors.training_work(config, 2, batch=32)) == pytest.approx(1.56e-3, rel=0.01)
    assert floors.floor(floors.denoise_work(config), "fp32") is None, "its rate is not known"
    # Few operations: two volumes of 16 x 64 x 128 x 128 bf16 numbers are read, 16 x 64 x 64 are written.
    moved = 2 * (2 * 16 * 64 * 128 * 128 + 16 * 64 * 64)
    assert floors.floor(floors.render_work(config, 2)) == moved / floors.BANDWIDTH


def test_training_steps_beside_a_reference(tmp_path, monkeypatch, timed_once) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ("--batch", "2", "--views", "1", "--reference", str(tmp_path))
    with pytest.raises(InputError, match="has no adapter.py"):
        run("train_step", tmp_path, *options)
    (tmp_path / "beside.py").write_text("LENGTH = 10\n")
    adapter = "from beside import LENGTH\ndef training_step(batch, views, device):\n    return lambda: range(LENGTH)\n"
    (tmp_path / "adapter.py").write_text(adapter)
    (alone,) = run("train_step", tmp_path, *options).values()
    assert alone["baseline"] > alone["value"]
    (pair,) = run("train_step", tmp_path, *options, "--targets", "2").values()
    assert "2 targets" in pair["name"]
    work = [floors.training_work(PRESETS["cpu-demo"], 1, batch=2, targets=targets)[0] for targets in (1, 2)]
    assert work[1] < work[0], "the targets share their scene's encoding"
    with pytest.raises(InputError, match="has no function sampler"):
        run("sample", tmp_path, "--reference", str(tmp_path))


def test_the_loader_and_a_failed_run(tmp_path) -> None:
    write_split(tmp_path / "cars_train")
    (name,) = run("loader", tmp_path, "--data", str(tmp_path / "cars"), "--batch", "2", "--workers", "0")
    assert name == "loader alone, within the training process"
    with pytest.raises(click.ClickException, match="--batch"):
        launch.train(tmp_path / "cars", "cpu-demo", "--batch=-3", batch=4, updates=4)


def test_rates_leave_out_warm_up_and_evaluations() -> None:
    lines = [(8, 1.0), (16, 2.0), (24, 3.0), (32, 5.0), (32, 60.0), (40, 7.0)]
    records = [{"nimg": nimg, "time": time} for nimg, time in lines]
    assert launch.Run(records, 0.0).images_per_second == pytest.approx(16 / 4)


def row(result: Result, device: str = "NVIDIA H200", preset: str = "srn128") -> list[str]:
    return report.row(result, {"device": device, "preset": preset, "commit": "abc"})


STEP = Result("training step, bf16", 390.0, "images/s", "bf16", 32, spread=0.012, floor=0.0015)


def test_figures_in_the_report_are_compared_with_their_like_alone(tmp_path) -> None:
    assert row(STEP) == [
        *("training step, bf16", "390 images/s ±1.2%", "12.50x the reference", "58%", ">= 12x: met"),
        *("bf16", "32", "srn128", "abc", "NVIDIA H200"),
    ]
    assert row(Result("weak scaling, 2 GPUs", 97.0, "% of 1 GPU"))[4] == ">= 98 % of 1 GPU: missed"
    assert row(Result("one view, 1 evaluation", 2.4, "ms"))[4] == "<= 2.5 ms: met"
    beside = row(replace(STEP, baseline=39.0, baseline_name=common.REFERENCE))
    assert beside[2:5:2] == [f"12.50x the reference; 10.00x the {common.REFERENCE}", ">= 12x: missed"]
    assert row(STEP, device="CPU")[2:5] == ["", "", ""] and row(STEP, preset="srn64")[2] == ""
    memory = Result("training step, bf16: peak memory", 16.3, "GB", "bf16", 32)
    assert row(memory)[2] == "" and row(replace(memory, batch=24))[2] == "3.00x the reference"
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="a.json: "):
        report.read(tmp_path / "a.json")
