"""The wheel, installed: the README's Python runs with it as it stands, and type checkers see its types."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genvs
from tests.conftest import ROOT

USER_FILE = """
import genvs

net = genvs.load_snapshot("models/demo.pkl")
reveal_type(net)
reveal_type(genvs.from_pretrained("user/name", "cpu", revision="v1"))
reveal_type(genvs.sample_views(net, [], [], [], return_features=True))
genvs.sample_views(net, [], [], [], sampler=3)
genvs.load_snapshop("models/demo.pkl")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A Python with the wheel of this version. What it needs it takes from the environment of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for name in ("genvs", "training", "torch_utils", "dnnlib"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob(f"genvs-{genvs.__version__}-*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert {name.partition("/")[0].partition("-")[0] for name in file.namelist()} == {"genvs"}
    python = folder / "venv" / "bin" / "python"
    venv.create(folder / "venv")
    subprocess.run([*pip, "--python", str(python), "install", *offline, str(wheel)], check=True)
    (packages,) = folder.glob("venv/lib/*/site-packages")
    (packages / "needs.pth").write_text(str(Path(torch.__file__).parents[1]))
    return python


def test_the_readme_draws_with_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    """In the folder of a clone, whose example and model it reads, but not from the clone's code; and without click."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "inference" / "input", clone / "inference" / "input")
    for pose in sorted(clone.glob("inference/input/target_pose/*.txt"))[1:]:
        pose.unlink()  # one view is enough here
    (clone / "models").symlink_to(ROOT / "models")
    script = tmp_path / "script.py"
    shown = "print(genvs.__file__, *dir(genvs), importlib.metadata.version('genvs'), genvs.__version__)"
    script.write_text(f"import importlib.metadata, sys\nsys.modules['click'] = None\n{snippet}\n{shown}\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(installed), str(script)], cwd=clone, env=environment, capture_output=True, text=True)
    file, *public, version, same = done.stdout.split() or [done.stderr]
    assert Path(file).is_relative_to(installed.parents[1]) and public == genvs.__all__
    assert version == same == genvs.__version__
    drawn = np.asarray(Image.open(clone / "views.png"))
    assert drawn.shape == (128, 128, 3) and drawn.std() > 20


def test_a_type_checker_sees_the_installed_package(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER_FILE)
    packages = ("torch", "numpy", "scipy", "PIL", "huggingface_hub", "triton")
    others = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in packages)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\n{others}")  # types of others take long to read
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed), "user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    types = re.findall('type is "(.*)"', done.stdout)
    assert types[:2] == ["genvs.models.genvs.GeNVS"] * 2 and types[2].startswith("tuple[numpy.ndarray"), done.stdout
    assert done.stdout.count("error:") == 2 and "sample_views" in done.stdout and '"load_snapshop"' in done.stdout
