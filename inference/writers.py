"""Results as files: PNG, MP4, GIF. Every file appears whole or not at all, under its final name.

Each function makes the file's folder, and raises OSError, naming the file, where it cannot be written.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import imageio_ffmpeg
import numpy as np
from PIL import Image

from genvs import files
from genvs.visualize import enlarge

VIDEO_SIDE = 512  # smallest side, pixels; at several pixels a pixel, half-resolution chroma is no loss
GIF_SIDE = 256  # GIFs are big for what they show


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        yield file


def write_png(path: Path, picture: np.ndarray | Image.Image) -> None:
    """Write a picture, `[H, W, 3]` uint8 or Pillow's."""
    with _new_file(path) as file:
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, format="PNG")


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Encode frames `[H, W, 3]` uint8 as they come: H.264, yuv420p, enlarged to at least `VIDEO_SIDE` pixels."""
    # Rec. 709 is both used and named in the file: players guess it differently where a file does not say.
    color = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709"]
    color += ["-color_trc", "bt709", "-color_range", "tv"]
    quality = ["-crf", "14", "-preset", "slow", "-movflags", "+faststart", "-f", "mp4"]
    with _new_file(path) as file:
        enlarged = map(_enlarged, frames)
        first = next(enlarged)
        encoder = imageio_ffmpeg.write_frames(
            file.name,
            first.shape[1::-1],
            fps=fps,
            codec="libx264",
            macro_block_size=2,
            quality=None,
            output_params=color + quality,
            ffmpeg_log_level="error",
        )
        encoder.send(None)
        count = 0
        try:
            with closing(encoder):
                for frame in itertools.chain([first], enlarged):
                    encoder.send(np.ascontiguousarray(frame))
                    count += 1
        except OSError as error:  # ffmpeg's own words go on for many lines
            raise OSError(error.errno or errno.EIO, str(error).partition("\n")[0]) from error
        if _frames_in(file.name) != count:  # the encoder does not say so when it fails
            raise OSError(errno.EIO, "the encoder left it incomplete")


def _enlarged(frame: np.ndarray) -> np.ndarray:
    """At least `VIDEO_SIDE` pixels a side, and even sides, as yuv420p needs them."""
    enlarged = np.asarray(enlarge(frame, VIDEO_SIDE))
    height, width = enlarged.shape[:2]
    return np.pad(enlarged, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write frames `[H, W, 3]` uint8 as an endless GIF, enlarged to at least `GIF_SIDE` pixels."""
    pictures = [enlarge(frame, GIF_SIDE).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    # ms; the file holds whole hundredths of a second, and viewers slow down what asks for less than two of them.
    duration = 10 * max(2, round(100 / fps))
    with _new_file(path) as file:
        pictures[0].save(file, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)


def _frames_in(video: str) -> int:
    """The number of frames that decode; 0 for what is no video."""
    try:
        return imageio_ffmpeg.count_frames_and_secs(video)[0]
    except RuntimeError:
        return 0
