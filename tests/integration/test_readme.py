"""The README's Python runs as it stands, with the wheel alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_readme_draws_with_the_wheel_alone(tmp_path: Path) -> None:
    """In the folder of a clone, whose example and model it reads, but not from the clone's code; and without click."""
    source = tmp_path / "source"
    for name in ("genvs", "training", "torch_utils", "dnnlib"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", str(source)]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path)], check=True)
    (wheel,) = tmp_path.glob("genvs-*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert {name.partition("/")[0].partition("-")[0] for name in file.namelist()} == {"genvs"}
        assert "genvs/py.typed" in file.namelist()
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "inference" / "input", clone / "inference" / "input")
    for pose in sorted(clone.glob("inference/input/target_pose/*.txt"))[1:]:
        pose.unlink()  # one view is enough here
    (clone / "models").symlink_to(ROOT / "models")
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.modules['click'] = None\n{snippet}\nprint(genvs.__file__, dir(genvs))\n")
    environment = {**os.environ, "PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], cwd=clone, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith(str(wheel)), done.stderr
    assert "['Cameras', 'GeNVS', 'GeNVSConfig', 'load_snapshot', 'sample_views', 'save_snapshot']" in done.stdout
    drawn = np.asarray(Image.open(clone / "views.png"))
    assert drawn.shape == (64, 64, 3) and drawn.std() > 20
