"""What keeping the range brings to targets of radar and sonar, compared with CrossModalityDiffusion's way."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import click
from torch import Tensor

from benchmarks import common
from benchmarks.common import Result
from benchmarks.model import data_option, dataset
from dnnlib.command import POSITIVE
from experiments.recipe import of_runs, train
from genvs import ops
from genvs.geometry import Cameras
from genvs.geometry.projections import PROJECTIONS, Fan, Pinhole
from genvs.models import renderer
from genvs.ops import RaySamples
from genvs.settings import set_by_path
from training.config import TRAIN_PRESETS

SENSORS = ("sar", "sonar")
SHOWN = "PSNR/{}/{}_input"


class LiftedAsPinhole(Pinhole):
    """A fan whose pictures, as inputs, are taken for a pinhole camera's."""

    keeps_range = True

    def rays(self, cameras: Cameras, width: int) -> tuple[Tensor, Tensor]:
        return Fan().rays(cameras, width)


def render_unshadowed(volume: Tensor, frusta: Tensor, view_weights: Tensor, rays: RaySamples, field, **options):
    """`ops.render`, where nothing hides what lies behind it if the range is kept: each sample is a ray of its own."""
    elevations = options.pop("elevations")
    if elevations is None:
        return ops.render(volume, frusta, view_weights, rays, field, **options)
    samples = rays.depths.shape[-1]
    origins, directions = (part.repeat_interleave(samples, dim=-2) for part in (rays.origins, rays.directions))
    alone = RaySamples(origins, directions, *(part.flatten(-2)[..., None] for part in (rays.depths, rays.lengths)))
    seen = ops.render(volume, frusta, view_weights, alone, field)
    return seen.unflatten(2, (-1, elevations, samples)).sum(dim=3)


@contextlib.contextmanager
def as_in_cross_modality_diffusion() -> Iterator[None]:
    """Inside, radar is a pinhole camera, and sonar is lifted as one and drawn without transmittance."""
    charts = {"slant": Pinhole(), "fan": LiftedAsPinhole()}
    with mock.patch.dict(PROJECTIONS, charts), mock.patch.object(renderer, "render", render_unshadowed):
        yield


WAYS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "the range kept": contextlib.nullcontext,
    "as in CrossModalityDiffusion": as_in_cross_modality_diffusion,
}


@common.benchmark
@data_option
@of_runs("--kimg", type=POSITIVE, required=True, help="Thousands of images of a run.")
@of_runs("--seeds", type=click.IntRange(min=1), default=1, help="Runs of each way.")
def main(preset: str, data: Path | None, kimg: float, seeds: int) -> Iterator[Result]:
    """Train the preset on radar and sonar together, once in each way, and compare held-out PSNR."""
    config = set_by_path(TRAIN_PRESETS[preset], {"net.modalities": SENSORS, "duration_kimg": kimg})
    with dataset(data, preset, modalities=SENSORS) as path:
        for seed in range(seeds):
            for way, context in WAYS.items():
                with context():
                    records, _, _ = train(config, path, kimg, seed)
                for name in SENSORS:
                    one, three = (records[-1][SHOWN.format(name, count)] for count in (1, 3))
                    mean = records[-1][f"PSNR/{name}/mean_image"]
                    note = f"{three:.2f} from 3 inputs; {mean:.2f} for the mean image"
                    what = f"{name}, {way}, seed {seed}: held-out PSNR"
                    yield Result(what, one, "dB", batch=config.batch_size, note=note)
