"""Figures of a snapshot on a dataset's split, by the literature's protocol: see docs/evaluation.md."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

# A script's path starts at its own folder, where `inference` is inference.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import genvs
from dnnlib.command import run_command
from genvs.config import CONVENTIONS
from genvs.data.splits import own_dataset_class
from genvs.errors import InputError
from genvs.files import write_atomic
from genvs.models.precision import has_native_bf16
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.guidance import load_guide, weigh_views
from inference import protocol, report, writers
from inference.baselines import BASELINES, check_baselines, open_mean_image
from inference.inference import ROOT, choose_device, default_snapshot
from inference.job import RESULTS_FILE, SAMPLES, Job, results_folder
from inference.measures import ALWAYS, MEASURES, Measures, Scores
from inference.protocol import Protocol, Source, evenly
from inference.sampling_options import NAMES, sampling_options, settle
from torch_utils import distributed

PATIENCE = timedelta(days=7)  # a rank that is done waits for the others that long
EXTRAS = [name for name in MEASURES if name not in ALWAYS]


def some_of(known: Collection[str]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """The callback of an option that takes some of the names, with commas between; 'all' or 'none'."""

    def parse(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
        names = {"all": list(known), "none": []}.get(text)
        names = [name.strip() for name in text.split(",")] if names is None else names
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is not known: choose from {', '.join(known)}; or all, or none")
        return list(dict.fromkeys(names))

    return parse


class Figures(NamedTuple):
    """What was measured of the samples, or of a baseline: by object, and of all objects."""

    objects: dict[str, Scores]
    summary: Scores


@click.command(context_settings={"show_default": True, "max_content_width": 120})
@click.option(
    "--ckpt_path",
    type=click.Path(path_type=Path),
    show_default="the newest under training_runs, else models/demo.pkl",
    help="Network snapshot.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Dataset, as train.py takes it; or the folder or .zip of the split itself.",
)
@click.option(
    "--convention",
    type=click.Choice(CONVENTIONS),
    show_default="as train.py",
    help="The camera axes that the poses are in.",
)
@click.option("--normalize", is_flag=True, help="Move and scale every object by its cameras, as in training.")
@click.option(
    "--data-class", help="The class of your own that --data is read with, as in training.", metavar="PKG.MODULE.CLASS"
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", help="Which of its splits.")
@click.option(
    "--num_inputs",
    type=click.IntRange(1, len(protocol.INPUT_VIEWS)),
    default=1,
    help=f"Input views: the first of {', '.join(map(str, protocol.INPUT_VIEWS))}.",
)
@click.option(
    "--views",
    default="all",
    metavar="all|list|FILE",
    help="Views to draw: all others; 0, 24, 49, ..., 249; or those whose numbers are in a file.",
)
@click.option(
    "--objects", "max_objects", type=click.IntRange(min=1), show_default="all", help="Only the first so many."
)
@sampling_options
@click.option(
    "--seeds",
    default="0",
    metavar="LIST",
    callback=protocol.parse_seeds,
    help="Of the noise, a sample of every view for each: 0-9, or 0,3,5.",
)
@click.option(
    "--baselines",
    default="none",
    metavar="LIST",
    callback=some_of(BASELINES),
    help=f"Measure beside the samples: some of {', '.join(BASELINES)}; all; or none.",
)
@click.option(
    "--metrics",
    default="consistency",
    metavar="LIST",
    callback=some_of(EXTRAS),
    help=f"Besides {' and '.join(ALWAYS)}: some of {', '.join(EXTRAS)}; all; or none.",
)
@click.option(
    "--out_dir",
    type=click.Path(path_type=Path),
    show_default="a folder under inference/output, by the options",
    help="Where images and results go. Images that are there already are not drawn again.",
)
@click.option("--batch_size", type=click.IntRange(min=1), default=16, help="Views drawn at a time, on each device.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), show_default="cuda where there is a GPU")
@click.option("-n", "--dry-run", is_flag=True, help="Check everything, say what would be drawn, and exit.")
def main(metrics: list[str], batch_size: int, device: str | None, dry_run: bool, **options) -> None:
    """Measure a snapshot on held-out objects: draw their views from one to three others, and compare.

    What is interrupted, or done with fewer objects, seeds, baselines or metrics, goes on when it is started again.
    """
    chosen = choose_device(device or ("cuda" if torch.cuda.is_available() else "cpu"), None)
    if not dry_run:
        chosen = distributed.init(chosen.type, timeout=PATIENCE)
    job = open_job(chosen, metrics=metrics, **options)
    job.check()
    measures = {name: Measures(metrics, chosen) for name in job.drawings}
    distributed.print0("\n".join(job.facts()))
    if dry_run:
        click.echo("Dry run: everything is in order.")
        return
    with job.own_folder() if distributed.get_rank() == 0 else contextlib.nullcontext():
        distributed.barrier()
        evaluate(job, measures, batch_size, chosen)
    distributed.shutdown()


def evaluate(job: Job, measures: dict[str, Measures], batch_size: int, device: torch.device) -> None:
    """Draw, measure and write what there is to say, on all ranks."""
    try:
        scores = draw_and_measure(job, measures, batch_size, device)
    except torch.OutOfMemoryError:
        raise InputError("the GPU's memory is too small: pass a smaller --batch_size, or --device cpu") from None
    parts = distributed.gather_objects(scores)
    num_images = sum(len(job.views(index)[1]) for index in range(job.num_objects))
    figures = {}
    for name in job.drawings:
        objects = dict(sorted(pair for part in parts for pair in part[name].items()))
        figures[name] = Figures(objects, report.summarize(objects, measures[name].of_sets(num_images)))
    if distributed.get_rank() == 0:
        write_results(job, figures)


def open_job(
    device: torch.device,
    *,
    ckpt_path: Path | None,
    data: Path,
    convention: str | None,
    normalize: bool,
    data_class: str | None,
    split: str,
    max_objects: int | None,
    seeds: list[int],
    baselines: list[str],
    metrics: list[str],
    out_dir: Path | None,
    num_inputs: int,
    views: str,
    cam_weighting: str | None,
    **sampling,
) -> Job:
    """What the options ask for, of the command's names. Raises InputError where it cannot be opened."""
    sampling = settle(sampling)
    ckpt_path = ckpt_path or default_snapshot(ROOT)
    net = genvs.load_snapshot(ckpt_path)
    weigh_views(net, cam_weighting)
    check_baselines(baselines, net)
    source = Source(data, convention, normalize, own_dataset_class(data_class) if data_class else None)
    dataset = source.open(source.find(split), net.config)
    mean_image = open_mean_image(source, split, net) if "mean" in baselines else None
    classes = dataset.checked_classes() if net.config.scene.num_classes else None
    guide = load_guide(
        sampling["guide"],
        net,
        device,
        bf16=sampling["bf16"],
        cam_weighting=cam_weighting,
        class_id=classes[0] if classes else None,
    )
    how = {name: sampling[name] for name in NAMES} | {"bf16": sampling["bf16"] and has_native_bf16(device)}
    chosen = Protocol(
        snapshot=str(ckpt_path),
        snapshot_sha256=protocol.sha256(ckpt_path),
        data=str(dataset.path),
        data_sha256=protocol.digest(dataset.digest_of_files(), classes, data_class),
        convention=dataset.convention,
        normalize=normalize,
        num_inputs=num_inputs,
        view_weighting=net.config.view_weighting,
        views=protocol.read_views(views),
        resolution=net.config.resolution,
        **how,
        guide_sha256=protocol.sha256(sampling["guide"]) if guide else None,
    )
    out_dir = out_dir or results_folder(ROOT / "inference" / "output", chosen, sampling, cam_weighting)
    num_objects = min(max_objects or len(dataset), len(dataset))
    asked = {"data_class": data_class, "cam_weighting": cam_weighting, "metrics": metrics}
    asked |= {"split": source.name_of(split), "guide": str(sampling["guide"]) if guide else None}
    return Job(net, guide, dataset, classes, chosen, num_objects, seeds, baselines, mean_image, asked, out_dir)


def draw_and_measure(
    job: Job, measures: dict[str, Measures], batch_size: int, device: torch.device
) -> dict[str, dict[str, Scores]]:
    """Draw and measure this rank's objects: of the samples and of each baseline, as `job.drawings`, by object."""
    share = protocol.share(job.num_objects)
    denoise = FastDenoiser(job.net.to_device(device), bf16=job.protocol.bf16, labels=job.label(0, job.net))
    scores: dict[str, dict[str, Scores]] = {name: {} for name in job.drawings}
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    total = sum(map(len, job.drawings.values())) * sum(len(job.views(index)[1]) for index in share)
    title = "drawing" if world_size == 1 else f"drawing (process 1 of {world_size})"
    with tqdm(total=total, desc=title, unit="view", disable=True if rank else None) as bar:
        for index in share:
            denoise.set_labels(job.label(index, job.net))
            if job.guide:
                job.guide.set_labels(job.label(index, job.guide.net))
            inputs, targets = (job.dataset.load(index, places) for places in job.views(index))
            for name, drawings in job.drawings.items():
                for drawing in drawings:
                    job.draw(index, drawing, (inputs, targets), denoise, batch_size)
                    bar.update(len(targets.images))
                drawn = torch.stack([job.drawn(index, drawing, job.views(index)[1]) for drawing in drawings])
                scores[name][job.name(index)] = measures[name].of_object(drawn, inputs, targets)
    return scores


def write_results(job: Job, figures: dict[str, Figures]) -> None:
    """results.json, table.md and contact_sheet.png; the table's figures on stdout too."""
    departures = protocol.departures(job.dataset, job.protocol, job.num_objects, job.asked["split"])
    objects, summary = figures[SAMPLES]
    baselines = {name: figures[name] for name in job.baselines}
    inputs, targets = job.views(0)
    results = {
        "protocol": {
            **asdict(job.protocol),
            **job.asked,
            "seeds": job.seeds,
            "input_views": inputs,
            "target_views": targets,
        },
        "not_comparable_because": departures,
        "num_objects": len(objects),
        "summary": summary,
        "objects": objects,
        "baselines": {name: of_baseline._asdict() for name, of_baseline in baselines.items()},
    }
    title = f"{Path(job.protocol.snapshot).name} on {job.dataset.path.name}"
    beside = {BASELINES[name]: of_baseline.summary for name, of_baseline in baselines.items()}
    table = report.markdown(title, job.facts(), departures, summary, len(job.seeds), beside)
    paths = [job.out_dir / name for name in (RESULTS_FILE, "table.md", "contact_sheet.png")]
    try:
        write_atomic(json.dumps(results, indent=1) + "\n", paths[0])
        write_atomic(table, paths[1])
    except OSError as error:
        raise InputError(f"{job.out_dir}: cannot be written ({error}): choose another --out_dir") from None
    writers.write_png(paths[2], draw_sheet(job, objects, title))
    click.echo("\n" + table)
    for path in paths:
        click.echo(f"Wrote {path}")


def draw_sheet(job: Job, objects: dict[str, Scores], title: str) -> Image.Image:
    """The best, the median and the worst object, as `report.sheet` shows them."""
    indices = {job.name(index): index for index in range(job.num_objects)}
    shown = []
    for rank, name in report.best_median_worst(objects).items():
        index = indices[name]
        given, wanted = job.views(index)
        wanted = [wanted[place] for place in evenly(len(wanted), report.SHEET_TARGETS)]
        inputs, targets = (pictures(places, job.dataset.load(index, places).images) for places in (given, wanted))
        rows: dict[str, int | str] = {f"sample, seed {seed}": seed for seed in job.seeds[: report.SHEET_SAMPLES]}
        rows |= {BASELINES[baseline]: baseline for baseline in job.baselines}
        drawn = {row: pictures(wanted, job.drawn(index, drawing, wanted)) for row, drawing in rows.items()}
        label = f"{rank}: {objects[name]['psnr']['mean']:.2f} dB"
        shown.append(report.SheetObject(label, name, inputs, targets, drawn))
    return report.sheet(title, shown)


def pictures(places: list[int], images: Tensor) -> dict[int, np.ndarray]:
    """uint8 images `[N, 3, H, W]` as pictures `[H, W, 3]`, by their places among the object's views."""
    return dict(zip(places, images.movedim(1, -1).numpy(), strict=True))


if __name__ == "__main__":
    run_command(main)
