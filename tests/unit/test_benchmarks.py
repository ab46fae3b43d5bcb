"""The benchmarks, at the smallest size: they run, refuse what is wrong, and their figures mean what the report says."""

from __future__ import annotations

import contextlib
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

from benchmarks import common, e2e, floors, kernels, launch, loader, parts, report, scaling, startup
from benchmarks.common import Meter, Result, Work
from genvs.config import PRESETS
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.errors import InputError
from tests.unit.srn_folder import write_split

ROOT = Path(__file__).parents[2]
METER = Meter(torch.device("cpu"), seconds=0)


def run(name: str, folder: Path, *options: str) -> dict[str, dict]:
    """The results of a benchmark's command, by name, as its file holds them."""
    out = folder / f"{name}.json"
    arguments = ["--preset", "cpu-demo", "--seconds", "0", "--out", str(out), *options]
    importlib.import_module(f"benchmarks.{name}").main.main(arguments, standalone_mode=False)
    record = json.loads(out.read_text())
    assert record["preset"] == "cpu-demo" and record["device"] and record["torch"] and record["commit"]
    return {result["name"]: result for result in record["results"]}


def have_goals(*names: str) -> bool:
    """Whether the report knows what these figures should be: it goes by their names."""
    return all("goal" in report.FIGURES["figures"][name] for name in names)


time_properly = Meter.time


@pytest.fixture(autouse=True)
def once(monkeypatch) -> None:
    """Everything is timed by one call: that it runs is what is tested here."""
    monkeypatch.setattr(Meter, "time", lambda _, call, warmup=0: common.Timing(common.clock(call), 0.1))


def test_a_time_is_the_median_after_a_warm_up() -> None:
    lengths = iter([0.03, 0.0, 0.002, 0.03, 0.002, 0.03, 0.002, 0.002])  # warm-up, estimate, repetitions
    timing = time_properly(METER, lambda: time.sleep(next(lengths)), warmup=1)
    assert 0.002 <= timing.seconds < 0.015 and timing.spread > 1
    assert len(list(lengths)) == 8 - 2 - common.MIN_REPEATS


@pytest.fixture
def data(tmp_path) -> str:
    write_split(tmp_path / "cars_train")
    return str(tmp_path / "cars")


def test_ceilings_and_floors(tmp_path, capsys) -> None:
    results = run("ceilings", tmp_path)
    assert {"copy", "matrix product, fp32"} < results.keys() and all(each["value"] > 0 for each in results.values())
    results |= run("floors", tmp_path)
    config = PRESETS["cpu-demo"]
    least = floors.training_work(config, 2, batch=32).seconds(floors.RATES["bf16"], floors.BANDWIDTH)
    assert results["floor: training, 1 sample, 2 views"]["value"] == pytest.approx(least * 1e3)
    assert len(capsys.readouterr().out.splitlines()) == len(results)  # one line each


def test_parts_are_measured_beside_the_plain_path(tmp_path) -> None:
    results = run("parts", tmp_path, "--batch", "1")
    passes = ["", ", forward + backward"]
    names = [name + suffix for name in ("encode", "render", "denoise") for suffix in passes]
    assert list(results) == [*names, "optimizer + EMA + finite check"]
    assert have_goals("render, forward + backward", "optimizer + EMA + finite check")
    assert all(each["value"] > 0 and each["baseline"] > 0 and each["work"]["bytes"] > 0 for each in results.values())


def test_a_wrong_fast_path_is_not_timed(monkeypatch, tmp_path) -> None:
    honest = parts.Part.run

    def run_wrong(self, inputs, *, path, precision):
        outcome = honest(self, inputs, path=path, precision=precision)
        if path == "fast" and "gradients" in outcome:
            outcome["gradients"][0] = outcome["gradients"][0] * 1.01
        return outcome

    monkeypatch.setattr(parts.Part, "run", run_wrong)
    with pytest.raises(click.ClickException, match="encode, forward \\+ backward: the fast path's gradients"):
        run("parts", tmp_path, "--batch", "1")


@pytest.mark.parametrize(("fast", "accepted"), [(1.0005, True), (1.01, False), (float("nan"), False)])
def test_the_gate_allows_what_the_precision_loses(fast: float, accepted: bool) -> None:
    one = torch.ones(3)
    outcomes = ({"output": [one * factor]} for factor in (fast, 1.0003, 1.0))
    if accepted:
        common.check("part", *outcomes)
    else:
        with pytest.raises(click.ClickException, match="part: the fast path's output"):
            common.check("part", *outcomes)


ADAPTER = """
from beside import LENGTH
made = []
def training_step(batch, views, device):
    made.append((batch, views, device.type))
    return lambda: sum(range(LENGTH))
"""


def test_the_reference_is_measured_through_its_adapter(tmp_path, monkeypatch) -> None:
    (tmp_path / "adapter.py").write_text(ADAPTER)
    (tmp_path / "beside.py").write_text("LENGTH = 10\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    results = run("train_step", tmp_path, "--batch", "1", "--views", "1", "--reference", str(tmp_path))
    step = results["training step, fp32"]
    assert step["baseline"] > step["value"] > 0 and step["baseline_name"] == common.REFERENCE
    assert have_goals(*results)


def test_targets_of_a_scene_share_its_encoding(tmp_path) -> None:
    options = ("--batch", "2", "--views", "1")
    alone, pair = (run("train_step", tmp_path, *options, "--targets", count) for count in "12")
    (one,), (two,) = alone.values(), pair.values()
    assert two["value"] > 0 and two["work"]["operations"] < one["work"]["operations"]
    with pytest.raises(InputError, match="must be divisible by --targets=3"):
        run("train_step", tmp_path, *options, "--targets", "3")


def test_a_reference_without_its_adapter_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="has no adapter.py"):
        common.adapter_function(tmp_path, "sampler")
    (tmp_path / "adapter.py").write_text("")
    with pytest.raises(InputError, match="adapter.py: has no function sampler"):
        common.adapter_function(tmp_path, "sampler")


def test_sampling(tmp_path) -> None:
    results = run("sample", tmp_path, "--batch", "1", "--views", "1")
    timed = {"25 Heun steps": "views/s", "multistep, 10 evaluations": "views/s", "multistep, 12 evaluations": "views/s"}
    timed |= {f"one view, {count}": "ms" for count in ("49 evaluations", "10 evaluations", "1 evaluation")}
    timed["autoregressive video, one step a frame"] = "frames/s"
    assert {name: each["unit"] for name, each in results.items()} == timed
    assert have_goals("25 Heun steps", "multistep, 12 evaluations")
    rates = [each["work"]["operations"] for each in results.values()]
    assert rates[0] == pytest.approx(4.9 * rates[2]) and all(each["value"] > 0 for each in results.values())


def test_an_image_on_the_cpu(tmp_path) -> None:
    (result,) = run("cpu", tmp_path, "--threads", "1").values()
    assert 0 < result["value"] < result["baseline"] and have_goals(result["name"])


def test_the_loader_alone(tmp_path, data) -> None:
    results = run("loader", tmp_path, "--data", data, "--batch", "2", "--workers", "0")
    assert results["loader alone, within the training process"]["value"] > 0


def test_more_loaders_than_cores_are_measured_if_asked_for(tmp_path, data, monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(loader, "measure", lambda config, workers, meter: Result(str(workers), 1.0, "samples/s"))
    assert list(run("loader", tmp_path, "--data", data)) == ["0", "1"]
    assert list(run("loader", tmp_path, "--data", data, "--workers", "4")) == ["4"]


def test_loss_curves_differ_by_the_seed_alone_where_there_is_no_fast_path(tmp_path, data) -> None:
    options = ("--data", data, "--steps", "10", "--batch", "2", "--plot", str(tmp_path / "plot.png"))
    (result,) = run("loss_curve", tmp_path, *options).values()
    fast, plain, other_seed = result["curves"].values()
    assert fast == plain != other_seed and len(fast) == 10
    assert result["value"] == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


TRAIN_SH = """#!/bin/bash
while (($#)); do [[ $1 == --outdir ]] && out=$2; [[ $1 == --batch ]] && batch=$2; shift; done
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

    def train(path, preset, *, batch, updates, options=None, processes=1, environment=None) -> launch.Run:
        asked.append(SimpleNamespace(batch=batch, options=options, processes=processes, environment=environment))
        rate = 100 * processes * (0.96 if processes > 1 else 1)
        records = [
            {"nimg": step * batch, "time": step * batch / rate, "Timing/data_wait": 0.02} for step in range(1, 9)
        ]
        return launch.Run(records, 20.0 / len(asked))

    monkeypatch.setattr(launch, "train", train)
    return asked


def figures(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


def test_end_to_end_and_scaling_follow_the_runs_records(runs, data) -> None:
    options = {"preset": "cpu-demo", "meter": METER, "data": Path(data), "updates": 8}
    found = figures(e2e.main.callback.__wrapped__(scenes=None, **options))
    assert found == {"end to end": pytest.approx(100), "end to end: waits for data": pytest.approx(2)}
    assert have_goals(*found)
    found = figures(scaling.main.callback.__wrapped__(gpus=(), batch=4, **options))
    assert found["training, 1 process"] == pytest.approx(100)
    assert found["weak scaling, 2 processes"] == pytest.approx(96)
    assert [(run.processes, run.batch) for run in runs[1:]] == [(1, 4), (2, 8)]
    assert "weak scaling, 3 processes" in figures(scaling.main.callback.__wrapped__(gpus=(3,), batch=4, **options))


def test_scaling_on_gpus_has_goals(runs, data, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    options = {"preset": "srn128", "data": Path(data), "gpus": (), "batch": None, "updates": None}
    found = figures(scaling.main.callback.__wrapped__(meter=Meter(torch.device("cuda"), seconds=0), **options))
    assert "training, 1 GPU" in found and have_goals(*(name for name in found if name.startswith("weak")))
    assert "weak scaling, 4 GPUs" in found


def test_the_warm_start_has_the_cold_ones_caches(runs, monkeypatch) -> None:
    monkeypatch.setattr(launch, "dataset", lambda *_, **__: contextlib.nullcontext(Path("cars")))
    results = figures(startup.main.callback.__wrapped__("cpu-demo", METER))
    assert results["start to first step, cold"] == 20 and results["start to first step, warm"] == 10
    cold, warm = (run.environment for run in runs)
    assert cold == warm and "TRITON_CACHE_DIR" in cold
    assert len(results) == 4 and have_goals(*results)


def record(
    *results: Result, benchmark: str = "train_step", device: str = "NVIDIA H200", preset: str = "srn128"
) -> dict:
    fields = [json.loads(json.dumps(dataclasses.asdict(result))) for result in results]
    return {"benchmark": benchmark, "device": device, "preset": preset, "commit": "abc", "results": fields}


def row(*records: dict) -> list[str]:
    """The cells of the last figure."""
    lines = [line for line in report.table(list(records)).splitlines() if line.startswith("|")]
    return [cell.strip() for cell in lines[-1].strip("|").split("|")]


WORK = floors.training_work(PRESETS["srn128"], 2, batch=32)
STEP = Result("training step, bf16", 390.0, "images/s", "bf16", 32, spread=0.012, work=WORK)


def test_a_figure_in_the_report() -> None:
    share = 390 * WORK.operations / 790e12
    assert row(record(STEP)) == [
        *("training step, bf16", "390 images/s ±1.2%", "12.50x the reference", f"{share:.0%}", ">= 12x (375): met"),
        *("bf16", "32", "srn128", "abc", "NVIDIA H200"),
    ]


def test_floors_are_of_a_preset_and_not_of_what_computed_them() -> None:
    floor = Result("floor: encode, 1 view", 0.1, "ms", "bf16", 64)
    cells = row(record(floor, benchmark="floors", device="some CPU", preset="srn64"))
    assert cells[-3::2] == ["srn64", floors.COMPUTED] and "some CPU" not in cells


def test_measured_ceilings_come_before_known_ones() -> None:
    measured = record(
        Result("copy", 4000.0, "GB/s"), Result("matrix product, bf16", 395.0, "TFLOP/s", "bf16"), benchmark="ceilings"
    )
    assert row(measured, record(STEP))[3] == f"{390 * WORK.operations / 395e12:.0%}"
    slow = Result(
        "optimizer + EMA + finite check", 2.0, "ms", "fp32", work=Work(0, 4e9), baseline=16.0, baseline_name="x"
    )
    assert row(measured, record(slow))[2:5] == ["11.50x the reference; 8.00x the x", "50%", ">= 10x: met"]


def test_a_goal_is_judged_by_the_reference_alone() -> None:
    view = Result("CPU: one image, 10 evaluations", 1.0, "s", "fp32", baseline=20.0, baseline_name=common.PLAIN)
    assert row(record(view))[2:5:2] == [f"20.00x the {common.PLAIN}", ""]
    beside = STEP.beside(dataclasses.replace(STEP, value=39.0), common.REFERENCE)
    assert row(record(beside))[2:5:2] == [
        f"12.50x the reference; 10.00x the {common.REFERENCE}",
        ">= 12x (375): missed",
    ]


def test_other_devices_presets_and_batches_are_not_compared() -> None:
    assert row(record(STEP, device="CPU"))[2:5] == ["", "", ""]
    assert row(record(STEP, preset="srn64"))[2:5] == ["", row(record(STEP))[3], ""]
    memory = Result("training step, bf16: peak memory", 16.3, "GB", "bf16", 32)
    assert row(record(memory))[2] == ""
    assert row(record(dataclasses.replace(memory, batch=24)))[2:5:2] == ["3.00x the reference", "<= 0.35x: met"]


def test_goals_in_their_own_unit() -> None:
    for value, outcome in ((0.0, "met"), (0.09, "met"), (0.2, "missed")):
        pause = Result("pause of training for a snapshot", value, "s")
        assert row(record(pause))[4] == f"<= 0.1 s: {outcome}"
    assert row(record(Result("weak scaling, 2 GPUs", 97.0, "% of 1 GPU")))[4] == "98%: missed"


def test_files_join_and_others_are_refused(tmp_path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    files[0].write_text(json.dumps(record(STEP)))
    files[1].write_text(json.dumps([record(STEP), record(STEP)]))
    joined, page = tmp_path / "joined.json", tmp_path / "page.md"
    report.main.main([*map(str, files), "--join", str(joined), "--out", str(page)], standalone_mode=False)
    assert json.loads(joined.read_text()) == [record(STEP)] * 3
    assert page.read_text().count("12.50x") == 3
    files[0].write_text("{}")
    with pytest.raises(InputError, match="a.json: is not a benchmark's result"):
        report.read(files[0])


def test_run_all_goes_on_after_a_failure_and_leaves_few_files(tmp_path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        ["bash", "benchmarks/run_all.sh", str(out), "no_such", "floors"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Failed" in done.stdout and "no_such" in done.stdout.splitlines()[-1]
    assert sorted(file.name for file in out.iterdir()) == ["log.txt", "report.md", "results.json"]
    assert "floor: training" in (out / "report.md").read_text()


def test_kernels_are_of_the_kind_that_their_names_say() -> None:
    named = {
        "sm90_xmma_dgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": "convolutions",
        "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_bias_TNT": "matrix products",
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<at::native::X>": "optimizer",
        "field_gradient_kernel": "rendering",
        "input_gradient_kernel": "norms",
        "void at::native::reduce_kernel<128, 4, at::native::ReduceOp<float>>": "sums",
        "void at::native::vectorized_elementwise_kernel<8, at::native::bfloat16_copy_kernel_cuda>": "elementwise",
        "Memset (Device)": "others",
    }
    for kernel, kind in named.items():
        assert kernels.kind_of(kernel).startswith(kind)


def test_seeds(tmp_path) -> None:
    picture = tmp_path / "seeds.png"
    data = tmp_path / "cars"
    ensure_dataset(data, scenes=4, views=8, resolution=32, val_scenes=2, workers=1)
    results = run("seeds", tmp_path, "--data", str(data), "--seeds", "1", "--kimg", "0.064", "--plot", str(picture))
    assert results["born dead, of ours"]["value"] == 0
    assert results["born dead, with the unofficial numerics and torch's initialisation"]["value"] > 0
    gain = results["seed 0: above the better baseline"]["value"]
    assert results["seeds that beat both baselines"]["value"] == (gain > 0) and picture.exists()
