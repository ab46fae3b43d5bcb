"""`python -m genvs.doctor` on this machine, and on one that has many faults at once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genvs import doctor
from genvs.machine import LAUNCH_VARIABLES, LOADERS
from genvs.models import GeNVS
from genvs.requirements import lacking, requirements
from tests.conftest import ROOT
from tests.faults.test_loaders import own_mounts
from training.config import TRAIN_PRESETS

PROGRAM = ["-m", "genvs.doctor"]


def examine(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_this_machine() -> None:
    done = examine([sys.executable, *PROGRAM], ROOT)
    facts, _, verdict = done.stdout.partition("\n\n")
    names = {line[:14].strip() for line in facts.splitlines()}
    assert names >= {"genvs", "Python", "packages", "cores", "shared memory", "disk", "ffmpeg", "CUDA", "one view"}
    assert done.returncode == ("stops a run" in verdict) and verdict.strip(), done.stderr


def test_a_python_without_torch() -> None:
    done = examine([sys.executable, "-S", *PROGRAM], ROOT)
    assert done.returncode == 1 and "torch>=" in done.stdout.partition("stops a run: this Python lacks")[2], done.stderr
    assert "pip install -c constraints.txt -e ." in done.stdout and not done.stderr


def test_a_python_beside_the_environment_of_the_scripts(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["absent>=1"]\n')
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "PYPROJECT", tmp_path / "pyproject.toml")
    fault = ("stops", f"this Python lacks absent>=1 (not installed): source {tmp_path}/.venv/bin/activate")
    assert fault in [*doctor.software()]
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert any(what == "stops" and "pip install" in text for what, text in doctor.software())


def test_a_machine_that_other_programs_use(monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for load, advice in ((3.0, ""), (5.2, "set OMP_NUM_THREADS=3"), (20.0, "set OMP_NUM_THREADS=1")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        slow = [text for what, text in doctor.cores() if what == "slows" and "busy" in text]
        assert len(slow) == bool(advice) and all(advice in text for text in slow)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert [text for what, text in doctor.cores() if what == "slows" and text.endswith("; end them")]


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch has CUDA")
def test_a_machine_with_many_faults(tmp_path: Path) -> None:
    """The installed package, in a container with little shared memory, on a full disk, with a GPU that is not used."""
    site, tools, here = (tmp_path / name for name in ("site", "tools", "here"))
    shutil.copytree(ROOT / "genvs", site / "genvs", ignore=shutil.ignore_patterns("__pycache__"))
    information = site / "genvs-1.dist-info"
    for folder in (information, tools, here):
        folder.mkdir()
    needs = ["torch>=99", 'absent>=1; extra == "metrics"', "other; sys_platform == 'another'"]
    metadata = ["Metadata-Version: 2.1", "Name: genvs", "Version: 1", *(f"Requires-Dist: {need}" for need in needs)]
    (information / "METADATA").write_text("\n".join(metadata))
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho 550.54.15, NVIDIA A100-SXM4-80GB\n")
    (tools / "nvidia-smi").chmod(0o755)
    mounts = f"mount -t tmpfs -o size=64m tmpfs /dev/shm && mount -t tmpfs -o size=1m tmpfs {here}"
    variables = {"PYTHONPATH": str(site), "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    variables |= {"IMAGEIO_FFMPEG_EXE": str(tools / "none"), **dict.fromkeys(LAUNCH_VARIABLES, "1")}
    shell = ["sh", "-c", f'{mounts} && cd {here} && exec "$@"', "sh"]
    done = examine([*own_mounts(), *shell, sys.executable, *PROGRAM], tmp_path, **variables)
    assert done.returncode == 1, done.stderr
    faults = [line for line in done.stdout.partition("\n\n")[2].splitlines() if line]
    for severity, fault, fix in (
        ("stops", "torch>=99 (there is", "pip install genvs"),
        ("stops", "without CUDA", "pip install --force-reinstall torch"),
        ("stops", "libx264", "unset IMAGEIO_FFMPEG_EXE"),
        ("stops", "WORLD_SIZE=1", "unset RANK WORLD_SIZE"),
        ("stops", "0.0 GB are free", "--outdir"),
        ("slows", "/dev/shm has 67 MB free", "--shm-size"),
    ):
        assert any(line.startswith(severity) and fault in line and fix in line for line in faults), done.stdout
    assert ("slows" in faults[-1]) and "driver         NVIDIA 550.54.15: NVIDIA A100" in done.stdout
    assert "extra metrics  lacks absent>=1 (not installed): pip install genvs[metrics]" in done.stdout


def test_requirements_of_this_checkout() -> None:
    found = requirements(ROOT / "pyproject.toml")
    assert {"torch>=2.10"} <= {*found[""]} and "metrics" in found
    assert lacking(["pytest>=1.0", "pytest>=999", "no-such-package"]) == [
        f"pytest>=999 (there is {pytest.__version__})",
        "no-such-package (not installed)",
    ]


def test_sizes_are_those_of_the_largest_preset() -> None:
    config = TRAIN_PRESETS["srn128"]
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in GeNVS(config.net).parameters())
    ticks = config.duration_kimg / config.kimg_per_tick
    state, snapshot = 16 * weights, 4 * weights  # weights, EMA and Adam's two moments; the EMA
    assert doctor.STATE_BYTES == pytest.approx(state, rel=0.02)
    written = ticks / config.state_ticks * state + ticks / config.snapshot_ticks * snapshot
    assert doctor.RUN_BYTES == pytest.approx(written, rel=0.05)
    images = config.batch_size // config.num_targets * (config.max_inputs + config.num_targets)
    assert doctor.BATCH_BYTES == pytest.approx(3 * images * config.net.resolution**2, rel=0.05)
    assert config.workers == LOADERS
