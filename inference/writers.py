"""Results as files: PNG, MP4, GIF. Every file appears whole or not at all, under its final name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from PIL import Image

from genvs.errors import InputError
from genvs.visualize import enlarge

VIDEO_SIDE = 512  # smallest side, pixels; at several pixels a pixel, half-resolution chroma is no loss
GIF_SIDE = 256  # GIFs are big for what they show


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name in `path`'s folder, with the same suffix, which becomes `path` if the block ends well.

    Makes the folder. Raises InputError where a file cannot be written.
    """
    temporary = path.with_name(f".{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]  # ffmpeg's errors go on for many lines
        raise InputError(f"{path}: cannot be written ({reason}); free some space, or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_png(path: Path, picture: np.ndarray | Image.Image) -> None:
    """Write a picture, `[H, W, 3]` uint8 or Pillow's."""
    with whole_file(path) as temporary:
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(temporary)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Encode frames `[H, W, 3]` uint8 as they come: H.264, yuv420p, enlarged to at least `VIDEO_SIDE` pixels."""
    # Rec. 709 is both used and named in the file: players guess it differently where a file does not say.
    color = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709"]
    color += ["-color_trc", "bt709", "-color_range", "tv"]
    quality = ["-crf", "14", "-preset", "slow", "-movflags", "+faststart"]
    with whole_file(path) as temporary:
        writer = imageio.get_writer(
            temporary,
            format="FFMPEG",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
            quality=None,
            output_params=color + quality,
            ffmpeg_log_level="error",
        )
        count = 0
        with closing(writer):
            for frame in frames:
                enlarged = np.asarray(enlarge(frame, VIDEO_SIDE))
                height, width = enlarged.shape[:2]  # yuv420p needs even sides
                writer.append_data(np.pad(enlarged, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
                count += 1
        if _frames_in(temporary) != count:  # the encoder does not say so when it fails
            raise OSError("the encoder left it incomplete")


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """Write frames `[H, W, 3]` uint8 as an endless GIF, enlarged to at least `GIF_SIDE` pixels."""
    pictures = [enlarge(frame, GIF_SIDE).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    # ms; the file holds whole hundredths of a second, and viewers slow down what asks for less than two of them.
    duration = 10 * max(2, round(100 / fps))
    with whole_file(path) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=duration, loop=0)


def _frames_in(video: Path) -> int:
    """The number of frames that decode; 0 for what is no video."""
    try:
        return imageio_ffmpeg.count_frames_and_secs(video)[0]
    except RuntimeError:
        return 0
