"""python -m genvs.data.validate: all faults of a dataset at once, each with its fix, and a picture of the cameras."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from genvs.data import validate
from genvs.errors import InputError
from genvs.visualize import draw_cameras
from tests.unit.srn_folder import add_sensors, some_c2w, write_split
from tests.unit.transforms_folder import write_capture


def run(monkeypatch, capsys, *arguments: object) -> str:
    monkeypatch.setattr(sys, "argv", ["validate", *map(str, arguments), "--resolution", "32"])
    try:
        validate.main()
    finally:
        output = capsys.readouterr().out
    return output


def test_a_whole_dataset_has_no_findings_and_a_sheet(tmp_path, monkeypatch, capsys):
    write_split(tmp_path / "cars_train")
    write_split(tmp_path / "cars_val", num_scenes=1, seed=1)
    output = run(monkeypatch, capsys, tmp_path / "cars", "--out", tmp_path / "sheet.png")
    assert "train: 3 scenes, 18 views" in output and "val: 1 scene, 6 views" in output and "Nothing" in output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 300


def test_faults_of_every_modality_that_is_asked_for(tmp_path, monkeypatch, capsys):
    split = write_split(tmp_path / "cars", num_scenes=3)
    for scene in ("car1", "car2"):
        add_sensors(split / scene, ("depth", "sonar"))
    (split / "car1/sonar/2.png").write_bytes(b"no picture")
    shutil.copy(split / "car2/depth/1.png", split / "car2/depth/5.png")
    photos = run(monkeypatch, capsys, split, "--out", tmp_path / "photos.png")
    assert "Nothing" in photos
    arguments = [split, "--out", tmp_path / "sheet.png", "--modalities", "sonar,rgb,lidar_depth"]
    with pytest.raises(InputError, match="1 error;"):
        run(monkeypatch, capsys, *arguments)
    validate.validate(split, validate.dataset_class(), 5, tmp_path / "a.png", ("rgb", "depth", "sonar"), resolution=32)
    output = capsys.readouterr().out
    assert f"error    {split}/car1/sonar/2.png" in output and "car2: view 5, depth: has the same image" in output
    with pytest.raises(InputError, match="choose from rgb"):
        run(monkeypatch, capsys, split, "--modalities", "infrared")


def test_names_that_the_terminal_cannot_show(tmp_path):
    (write_split(tmp_path / "größe", num_scenes=2) / "car1/pose/2.txt").unlink()
    command = [sys.executable, "-m", "genvs.data.validate", tmp_path / "größe", "--out", tmp_path / "sheet.png"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300)
    assert result.returncode == 2 and "gr\\xf6\\xdfe" in result.stdout and "Traceback" not in result.stderr


def test_every_fault_is_found_in_one_run(tmp_path, monkeypatch, capsys):
    split = write_split(tmp_path / "cars", num_scenes=5)
    (split / "car1/pose/2.txt").write_text("1 2 3")
    (split / "car2/rgb/4.png").write_bytes((split / "car2/rgb/4.png").read_bytes()[:300])
    shutil.copy(split / "car3/rgb/1.png", split / "car3/rgb/5.png")
    Image.new("RGB", (32, 32), "black").save(split / "car3/rgb/6.png")
    shutil.rmtree(split / "car4/rgb")
    with pytest.raises(InputError, match="3 errors"):
        run(monkeypatch, capsys, split, "--out", tmp_path / "sheet.png")
    validate.validate(split, validate.dataset_class(), 5, tmp_path / "sheet.png", resolution=32)
    output = capsys.readouterr().out
    found = {line.split(": ")[0] for line in output.splitlines() if line.startswith(("error", "warning"))}
    faulty = ["error    car1/pose/2.txt", "error    car2/rgb/4.png", "error    car4/rgb", "warning  car3"]
    assert found == {text.replace("car", f"{split}/car") for text in faulty}


def test_cameras_too_few_views_and_a_missing_dataset(tmp_path, monkeypatch, capsys):
    split = write_split(tmp_path / "cars", num_scenes=1, num_views=4)
    write_split(tmp_path / "far", num_scenes=1, radius=5.0)
    shutil.move(tmp_path / "far/car1", split / "car2")
    findings = validate.validate(split, validate.dataset_class(), 5, tmp_path / "sheet.png", resolution=32)
    assert (findings.count("error"), findings.count("warning")) == (1, 1)
    assert "outside near" in findings.table() and "4 views where 5" in findings.table()
    with pytest.raises(InputError, match="no such folder"):
        run(monkeypatch, capsys, tmp_path / "nothing", "--out", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_cameras_to_draw_from_need_no_images(tmp_path):
    for split in ("train", "test"):
        write_capture(tmp_path, 5, file=f"transforms_{split}.json")
    shutil.rmtree(tmp_path / "images_test")
    findings = validate.validate(tmp_path, validate.dataset_class(), 5, tmp_path / "sheet.png", resolution=32)
    assert (findings.count("error"), findings.count("note")) == (0, 1)
    shutil.rmtree(tmp_path / "images_train")
    findings = validate.validate(tmp_path, validate.dataset_class(), 5, tmp_path / "sheet.png", resolution=32)
    assert findings.count("error") == 1


def test_cameras_are_drawn_where_they_are():
    """Of two cameras left and right of the target, the first is blue on one side and the second red on the other."""
    c2w = some_c2w(2)
    c2w[1] = np.diag([-1.0, 1, -1, 1]) @ c2w[0]  # turned half around the vertical axis
    picture = draw_cameras(c2w, np.tile([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], (2, 1, 1)), np.zeros(3), 128)
    red, blue = (np.argwhere(picture[..., channel] > picture[..., 2 - channel] + 60.0) for channel in (0, 2))
    middle = (red.mean(axis=0) + blue.mean(axis=0)) / 2
    assert len(red) and len(blue) and abs(middle[1] - 63.5) < 8
    assert np.abs(red.mean(axis=0) - blue.mean(axis=0)).max() > 30


def test_pictures_of_every_modality(tmp_path, monkeypatch, capsys):
    split = write_split(tmp_path / "cars", num_scenes=5)
    folders = [("depth", "sar"), ("depth", "sar"), ("depth", "raysar"), ("sar",), ("depth",)]
    for number, names in enumerate(folders, start=1):
        add_sensors(split / f"car{number}", names, seed=number)
    noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    (split / "car1/sar/3.png").unlink()
    shutil.copy(split / "car2/rgb/1.png", split / "car2/depth/1.png")
    Image.fromarray(noise.astype(np.uint16) * 257).save(split / "car2/sar/2.png")
    Image.fromarray(noise[:32]).save(split / "car2/sar/4.png")
    Image.fromarray(noise).save(split / "car3/raysar/5.png")
    (split / "car5/scene.json").write_text('{"depth_scale": 1}')
    arguments = split, "--modalities", "rgb,depth,sar", "--out", tmp_path / "sheet.png"
    with pytest.raises(InputError, match="4 errors"):
        run(monkeypatch, capsys, *arguments)
    findings = validate.validate(
        split, validate.dataset_class(), 5, tmp_path / "sheet.png", resolution=32, modalities=("rgb", "depth", "sar")
    )
    for severity, text in {
        f"error    {split}/car1/rgb": "'3' has no file of the same name in sar/",
        f"error    {split}/car2/depth/1.png": "in colour",
        f"error    {split}/car2/sar/2.png": "16 bits",
        f"error    {split}/car2/sar/4.png": "48x32",
        f"warning  {split}/car3: view 5, sar": "48x48 and the first one 32x32",
        f"warning  {split}/car5: view 1, depth": "outside near to far",
        f"note     {split}/car4": "no depth",
        f"note     {split}/car5": "no sar",
    }.items():
        assert any(line.startswith(severity) and text in line for line in findings.table().splitlines()), severity
    assert [findings.count(severity) for severity in validate.SEVERITIES] == [4, 7, 2]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 4 * 192, "cameras and three modalities"
    assert "sar: in 4 scenes, -25 to 15 dB" in capsys.readouterr().out


def test_a_modality_that_no_scene_has(tmp_path):
    split = add_sensors(write_split(tmp_path / "cars", num_scenes=2) / "car1", ("depth",)).parent
    modalities = "rgb", "depth", "sonar"
    kind = validate.dataset_class()
    findings = validate.validate(split, kind, 5, tmp_path / "sheet.png", resolution=32, modalities=modalities)
    assert "no scene has sonar" in findings.table() and findings.count("error") == findings.count("note") == 1
