"""A snapshot and a folder in, images and videos out: the algorithm on a small real network, and the command line."""

import functools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from genvs.data.types import Views
from genvs.geometry import Cameras
from genvs.geometry.trajectories import orbit
from genvs.sampling.synthesis import MAX_GENERATED, synthesize_views
from inference import inference, options
from tests.faults.launcher import finished, separate, starting, wait_for
from tests.programs import exit_code_of, one_error
from tests.small_model import saved

SIZE = 32


def cameras_on_a_ring(count: int) -> Cameras:
    intrinsics = torch.tensor([[1.025, 0, 0.5], [0, 1.025, 0.5], [0, 0, 1]]).expand(1, count, 3, 3)
    return Cameras(orbit(count, 1.3)[None], intrinsics, torch.full((1, count), 0.8), torch.full((1, count), 1.8))


@pytest.fixture(scope="module")
def inputs() -> Views:
    images = torch.randint(0, 256, (1, 2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)).byte()
    return Views(images, cameras_on_a_ring(7)[:, :2])


def synthesize(net, inputs, targets, **options) -> tuple[torch.Tensor, torch.Tensor]:
    views = list(synthesize_views(net, inputs, targets, **{"num_steps": 2, **options}))
    return torch.stack([image for image, _ in views]), torch.stack([features for _, features in views])


# The algorithm


@pytest.mark.parametrize("cond_method", ["normal", "autoreg"])
def test_images_do_not_depend_on_the_batch_size(net, inputs, cond_method):
    targets = cameras_on_a_ring(4)
    one = synthesize(net, inputs, targets, cond_method=cond_method, batch_size=1)
    three = synthesize(net, inputs, targets, cond_method=cond_method, batch_size=3)
    assert one[0].shape == (4, 3, SIZE, SIZE)
    assert one[1].shape == (4, net.config.encoder.volume_channels, SIZE, SIZE)
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=5e-3)  # less than one of 256 levels
    assert one[0].abs().max() <= 1 and one[0].std() > 0.01
    assert (one[0][0] - one[0][1]).abs().max() > 0.01, "the target camera must show in the image"


def test_autoregression_adds_each_frame_to_the_conditioning_once(net, inputs):
    targets = cameras_on_a_ring(MAX_GENERATED + 3)
    encoded, conditioned = [], []
    hooks = [
        net.encoders["rgb"].register_forward_hook(lambda _, args, __: encoded.append(len(args[0]))),
        net.renderer.register_forward_hook(lambda _, args, __: conditioned.append(args[0].shape[1])),
    ]
    autoreg, features = synthesize(net, inputs, targets, cond_method="autoreg", num_steps=1)
    for hook in hooks:
        hook.remove()
    assert encoded == [2] + [1] * (len(autoreg) - 1), "nothing is conditioned on the last frame"
    assert conditioned == [2 + min(drawn, MAX_GENERATED) for drawn in range(len(autoreg))]
    normal, _ = synthesize(net, inputs, targets, num_steps=1)
    torch.testing.assert_close(autoreg[0], normal[0], rtol=1e-3, atol=1e-3)
    # By hand: the conditioning is the inputs and the latest images as drawn; for the last frame the oldest made room.
    for index in (1, len(autoreg) - 1):
        latest = slice(max(0, index - MAX_GENERATED), index)
        known = Views.cat([inputs.to("cpu"), Views(autoreg[None, latest], targets[:, latest])], dim=1)
        expected = net.render(net.encode(known.images), known.cameras, targets[:, index : index + 1])[0, 0]
        torch.testing.assert_close(features[index], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("sampler", "evaluations"), [({"sampler": "heun"}, 49), ({}, 12)])
def test_views_come_as_they_are_drawn_in_the_steps_of_the_sampler(net, inputs, sampler, evaluations):
    calls = []
    hook = net.denoisers["rgb"].register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    views = synthesize_views(net, inputs, cameras_on_a_ring(3), **sampler, batch_size=2)
    assert calls == [], "nothing is drawn before it is asked for"
    next(views)
    assert calls == [2] * evaluations
    assert len(list(views)) == 2 and calls == [2] * evaluations + [1] * evaluations
    hook.remove()


# The command line


@pytest.fixture
def folder(tmp_path, inputs) -> Path:
    """The inputs as an inference folder, with three targets."""
    path = tmp_path / "my car"
    for sub in ("rgb", "pose", "target_pose"):
        (path / sub).mkdir(parents=True)
    for name, image, c2w in zip("ab", inputs.images[0], inputs.cameras.c2w[0], strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path / "rgb" / f"{name}.png")
        (path / "pose" / f"{name}.txt").write_text(" ".join(map(str, c2w.flatten().tolist())))
    for index, c2w in enumerate(cameras_on_a_ring(3).c2w[0]):
        (path / "target_pose" / f"{index}.txt").write_text(" ".join(map(str, c2w.flatten().tolist())))
    (path / "intrinsics.txt").write_text("32.8 16 16 0.\n0. 0. 0.\n1.\n32 32\n")
    return path


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "new" / "out"


@pytest.fixture
def command(folder, snapshot, out) -> list[object]:
    """Of the quickest drawing; options that follow replace its own."""
    return ["--in_dir", folder, "--ckpt_path", snapshot, "--out_dir", out, "--device=cpu", "--denoising_steps=1"]


run = functools.partial(exit_code_of, inference.main)


def files_under(path: Path) -> list[str]:
    return sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())


def test_images_are_drawn_and_paths_start_where_the_user_stands(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*command, "--in_dir", "my car", "--out_dir", "out", "--denoising_steps", 2) == 0
    assert f"Wrote {tmp_path / 'out' / 'steps=2'}" in capsys.readouterr().out
    images = [f"{kind}/{name}.png" for kind in ("feature_image", "pred") for name in range(3)]
    assert files_under(tmp_path / "out" / "steps=2") == ["contact_sheet.png", *images]
    for name in images:
        with Image.open(tmp_path / "out" / "steps=2" / name) as image:
            assert image.size == (SIZE, SIZE) and image.mode == "RGB"


def test_results_are_never_overwritten(command, out, capsys):
    assert run(*command) == 0 and run(*command, "--denoising_steps", 2) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert run(*command) == 2
    assert str(out / "steps=1") in one_error(capsys) and before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}


def test_ctrl_c_while_the_program_starts_is_quiet(command, out):
    script = [sys.executable, "inference/inference.py", *map(str, command), "--video", "--frames=100000"]
    with separate(script) as process:
        starting(process)
        os.killpg(process.pid, signal.SIGINT)
        assert "Traceback" not in finished(process, code=130)[1] and not out.exists()


def test_views_and_planes_are_chosen_by_options(command, net, inputs, out):
    """The second view is drawn from the first, with other depth planes; its own image is on the sheet."""
    sampling = ["--bf16=false", "--sampler", "heun", "--denoising-steps", 3, "--seed", 4]
    assert run(*command, *sampling, "--inputs", 0, "--targets", 1, "--near", 0.6, "--far", 2.0) == 0
    ring = cameras_on_a_ring(7)
    planes = Cameras(ring.c2w, ring.intrinsics, torch.full((1, 7), 0.6), torch.full((1, 7), 2.0))
    first = Views(inputs.images[:, :1], planes[:, :1])
    expected, _ = synthesize(net, first, planes[:, 1:2], sampler="heun", num_steps=3, seed=4)
    written = np.asarray(Image.open(out / "steps=3_sampler=heun" / "pred" / "b.png")).astype(float)
    assert np.abs(written - (expected[0].permute(1, 2, 0).numpy() * 127.5 + 127.5)).max() <= 1
    with Image.open(out / "steps=3_sampler=heun" / "contact_sheet.png") as sheet:
        assert sheet.height > 4 * 192, "input, feature image, prediction, target"


@pytest.mark.parametrize(("num_images", "warned"), [(1200, True), (2_500_000, False)])
def test_how_far_the_network_is_trained_is_said(command, net, tmp_path, capsys, num_images, warned):
    path = saved(tmp_path / "trained.pkl", net, cur_nimg=num_images)
    assert run(*command, "--ckpt_path", path) == 0
    said = capsys.readouterr()
    assert f"{path}, {SIZE}x{SIZE} pixels, trained on {num_images:,} images" in said.out
    assert (str(options.DEMO) in said.err) == warned


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # read_frames leaves pipes open
def test_video_and_gif(command, out):
    """Along 'archimedean' the feature images stand beside the images."""
    video = ["--video", "--frames", 4, "--trajectory", "archimedean", "--fps", 5, "--gif", "--cond_method", "autoreg"]
    assert run(*command, *video) == 0
    assert files_under(out) == ["steps=1_cond_method=autoreg.gif", "steps=1_cond_method=autoreg.mp4"]
    meta, *frames = imageio_ffmpeg.read_frames(out / "steps=1_cond_method=autoreg.mp4")
    assert len(frames) == 4 and meta["size"] == (1024, 512)
    with Image.open(out / "steps=1_cond_method=autoreg.gif") as gif:
        assert gif.n_frames == 4 and gif.size == (512, 256)


def test_a_video_along_a_file_and_a_preview_of_it(command, out, tmp_path, capsys):
    """--frames of a file's cameras are on a smooth path through them; the preview draws no view."""
    frames = [
        {"file_path": f"{number}.png", "transform_matrix": (c2w @ np.diag([1.0, -1, -1, 1])).tolist()}
        for number, c2w in enumerate(orbit(3, 1.3, start=1.0).double().numpy())
    ]
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps({"camera_angle_x": 0.9, "frames": frames}))
    video = [*command, "--video", "--trajectory", path]
    assert run(*video, "--preview") == 0 and files_under(out) == ["cameras.png"]
    with Image.open(out / "cameras.png") as picture:
        red, _, blue = np.asarray(picture).astype(int).reshape(-1, 3).T
    assert (red + blue < 100).any(), "inputs are black"
    assert (blue - red > 100).any() and (red - blue > 100).any(), "the path goes from blue to red"
    assert run(*video, "--frames", 5, "--gif") == 0
    with Image.open(out / "steps=1_cond_method=normal.gif") as gif:
        assert gif.n_frames == 5 and gif.size == (256, 256)
    assert "Drawing 5 views" in capsys.readouterr().out
    assert run(*video, "--radius", 2) == 2 and "--radius has no effect on --trajectory" in one_error(capsys)


def test_the_newest_network_is_taken_else_that_of_the_code(folder, snapshot, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(options, "ROOT", tmp_path)
    (tmp_path / "target").mkdir()
    arguments = ["--in_dir", folder, "--denoising_steps", 1, "--device", "cpu"]
    assert run(*arguments) == 2
    assert "train.sh" in one_error(capsys) and not (tmp_path / "inference").exists()

    def add(age: int, *parts: str) -> Path:
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(snapshot.read_bytes())
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    demo = add(0, *options.DEMO.parts)
    assert run(*arguments) == 0 and f"Network: {demo}" in capsys.readouterr().out
    add(50, "training_runs", "a", "network-snapshot-000200.pkl")
    newer = add(20, "training_runs", "b", "network-snapshot-000009.pkl")
    add(10, "training_runs", "b", "training-state-000010.pt")
    assert options.default_snapshot(tmp_path) == newer
    state = add(0, "training_runs", "c", "training-state-000001.pt")
    assert run(*arguments) == 0 and f"Network: {state}" in capsys.readouterr().out
    outputs = sorted(path.name for path in (tmp_path / "inference" / "output").iterdir())
    assert outputs == ["00000-my car", "00001-my car"]


BAD_OPTIONS = [
    (["--denoising_steps", 0], "--denoising_steps"),
    (["--cond_method", "both"], "--cond_method"),
    (["--gpu_id", 99], "--gpu_id=99"),
    (["--gpu_id", 0, "--device", "cpu"], "--gpu_id=0"),
    (["--frames", 12], "--frames"),
    (["--video", "--targets", "0"], "--targets"),
    (["--video", "--radius", "nan"], "--radius"),
    (["--video", "--trajectory", "circle"], "circle is no camera path"),
    (["--video", "--trajectory", "nowhere.json"], "nowhere.json"),
    (["--video", "--trajectory", "line", "--elevation", 3], "--elevation has no effect"),
    (["--video", "--elevation", 91], "--elevation"),
    (["--guidance", "nan"], "--guidance"),
    (["--class_id", 1], "class_id=1"),
    (["--ckpt_path", "nowhere.pkl"], "nowhere.pkl"),
    (["--ckpt_path", __file__], "test_inference.py"),
    (["--in_dir", "nowhere"], "nowhere: no such folder"),
    (["--inputs", 7], "no view 7"),
    (["--near", 3], "--near=3"),
    (["--out_dir", __file__], "--out_dir"),
    (["--out_dir", f"{__file__}/below"], "below"),
]


@pytest.mark.parametrize(("options", "named"), BAD_OPTIONS, ids=lambda value: str(value))
def test_bad_options_are_refused_in_one_line(command, out, capsys, options, named):
    assert run(*command, *options) == 2
    assert named in one_error(capsys).replace("'", "") and not out.exists()


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("rgb", "rgb: holds no images"),
        ("pose", "no file of the same name in pose/"),
        (".", "rgb/*.png"),
        ("target_pose", "--video"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(command, folder, capsys, without, named):
    shutil.rmtree(folder / without)
    folder.mkdir(exist_ok=True)
    assert run(*command) == 2 and named in one_error(capsys)
    if without == "target_pose":
        assert run(*command, "--video", "--frames", 1) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_where_there_is_none(command, capsys):
    assert run(*command, "--device", "cuda") == 2 and "--device=cuda: 0 GPUs" in one_error(capsys)


def test_cameras_at_another_distance_are_warned_of(command, folder, capsys):
    for path in folder.glob("pose/*.txt"):
        c2w = np.array(path.read_text().split(), dtype=float).reshape(4, 4)
        c2w[:3, 3] *= 2
        path.write_text(" ".join(map(str, c2w.ravel())))
    assert run(*command) == 0
    assert "Warning: " in (error := capsys.readouterr().err) and "2.6" in error and "1.3" in error


def test_ctrl_c_ends_quietly_and_leaves_no_half_of_a_video(command, out):
    script = [sys.executable, "inference/inference.py", *map(str, command), "--video", "--frames=100000"]
    with separate(script) as process:
        wait_for(process, lambda: files_under(out))
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        assert "Traceback" not in finished(process, code=130)[1]
    assert files_under(out) == []
