"""docs/tutorial.md: its commands, as they stand on the page, on few and small photos."""

import importlib
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genvs
from dnnlib.command import run_command
from genvs.data.images import EXIF_ORIENTATION, read_mask
from genvs.data.stored import StoredScenes
from genvs.errors import run_program
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^ {4}((?:python -m|\./|inference/).*)", PAGE, re.MULTILINE)]
needs_opencv = pytest.mark.skipif(find_spec("cv2") is None, reason="OpenCV is not installed")
SMALL = {
    "examples.photos": "--photos 10 --width 96 --cameras",
    "./train.sh": "--kimg 0.016 --workers 0 --notensorboard --outdir runs",
    "inference/inference.sh": "--frames 2 --denoising_steps 1 --gif --device cpu --out_dir out",
}


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the Python program that a command of the page starts, in this process; returns its exit status."""
    monkeypatch.setattr(sys, "argv", words)
    script = words[0].endswith(".sh")
    module = importlib.import_module(".".join(Path(words[0]).with_suffix("").parts) if script else words[0])
    with pytest.raises(SystemExit) as end:
        (run_command if script else run_program)(module.main)
    return end.value.code


def test_the_commands_lead_from_photos_to_a_video(snapshot, tmp_path, monkeypatch, capsys):
    """Without pycolmap the true cameras are read instead of those that COLMAP finds. The toy has masks."""
    monkeypatch.chdir(tmp_path)
    done, newest = [], ""
    for command in COMMANDS:
        words = [str(snapshot) if word == "models/demo.pkl" else word for word in command]
        words = words[2:] if words[0] == "python" else words
        if words[0] in ("examples.colmap", "examples.masks") or any(
            word.startswith("training_runs/") for word in words
        ):
            continue
        if words[0].startswith("inference/"):
            newest = str(max(Path("runs").glob("*/network-snapshot-*.pkl")))
            words = [*(word.replace("4,20,36", "1,4,7") for word in words), "--ckpt_path", newest]
        if words[0] == "inference/viewer.sh":
            words.append("--help")  # it would wait for a browser
        assert run([*words, *SMALL.get(words[0], "").split()], monkeypatch) == 0, words
        done.append(words[0])
    assert done == [
        *("examples.photos", "genvs.data.validate", "./train.sh"),
        *("inference/inference.sh", "inference/viewer.sh"),
    ]
    assert Path("validation.png").exists() and list(Path("runs").glob("*/samples-000000.png"))
    (video,) = Path("out").glob("*.gif")
    with Image.open(video) as frames:
        assert frames.n_frames == 2
    assert "too few" not in capsys.readouterr().err, "for a network that was trained before"
    scene = genvs.load_snapshot(newest).config.scene
    assert (scene.fit, scene.near, scene.far) == ("crop", 0.8, 1.8) and scene.radius == pytest.approx(1.3, abs=0.1)


@pytest.mark.skipif(find_spec("pycolmap") is None, reason="pycolmap is not installed")
def test_colmap_finds_the_cameras(tmp_path, monkeypatch):
    toy = str(tmp_path / "toy")
    for words in (["examples.photos", toy, "--photos", "16", "--width", "320"], ["examples.colmap", toy]):
        assert run(words, monkeypatch) == 0
    assert StoredScenes(toy, resolution=32).num_views(0) == 16


@needs_opencv
def test_the_toy_is_cut_out_and_masks_that_exist_are_kept(tmp_path, monkeypatch):
    assert run(["examples.photos", str(tmp_path / "toy"), "--photos", "8", "--width", "320"], monkeypatch) == 0
    true = [tmp_path / "toy" / "masks" / f"{number:03d}.png" for number in range(8)]
    expected = [np.asarray(Image.open(mask)) > 0 for mask in true]
    for mask in true[1:]:
        mask.unlink()
    kept, photo = true[0].read_bytes(), tmp_path / "toy" / "images" / "001.jpg"
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # which COLMAP does not look at
    Image.open(photo).save(photo, exif=exif)
    assert run(["examples.masks", str(tmp_path / "toy")], monkeypatch) == 0
    assert true[0].read_bytes() == kept
    for mask, cover in zip(true, expected, strict=True):
        found = read_mask(mask.read_bytes(), mask.name) > 0
        assert (found & cover).sum() > 0.85 * (found | cover).sum(), mask


@pytest.mark.parametrize("program", ["colmap", pytest.param("masks", marks=needs_opencv)])
def test_a_folder_without_photos_is_refused(program, tmp_path, monkeypatch, capsys):
    assert run([f"examples.{program}", str(tmp_path)], monkeypatch) == 2
    assert str(tmp_path / "images") in capsys.readouterr().err


@needs_opencv
def test_a_damaged_photo_is_named_and_leaves_no_mask(tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_text("no photo")
    assert run(["examples.masks", str(tmp_path)], monkeypatch) == 2
    error = capsys.readouterr().err
    assert "a.jpg: cannot be read" in error and not list((tmp_path / "masks").iterdir())
