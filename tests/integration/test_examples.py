"""The examples do what they say: fine-tuning on arrays, and the notebook, whose pictures are those that it draws."""

import ast
import base64
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

import genvs
from examples.train_on_your_arrays import fine_tune
from tests.conftest import ROOT
from tests.small_training import kimg


def test_training_on_arrays(snapshot, cars, tmp_path, capsys):
    scenes = sorted(path for path in cars.with_name("cars_train").iterdir() if path.is_dir())
    images = np.stack([[Image.open(file) for file in sorted(scene.glob("rgb/*"))] for scene in scenes])
    c2w = np.stack([[np.loadtxt(file).reshape(4, 4) for file in sorted(scene.glob("pose/*"))] for scene in scenes])
    options = [f"--kimg={kimg(6)}", "--batch=4", "--workers=0", "--logger=none", "--set=lr_rampup_kimg=0.001"]
    net = fine_tune(images[..., :3], c2w, 1.025, str(snapshot), tmp_path / "out", *options)
    before = genvs.load_snapshot(snapshot).state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert capsys.readouterr().out.count("held-out PSNR") >= 2, "before and after"
    view = genvs.sample_views(net, images[0, :2, ..., :3], c2w[0, :2], c2w[0, 2:3], steps=1)
    assert view.shape == (1, 32, 32, 3)


def test_wrong_arrays_are_refused_in_one_line(tmp_path):
    images, c2w, arrays = np.zeros((1, 2, 8, 8, 3), np.uint8), np.zeros((1, 2, 4, 4)), tmp_path / "arrays.npz"
    for given, named in (
        ({"images": images / 255, "c2w": c2w, "focal": 1}, "uint8"),
        ({"images": images, "c2w": c2w[0], "focal": 1}, "c2w"),
        ({"images": images, "c2w": c2w}, "focal"),
    ):
        np.savez(arrays, **given)
        command = [sys.executable, "-m", "examples.train_on_your_arrays", str(arrays), "x.pkl", str(tmp_path / "out")]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 2 and run.stderr.count("\n") == 1 and named in run.stderr, run.stderr
    assert not (tmp_path / "out").exists()


def executed(cells: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """What each code cell prints, and the value of its last line, as a notebook shows them."""
    names: dict[str, Any] = {}
    for cell in cells:
        *lines, last = ast.parse("".join(cell["source"])).body
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(ast.Module(lines, []), "cell", "exec"), names)
            is_value = isinstance(last, ast.Expr)
            value = eval(ast.unparse(last), names) if is_value else exec(ast.unparse(last), names)
        yield printed.getvalue(), value


def test_the_notebook_draws_the_pictures_in_it(monkeypatch):
    notebook = ROOT / "examples" / "quickstart.ipynb"
    assert notebook.stat().st_size < 250_000
    monkeypatch.chdir(notebook.parent)
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    pictures = 0
    for cell, (printed, value) in zip(cells, executed(cells), strict=True):
        shown = {kind: data for output in cell["outputs"] for kind, data in output.get("data", {}).items()}
        assert printed == "".join(line for output in cell["outputs"] for line in output.get("text", []))
        assert isinstance(value, Image.Image) == ("image/png" in shown)
        if isinstance(value, Image.Image):
            stored = Image.open(io.BytesIO(base64.b64decode(shown["image/png"])))
            assert stored.size == value.size and np.abs(np.asarray(stored, float) - np.asarray(value)).mean() < 1
            pictures += 1
    assert pictures == 5
