"""The benchmarks at the smallest size: they run, and their figures mean what the table says."""

import importlib
import subprocess
import sys
import textwrap

import click
import pytest

from benchmarks import common, e2e, floors, scaling
from benchmarks.common import Result
from genvs.config import PRESETS
from tests.unit.srn_folder import write_split


@pytest.fixture
def run(monkeypatch, capsys):
    """The rows of a benchmark's table, by name; calls are timed once."""
    monkeypatch.setattr(common, "timed", lambda call, seconds: (common.clock(call), 0.1))

    def rows(name: str, *options: str) -> dict[str, list[str]]:
        arguments = ["--preset", "cpu-demo", *options]
        capsys.readouterr()
        importlib.import_module(f"benchmarks.{name}").main.main(arguments, standalone_mode=False)
        return rows_of(capsys.readouterr().out)

    return rows


def rows_of(printed: str) -> dict[str, list[str]]:
    _, _, *rows = (line[2:-2].split(" | ") for line in printed.splitlines() if line.startswith("|"))
    assert all(float(row[1].split()[0]) > 0 for row in rows)
    return {row[0]: row for row in rows}


@pytest.mark.parametrize(
    ("name", "options", "count"), [("parts", ["--batch=1"], 7), ("sample", ["--batch=1", "--views=1"], 9)]
)
def test_a_benchmark_runs(run, name, options, count) -> None:
    assert len(run(name, *options)) == count


def test_the_viewer_is_measured(run) -> None:
    pytest.importorskip("viser", reason="the viewer needs viser: pip install -c constraints.txt -e .[viewer]")
    assert len(run("viewer", "--views=1", "--seconds=0")) == 2


def test_a_benchmark_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "benchmarks.floors", "--seconds=0"]
    printed = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("\n## floors --seconds=0\n\nPreset cpu-demo, CPU") and len(rows_of(printed)) >= 9


def test_the_published_floors_of_srn128() -> None:
    config = PRESETS["srn128"]
    assert floors.floor(floors.training_work(config, 2, batch=32)) == pytest.approx(1.56e-3, rel=0.01)
    assert floors.floor(floors.denoise_work(config), "fp32") is None, "its rate is not known"
    # Few operations: two volumes of 16 x 64 x 128 x 128 bf16 numbers are read, 16 x 64 x 64 are written.
    moved = 2 * (2 * 16 * 64 * 128 * 128 + 16 * 64 * 64)
    assert floors.floor(floors.render_work(config, 2)) == moved / floors.BANDWIDTH


def test_training_steps(run) -> None:
    (name,) = run("train_step", "--batch=2", "--views=1", "--targets=2")
    assert "2 targets" in name
    work = [floors.training_work(PRESETS["cpu-demo"], 1, batch=2, targets=targets)[0] for targets in (1, 2)]
    assert work[1] < work[0], "the targets share their scene's encoding"


def test_a_reference(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    (tmp_path / "beside.py").write_text("LENGTH = 10\n")
    adapter = "from beside import LENGTH\ndef training_step(batch, views, device):\n    return lambda: range(LENGTH)\n"
    (tmp_path / "adapter.py").write_text(adapter)
    with pytest.raises(click.UsageError, match="sampler"):
        run("reference", str(tmp_path))
    (tmp_path / "adapter.py").write_text(adapter.replace("training_step", "sampler") + adapter)
    names = ["reference: training step (2 views)", "reference: 25 Heun steps"]
    assert list(run("reference", str(tmp_path))) == names


def test_the_documented_adapter_of_a_checkout_with_our_package_names(tmp_path) -> None:
    """Its `genvs`, `training`, `dnnlib` and `torch_utils` are the checkout's, whatever is loaded already."""
    network = """
        import torch, dnnlib, torch_utils.misc
        class Network(torch.nn.Conv2d):
            def __init__(self):
                super().__init__(3, 3, 1)
            def loss(self, images, poses, target_pose, target):
                return dnnlib.SCALE * (self(images[:, 0]) - target).square() + torch_utils.misc.ZERO
    """
    heun = "def heun(net, images, poses, target_pose, num_steps):\n    return net(images[:, 0])"
    files = {"dnnlib/__init__.py": "SCALE = 2", "torch_utils/misc.py": "ZERO = 0", "genvs/sampling.py": heun}
    for name, text in {**files, "training/networks.py": textwrap.dedent(network)}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    page = (common.ROOT / "benchmarks" / "README.md").read_text()
    (tmp_path / "adapter.py").write_text(page.split("```python\n")[1].split("```")[0])
    command = [sys.executable, "-m", "benchmarks.reference", "--seconds=0", str(tmp_path)]
    printed = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=True).stdout
    assert len(rows_of(printed)) == 2


def test_the_loader_and_a_failed_run(run, tmp_path) -> None:
    write_split(tmp_path / "cars_train")
    (name,) = run("loader", "--data", str(tmp_path / "cars"), "--batch", "2", "--workers", "0")
    assert name == "loader alone, 0 workers"
    with pytest.raises(click.ClickException, match="--batch"):
        e2e.train(tmp_path / "cars", "cpu-demo", "--batch=-3", batch=4, updates=4)


def test_rates_leave_out_warm_up_and_evaluations() -> None:
    lines = [(8, 1.0), (16, 2.0), (24, 3.0), (32, 5.0), (32, 60.0), (40, 7.0)]
    records = [{"nimg": nimg, "time": time} for nimg, time in lines]
    assert e2e.images_per_second(e2e.settled(records)) == pytest.approx(16 / 4)


def cells(result: Result, device: str = "NVIDIA H200", preset: str = "srn128") -> list[str]:
    return result.row(preset, device)[2:-2].split(" | ")


def test_figures_are_compared_with_their_like_alone() -> None:
    step = Result("training step, bf16", 390.0, "images/s", "bf16", 32, spread=0.012, floor=0.0015, note="2 views")
    assert cells(step) == [
        *("training step, bf16 (2 views)", "390 images/s ±1.2%", "12.50x", "58%"),
        *(">= 374.4 images/s: met", "bf16", "32"),
    ]
    assert cells(step, device="CPU")[2:5] == ["", "", ""] and cells(step, preset="srn64")[2] == ""
    assert cells(Result("weak scaling, 2 GPUs", 97.0, "% of 1 alone"))[4] == ">= 98 % of 1 alone: missed"
    assert cells(Result("one view, 1 evaluation", 2.4, "ms", floor=0.0003))[3:5] == ["12%", "<= 2.5 ms: met"]
    memory = Result("training step, bf16: peak memory", 16.3, "GB", "bf16", 32)
    assert cells(memory)[2] == "" and cells(memory._replace(batch=24))[2] == "3.00x"


def test_the_sum_of_gradients_costs_less_in_half_precision_and_more_between_hosts() -> None:
    slow, fast = scaling.HOSTS
    assert scaling.images_per_second(1, slow) == pytest.approx(scaling.IMAGES_PER_SECOND)
    assert scaling.images_per_second(8, slow) == scaling.images_per_second(8, fast)
    seconds = [64 * scaling.BATCH / scaling.images_per_second(64, slow, megabytes) for megabytes in (0, 200, 400)]
    assert seconds[2] - seconds[1] == pytest.approx(seconds[1] - seconds[0]) == pytest.approx(2 * 63 / 64 * 0.2 / 50)
