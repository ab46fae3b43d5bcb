"""Whether a video takes time and memory in proportion to its length: seconds a frame, and the most memory it takes."""

import resource
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import torch

from benchmarks.common import DEVICE, ON_GPU, Result, benchmark, in_own_process, measuring, sizes
from benchmarks.model import random_cameras, random_net, random_views
from genvs.machine import find_encoder
from genvs.sampling.synthesis import COND_METHODS, synthesize_views
from inference.inference import draw_video

WARM_UP = 16


def draw(preset: str, views: int, frames: int, cond_method: str, suffixes: list[str]) -> tuple[float, float]:
    """Seconds a frame, and the MB by which this process has grown at most, of a video with one step a frame."""
    net, generator = random_net(preset), torch.Generator().manual_seed(0)
    inputs = random_views(net.config, (1, views), generator)
    synthesize = partial(synthesize_views, net, cond_method=cond_method, num_steps=1, progress=False)
    list(synthesize(inputs[:, :1], random_cameras(net.config, (1, WARM_UP), generator)))
    before, start = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        drawn = synthesize(inputs, random_cameras(net.config, (1, frames), generator))
        paths = [Path(folder, f"video{suffix}") for suffix in suffixes]
        draw_video(paths, drawn, {"trajectory": "orbit", "fps": 20.0})
    return (time.perf_counter() - start) / frames, peak() - before


def peak() -> float:
    """The most memory that this process has used, MB: the GPU's, where there is one."""
    if ON_GPU:
        return torch.cuda.max_memory_reserved(DEVICE) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@benchmark
@sizes("--frames", type=click.IntRange(min=1), multiple=True, default=(1250, 2500, 5000), help="Lengths of the video.")
@sizes("--views", type=click.IntRange(min=1), multiple=True, default=(3, 50), help="Numbers of input views.")
@measuring("--cond_method", type=click.Choice(COND_METHODS), default="normal", help="As inference has it.")
@measuring("--gif", is_flag=True, help="Write a GIF too.")
def main(preset: str, frames: tuple[int, ...], views: tuple[int, ...], cond_method: str, gif: bool) -> Iterator[Result]:
    """Draw videos of several lengths from several numbers of input views, by one step a frame, and write the files."""
    find_encoder()
    suffixes = [".gif", ".mp4"] if gif else [".mp4"]
    for given in views:
        for count in frames:
            took, grown = in_own_process(draw, preset, given, count, cond_method, suffixes)
            name = f"{given} input views, {count} frames"
            yield Result(f"{name}: a frame", 1e3 * took, "ms", note=" and ".join(suffixes))
            yield Result(f"{name}: memory", grown, "MB")
