"""The shell scripts: their syntax, the making and finding of an environment, and what train.sh hands on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["train.sh", "test.sh", ".ci/run", "inference/inference.sh", "inference/evaluate.sh"]
MAKING = "Making the environment in .venv (first time, a few minutes)…\n"
UPDATING = "Bringing the environment in .venv up to date…\n"


def run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with the Python of these tests as the active one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("script", [*SCRIPTS, "dnnlib/environment.sh", "dnnlib/processes.sh"])
def test_scripts_are_sound(script: str) -> None:
    assert run(["bash", "-n", str(ROOT / script)], ROOT).stderr == ""
    if script in SCRIPTS:
        assert os.access(ROOT / script, os.X_OK), f"chmod +x {script}"


# --- the environment

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1"
dependencies = [
    "genvs-test-needed>=1.2",
]
[project.optional-dependencies]
test = [
    "genvs-test-extra",
]
"""
BACKEND = '''
"""Builds an editable wheel of a project with nothing in it, so that an install needs nothing from outside."""
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    metadata = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\nRequires-Dist: genvs-test-needed>=1.2\\n"
    metadata += "Provides-Extra: test\\nRequires-Dist: genvs-test-extra; extra == 'test'\\n"
    return wheel(wheel_directory, "tiny", "1", metadata)

def wheel(folder, name, version, metadata=None):
    metadata = metadata or f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(f"{folder}/{stem}-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", metadata)
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")
    return f"{stem}-py3-none-any.whl"
'''


class Project:
    """A project with the real environment scripts, two requirements that no machine has, and the wheels of these."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a project"  # the space is meant
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        (self.folder / "dnnlib").mkdir(parents=True)
        for name in ("environment.sh", "environment.py"):
            shutil.copy(ROOT / "dnnlib" / name, self.folder / "dnnlib")
        (self.folder / "pyproject.toml").write_text(PYPROJECT)
        (self.folder / "constraints.txt").write_text("genvs-test-needed==1.2\n")
        (self.folder / "backend.py").write_text(BACKEND)
        self.python = self.folder / ".venv" / "bin" / "python"

    def offer(self, name: str, version: str) -> None:
        """Makes a wheel of `name` that pip can find."""
        scope: dict = {}
        exec(BACKEND, scope)
        scope["wheel"](self.wheels, name, version)

    def source(self, extras: str = "") -> subprocess.CompletedProcess[str]:
        """What a script that needs `extras` sees: it prints the Python that it is given."""
        source = f'GENVS_EXTRAS="{extras}" source "{self.folder}/dnnlib/environment.sh"'
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        # uv, where a machine has it, does not read pip's settings.
        uv = {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(self.wheels), "UV_NO_INDEX": "1"}
        return run(["bash", "-c", f'set -euo pipefail; {source}; echo "$PYTHON"'], self.folder.parent, **pip, **uv)

    def installed(self, name: str) -> str:
        """The version of `name` in the project's environment."""
        code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
        return run([str(self.python), "-c", code], self.folder).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_environment_from_nothing(project: Project) -> None:
    failed = project.source()
    assert (failed.returncode, failed.stdout) == (2, "")
    error = failed.stderr.splitlines()[-1]
    assert error.startswith("Error: the environment could not be made (Cannot install tiny==1")
    assert error.endswith("): see .venv/install.log and run this again.")
    assert "genvs-test-needed" in (project.folder / ".venv" / "install.log").read_text()

    project.offer("genvs-test-needed", "1.2")
    project.offer("genvs-test-needed", "1.3")
    project.offer("genvs-test-extra", "1")
    made = project.source()
    assert (made.returncode, made.stdout, made.stderr) == (0, f"{project.python}\n", MAKING), "it is done again"
    assert project.installed("genvs-test-needed") == "1.2", "the constraints count"

    start = time.perf_counter()
    second = project.source()
    assert (second.returncode, second.stdout, second.stderr) == (0, f"{project.python}\n", "")
    assert time.perf_counter() - start < 2, "a second start makes nothing"

    extra = project.source("test")
    assert (extra.returncode, extra.stderr) == (0, UPDATING), "an extra is added to what is there"
    assert project.installed("genvs-test-extra") == "1"
    assert [project.source(extras).stderr for extras in ("", "test")] == ["", ""]

    (project.folder / "constraints.txt").write_text("genvs-test-needed==1.3\n")
    assert [project.source().stderr for _ in range(2)] == [UPDATING, ""], "changed constraints are followed, once"
    assert project.installed("genvs-test-needed") == "1.3"


def test_an_active_environment_that_fits_is_used_as_it_is(project: Project) -> None:
    (project.folder / "pyproject.toml").write_text('[project]\ndependencies = [\n    "torch>=2.10",\n]\n')
    result = project.source()
    assert (result.returncode, result.stderr) == (0, "")
    assert os.path.samefile(result.stdout.strip(), sys.executable)
    assert not (project.folder / ".venv").exists()


def test_without_a_python_one_line_says_what_to_install(project: Project, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or name)
    result = run(["bash", "-c", 'source "dnnlib/environment.sh"; echo not here'], project.folder, PATH=str(tools))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "Error: no Python >= 3.10 with venv was found: install python3 (on Debian python3-venv too), run this again.\n"
    )
    assert not (project.folder / ".venv").exists()


# --- train.sh


@pytest.mark.parametrize("processes", ["1", "2"])
def test_train_sh_hands_on_a_wrong_option(tmp_path: Path, processes: str) -> None:
    command = ["bash", str(ROOT / "train.sh"), "--batch=-3", f"--outdir={tmp_path}"]
    result = run(command, tmp_path, NGPU=processes)
    assert result.returncode == 2
    assert "--batch" in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_train_sh_passes_help_on_and_checks_ngpu(tmp_path: Path) -> None:
    train = [str(ROOT / "train.sh")]
    assert "Usage:" in run([*train, "--help"], tmp_path).stdout
    wrong = run(train, tmp_path, NGPU="two")
    assert wrong.returncode == 2
    assert wrong.stderr == "Error: NGPU=two is not a number of processes: give 1 or more, or leave it unset.\n"
