"""A video takes no more memory the longer it is."""

import resource
from pathlib import Path

import torch
from PIL import Image

from benchmarks.common import in_own_process
from benchmarks.model import random_cameras, random_views
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import Conditioned, synthesize_views
from inference.inference import draw_video
from tests.small_model import small_net


def peaks(folder: Path, lengths: list[int]) -> list[float]:
    """The most memory that this process has used after videos of these lengths, MB."""
    net, generator, found = small_net(), torch.Generator().manual_seed(0), []
    inputs = random_views(net.config, (1, 2), generator)
    for frames in lengths:
        cameras = random_cameras(net.config, (1, frames), generator)
        drawn = synthesize_views(net, inputs, cameras, cond_method="autoreg", num_steps=1, progress=False)
        draw_video([folder / f"{frames}.gif", folder / f"{frames}.mp4"], drawn, {"trajectory": "orbit", "fps": 20.0})
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found


def test_memory_does_not_grow_with_the_length(tmp_path):
    early, late = in_own_process(peaks, tmp_path, [24, 74])
    assert late - early < 3, "fifty frames, as the GIF enlarges them, and feature images would take 6 MB"
    with Image.open(tmp_path / "74.gif") as gif:
        assert gif.n_frames == 74 and (tmp_path / "74.mp4").stat().st_size


@torch.inference_mode()
def test_inputs_are_encoded_in_parts():
    net, generator = small_net(), torch.Generator().manual_seed(0)
    inputs = random_views(net.config, (1, 5), generator)
    whole, parts = (Conditioned(FastDenoiser(net, bf16=False), inputs, batch_size=size) for size in (5, 2))
    assert whole.volume.shape[:2] == (1, 5) and whole.volume.stride()[2:] == parts.volume.stride()[2:]
    torch.testing.assert_close(parts.volume, whole.volume)
