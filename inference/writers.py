"""Results as files: PNG, MP4, GIF. Every file appears whole or not at all, under its final name.

Each function raises OSError, naming the file, where it cannot be written.
"""

import errno
import itertools
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genvs import files, visualize
from genvs.errors import InputError
from genvs.machine import find_encoder
from genvs.metrics import SILHOUETTE_THRESHOLD
from genvs.modalities import MODALITIES, PICTURE_CHANNELS, depth_decoded, from_levels
from genvs.visualize import enlarge, to_uint8

VIDEO_SIDE = 512  # smallest side, pixels; once pixels are enlarged, chroma at half the resolution loses nothing
H264 = "-c:v libx264 -pix_fmt yuv420p -crf 14 -preset slow -movflags +faststart"
# Rec. 709 is both used and named in the file: players guess it differently where a file does not say.
REC709 = "-vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_primaries bt709 -color_trc bt709"


def check_new(out_dir: Path, names: Iterable[str]) -> None:
    """Raise InputError if one of these exists in `out_dir` already."""
    for path in (out_dir / name for name in names):
        if path.exists():
            raise InputError(f"{path} exists and is not overwritten: pass another --out_dir, or move it away")


def write_png(path: Path, picture: np.ndarray | Image.Image) -> None:
    """Write a picture, `[H, W, 3]` uint8 or Pillow's."""
    with files.replacing(path) as file:
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, format="PNG")


def in_file(image: Tensor, modality: str, near_far: np.ndarray, depth_scale: float) -> np.ndarray:
    """A drawn image `[3, H, W]` in [-1, 1], as files of its modality keep it: `[H, W, 3]` or gray `[H, W]`, uint8.

    Depths are uint16, multiples of `depth_scale`, and 0 without a return: where the image differs from black by no more
    than SILHOUETTE_THRESHOLD. near_far: the view's planes.
    """
    if modality == "depth":
        values = from_levels(image.double().mean(dim=0))
        depth = depth_decoded(values, *near_far) / depth_scale
        return (depth * (values > 255 * SILHOUETTE_THRESHOLD)).round().numpy().astype(np.uint16)
    return with_channels_of(modality, to_uint8(image))


def with_channels_of(modality: str, picture: np.ndarray) -> np.ndarray:
    """A picture `[H, W, 3]` with as many channels as files of the modality have."""
    return picture if MODALITIES[modality].channels == PICTURE_CHANNELS else picture[..., 0]


def write_strip(path: Path, pictures: Tensor, modality: str) -> None:
    """Write square pictures side by side, uint8 `[T, 3, H, H]`. The folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, with_channels_of(modality, np.concatenate(pictures.movedim(1, -1).numpy(), axis=1)))


def read_strip(path: Path) -> Tensor:
    """What `write_strip` wrote. Raises OSError or ValueError where it is missing or damaged."""
    with Image.open(path) as image:
        strip = np.array(image.convert("RGB"))
    return torch.from_numpy(strip.reshape(len(strip), -1, len(strip), PICTURE_CHANNELS)).permute(1, 3, 0, 2)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Encode frames `[H, W, 3]` uint8 of even sides as they come: H.264, enlarged to at least `VIDEO_SIDE` pixels."""
    with files.replacing(path) as file:
        pictures = (enlarge(frame, VIDEO_SIDE) for frame in frames)
        first = next(pictures)
        raw = f"-f rawvideo -pix_fmt rgb24 -s {first.width}x{first.height} -r {fps:g} -i -"
        command = [find_encoder(), "-loglevel", "error", "-y", *raw.split()]
        command += [*REC709.split(), "-color_range", "tv", *H264.split(), "-f", "mp4", file.name]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
        with subprocess.Popen(command, **pipes) as encoder:  # in a session that Ctrl-C does not reach
            assert encoder.stdin is not None and encoder.stderr is not None
            try:
                for picture in itertools.chain([first], pictures):
                    encoder.stdin.write(picture.tobytes())
                encoder.stdin.close()
            except BrokenPipeError:
                pass  # the encoder says why
            reason = encoder.stderr.readline().decode(errors="replace").strip()
        if encoder.returncode:
            raise OSError(errno.EIO, reason or "the encoder failed")


def write_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames `[H, W, 3]` uint8 as an endless GIF."""
    deque(also_as_gif(path, frames, fps), maxlen=0)


def also_as_gif(path: Path, frames: Iterable[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    """Yields the frames, and writes them as an endless GIF, which is there after the last one."""
    with files.replacing(path) as file:
        yield from visualize.also_as_gif(file, frames, fps)
