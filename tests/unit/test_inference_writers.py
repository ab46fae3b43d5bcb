"""PNG, contact sheet, MP4 and GIF: what is read back is what was written, and files appear whole."""

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from genvs import visualize
from inference import writers
from tests.small_training import limited

COLORS = [(200, 30, 40), (20, 160, 60), (40, 70, 210)]


def plain(color, height=32, width=32) -> np.ndarray:
    return np.full((height, width, 3), color, dtype=np.uint8)


def test_to_uint8_maps_the_ends_rounds_and_clamps():
    values = torch.tensor([-5.0, -1.0, 0.0, 1 / 127.5, 1.0, 7.0])
    mapped = visualize.to_uint8(values[:, None, None, None].expand(6, 3, 2, 4))
    assert mapped.shape == (6, 2, 4, 3)
    assert mapped[:, 0, 0, 0].tolist() == [0, 0, 128, 128, 255, 255]


def test_feature_colors_are_one_map_for_all_frames():
    features = torch.randn(5, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    features[3] = features[1]
    colors = visualize.feature_colors(features)
    assert colors.shape == (5, 6, 6, 3) and colors.dtype == np.uint8
    assert np.array_equal(colors[3], colors[1])
    reordered = visualize.feature_colors(features[[4, 2, 0, 1, 3]])
    assert np.abs(reordered[[2, 3, 1, 4, 0]].astype(int) - colors).max() <= 1
    assert colors.std(axis=(0, 1, 2)).min() > 30, "each channel must use its range"
    assert np.array_equal(visualize.feature_colors(features[1:2], features)[0], colors[1])


def test_feature_colors_of_empty_rays_are_gray_or_lighter():
    features = torch.zeros(2, 6, 16, 16)
    features[:, :, 4:10, 4:10] = torch.randn(2, 6, 6, 6, generator=torch.Generator().manual_seed(1)) - 1
    assert visualize.feature_colors(features)[:, 0, 0].min() >= 127
    for channels in (1, 2, 16):
        even = visualize.feature_colors(torch.full((2, channels, 4, 4), 0.3))
        assert np.abs(even.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".mp4", ".gif"])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path, suffix):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write = {
        ".png": lambda path: writers.write_png(path, picture),
        ".mp4": lambda path: writers.write_video(path, [picture] * 3, fps=10),
        ".gif": lambda path: writers.write_gif(path, [picture] * 3, fps=10),
    }[suffix]
    (tmp_path / "results").mkdir()
    with limited(1000), pytest.raises(OSError, match="could not be saved") as caught:
        write(tmp_path / "results" / f"new{suffix}")
    assert caught.value.filename == str(tmp_path / "results" / f"new{suffix}") and "\n" not in str(caught.value)
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("num_targets", [1, 3, 70])
def test_contact_sheet_shows_every_picture_whole(num_targets):
    targets = {"feature image": [plain(COLORS[1])] * num_targets, "prediction": [plain(COLORS[2])] * num_targets}
    bands = [(["0"], {"input": [plain(COLORS[0])]}), ([f"a-long-name-{k:030d}" for k in range(num_targets)], targets)]
    sheet = visualize.contact_sheet("title", bands, caption="caption")
    counts = {color: count for count, color in sheet.getcolors(1 << 24)}
    assert [counts[color] / 192**2 for color in COLORS] == [1, num_targets, num_targets]
    assert max(sheet.size) < 6000
    pixels = np.asarray(sheet)
    input_rows = np.flatnonzero((pixels == COLORS[0]).all(-1).any(1))
    assert input_rows.max() < np.flatnonzero((pixels == COLORS[1]).all(-1).any(1)).min(), "inputs are on top"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # read_frames leaves pipes open
@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_video_reads_back_with_its_frames_and_colors(tmp_path, size):
    path = tmp_path / "steps=1.mp4"
    writers.write_video(path, (plain(color, *size) for color in COLORS * 2), fps=10)
    meta, *frames = imageio_ffmpeg.read_frames(path)
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p") and meta["fps"] == 10
    assert meta["size"] == (16 * size[1], 16 * size[0]) and len(frames) == 6
    for frame, color in zip(frames, COLORS * 2, strict=True):
        assert np.abs(np.frombuffer(frame, np.uint8).reshape(-1, 3).astype(int) - color).max() <= 6
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("fps", "milliseconds"), [(24, 40), (120, 20), (1.5, 670)])
def test_gif_reads_back_with_its_frames_and_pace(tmp_path, fps, milliseconds):
    path = tmp_path / "turn.gif"
    writers.write_gif(path, [plain(color) for color in COLORS], fps)
    with Image.open(path) as gif:
        assert gif.n_frames == 3 and gif.size == (256, 256)
        assert gif.info["duration"] == milliseconds and gif.info["loop"] == 0
        for index, color in enumerate(COLORS):
            gif.seek(index)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - color).max() <= 2
