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

from dnnlib.command import Command, FullPath, option_group, run_command
from genvs.config import UNOFFICIAL
from genvs.data.baselines import mean_training_image
from genvs.data.scenes import SceneDataset
from genvs.data.splits import dataset_class, open_splits, own_dataset_class
from genvs.errors import InputError
from genvs.files import write_atomic
from genvs.models import GeNVS
from genvs.models.precision import has_native_bf16
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.guidance import load_guide
from inference import options, protocol, report, writers
from inference.evaluation import BASELINES, RESULTS_FILE, SAMPLES, Evaluation
from inference.measures import ALWAYS, MEASURES, Measures, Scores
from inference.protocol import Protocol, evenly
from torch_utils import distributed

PATIENCE = timedelta(days=7)  # how long a rank that is done waits for the others
data, measuring, output = (option_group(title) for title in ("Data", "Measuring", "Output"))


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


@click.command(cls=Command)
@data(
    "--data",
    type=FullPath(path_type=Path),
    required=True,
    help="Dataset, as train.py takes it; or the folder or .zip of the split itself.",
)
@data("--split", type=click.Choice(["train", "val", "test"]), default="test", help="Which of its splits.")
@data("--objects", "max_objects", type=click.IntRange(min=1), show_default="all", help="Only the first so many.")
@data(
    "--num_inputs",
    type=click.IntRange(1, len(protocol.INPUT_VIEWS)),
    default=1,
    help=f"Input views: the first of {', '.join(map(str, protocol.INPUT_VIEWS))}.",
)
@data(
    "--views",
    default="all",
    metavar="all|list|FILE",
    help="Views to draw: all others; 0, 24, 49, ..., 249; or those whose numbers are in a file.",
)
@options.camera_options
@options.network_options
@options.sampling_options(noise="fresh")
@measuring(
    "--seeds",
    default="0",
    metavar="LIST",
    callback=options.parse_numbers,
    help="Seeds of the noise; each draws a sample of every view: 0-9, or 0,3,5.",
)
@measuring(
    "--baselines",
    default="none",
    metavar="LIST",
    callback=some_of(BASELINES),
    help=f"Measure beside the samples: some of {', '.join(BASELINES)}; all; or none.",
)
@measuring(
    "--metrics",
    default="consistency",
    metavar="LIST",
    callback=some_of(MEASURES),
    help=f"Besides {', '.join(ALWAYS)}: some of {', '.join(name for name in MEASURES if name not in ALWAYS)}; all; "
    "or none.",
)
@output(
    "--out_dir",
    type=FullPath(path_type=Path),
    show_default="a folder under inference/output, by the options",
    help="Where images and results go. Images that are there already are not drawn again.",
)
@output("--batch_size", type=click.IntRange(min=1), default=16, help="Views drawn at a time, on each device.")
@output("--dry-run", "-n", is_flag=True, help="Check everything, say what would be drawn, and exit.")
def main(metrics: list[str], batch_size: int, device: str | None, dry_run: bool, **given) -> None:
    """Measure a snapshot on held-out objects: draw their views from one to three others, and compare.

    An evaluation that was interrupted, or done with fewer objects, seeds, baselines or metrics, continues when it is
    started again.
    """
    chosen = options.choose_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if not dry_run:
        chosen = distributed.init(chosen.type, timeout=PATIENCE)
    evaluation = open_evaluation(chosen, metrics=metrics, **given)
    evaluation.check()
    measures = Measures(metrics, evaluation.drawings, chosen)
    distributed.print0("\n".join(evaluation.facts()))
    if dry_run:
        click.echo("Dry run: everything is in order.")
        return
    with evaluation.own_folder() if distributed.get_rank() == 0 else contextlib.nullcontext():
        distributed.barrier()
        evaluate(evaluation, measures, batch_size, chosen)
    distributed.shutdown()


class Result(NamedTuple):
    """What was measured of the samples, or of a baseline: by object, and of all objects."""

    objects: dict[str, Scores]
    summary: Scores


def evaluate(evaluation: Evaluation, measures: Measures, batch_size: int, device: torch.device) -> None:
    """Draw, measure and write the results, on all ranks."""
    try:
        scores = draw_and_measure(evaluation, measures, batch_size, device)
    except torch.OutOfMemoryError:
        raise InputError("the GPU's memory is too small: pass a smaller --batch_size, or --device cpu") from None
    parts = distributed.gather_objects(scores)
    num_images = sum(len(evaluation.views(index)[1]) for index in range(evaluation.num_objects))
    results = {}
    for name in evaluation.drawings:
        objects = {scene: of_object[name] for scene, of_object in sorted(pair for p in parts for pair in p.items())}
        results[name] = Result(objects, report.summarize(objects, measures.of_sets(name, num_images)))
    if distributed.get_rank() == 0:
        write_results(evaluation, results)


def open_evaluation(
    device: torch.device,
    *,
    ckpt_path: Path | None,
    data: Path,
    convention: str | None,
    normalize: bool,
    data_class: str | None,
    near: float | None,
    far: float | None,
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
) -> Evaluation:
    """The evaluation that the options ask for. Raises InputError where something cannot be opened."""
    sampling = options.settle(sampling)
    ckpt_path, net = options.open_network(ckpt_path, cam_weighting, near, far)
    own_class = own_dataset_class(data_class) if data_class else None

    def opened(path: Path) -> SceneDataset:
        scene = net.config.scene
        with distributed.warnings_as_lines():
            return (own_class or dataset_class(path))(
                path,
                resolution=net.config.resolution,
                near=scene.near,
                far=scene.far,
                convention=convention,
                normalize=normalize,
            )

    path, split_name = protocol.find_split(data, split, own_class)
    dataset = opened(path)
    if "colours" in baselines and net.config.numerics == UNOFFICIAL:
        raise InputError(
            "--baselines: a snapshot of the unofficial implementation renders features that are no colours: leave "
            "colours out"
        )
    mean_image = None
    if "mean" in baselines:
        train = opened(train_split(data, path, split, own_class))
        mean_image = mean_training_image(train, range(len(train)))
    classes = dataset.checked_classes() if net.config.scene.num_classes else None
    guide = load_guide(
        sampling["guide"],
        net,
        device,
        bf16=sampling["bf16"],
        cam_weighting=cam_weighting,
        class_id=classes[0] if classes else None,
    )
    chosen = Protocol(
        snapshot=str(ckpt_path),
        snapshot_sha256=protocol.sha256(ckpt_path),
        data=str(dataset.path),
        data_sha256=protocol.digest(dataset.digest_of_files(), classes, data_class),
        convention=dataset.convention,
        normalize=normalize,
        near=net.config.scene.near,
        far=net.config.scene.far,
        num_inputs=num_inputs,
        view_weighting=net.config.view_weighting,
        views=protocol.read_views(views),
        resolution=net.config.resolution,
        **{name: sampling[name] for name in options.SAMPLING if name != "bf16"},
        bf16=sampling["bf16"] and has_native_bf16(device),
        guide_sha256=protocol.sha256(sampling["guide"]) if guide else None,
    )
    asked = {"data_class": data_class, "cam_weighting": cam_weighting, "metrics": metrics, "split": split_name}
    asked["guide"] = str(sampling["guide"]) if guide else None
    out_dir = out_dir or options.ROOT / "inference" / "output" / results_folder(chosen, net, sampling, cam_weighting)
    num_objects = min(max_objects or len(dataset), len(dataset))
    return Evaluation(net, guide, dataset, classes, chosen, num_objects, seeds, baselines, mean_image, asked, out_dir)


def train_split(data: Path, measured: Path, split: str, own_class: type[SceneDataset] | None) -> Path:
    """The train split beside the measured one, for the baseline mean. Raises InputError where there is none."""
    with contextlib.suppress(InputError):
        train = own_class.find_splits(data).train if own_class else open_splits(data).train
        if split == "train" or train != measured:
            return train
    raise InputError(
        f"--data={data}: has no train split by name, which the baseline mean is made of: name the folders NAME_train "
        "and NAME_test and give NAME, or leave mean out of --baselines"
    )


def results_folder(chosen: Protocol, net: GeNVS, sampling: dict, cam_weighting: str | None) -> str:
    """The folder of results by default: the same for the same options, so that it is found again."""
    snapshot = Path(chosen.snapshot)
    views = chosen.views if isinstance(chosen.views, str) else f"file_{protocol.digest(chosen.views)[:6]}"
    name = f"evaluation-{snapshot.parent.name}-{snapshot.stem.removeprefix('network-snapshot-')}"
    name += f"-{Path(chosen.data).stem}_{chosen.data_sha256[:6]}-inputs={chosen.num_inputs}-views={views}"
    name += "" if cam_weighting is None else f"-{cam_weighting}"
    return f"{name}-{options.described(sampling)}"


def draw_and_measure(
    evaluation: Evaluation, measures: Measures, batch_size: int, device: torch.device
) -> dict[str, dict[str, Scores]]:
    """Draw and measure this rank's objects: the scores by object, then by drawing."""
    share, net, guide = evaluation.share(), evaluation.net, evaluation.guide
    denoise = FastDenoiser(net.to_device(device), bf16=evaluation.protocol.bf16, labels=evaluation.label(0, net))
    scores = {}
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    total = sum(map(len, evaluation.drawings.values())) * sum(len(evaluation.views(index)[1]) for index in share)
    title = "drawing" if world_size == 1 else f"drawing (process 1 of {world_size})"
    with tqdm(total=total, desc=title, unit="view", disable=True if rank else None) as bar:
        for index in share:
            denoise.set_labels(evaluation.label(index, net))
            if guide:
                guide.set_labels(evaluation.label(index, guide.net))
            inputs, targets = (evaluation.dataset.load(index, places) for places in evaluation.views(index))
            drawn = {}
            for name, drawings in evaluation.drawings.items():
                images = []
                for drawing in drawings:
                    images.append(evaluation.draw(index, drawing, (inputs, targets), denoise, batch_size))
                    bar.update(len(targets.images))
                drawn[name] = torch.stack(images)
            scores[evaluation.name(index)] = measures.of_object(drawn, inputs, targets)
    return scores


def write_results(evaluation: Evaluation, results: dict[str, Result]) -> None:
    """results.json, table.md and contact_sheet.png; the table on stdout too."""
    chosen, asked = evaluation.protocol, evaluation.asked
    departures = protocol.departures(evaluation.dataset, chosen, evaluation.num_objects, asked["split"])
    objects, summary = results[SAMPLES]
    inputs, targets = evaluation.views(0)
    views = {"seeds": evaluation.seeds, "input_views": inputs, "target_views": targets}
    content = {
        "protocol": {**asdict(chosen), **asked, **views},
        "not_comparable_because": departures,
        "num_objects": len(objects),
        "summary": summary,
        "objects": objects,
        "baselines": {name: results[name]._asdict() for name in evaluation.baselines},
    }
    title = f"{Path(chosen.snapshot).name} on {evaluation.dataset.path.name}"
    beside = {BASELINES[name]: results[name].summary for name in evaluation.baselines}
    table = report.markdown(title, evaluation.facts(), departures, summary, len(evaluation.seeds), beside)
    paths = [evaluation.out_dir / name for name in (RESULTS_FILE, "table.md", "contact_sheet.png")]
    write_atomic(json.dumps(content, indent=1) + "\n", paths[0])
    write_atomic(table, paths[1])
    writers.write_png(paths[2], draw_sheet(evaluation, objects, title))
    click.echo("\n" + table)
    for path in paths:
        click.echo(f"Wrote {path}")


def draw_sheet(evaluation: Evaluation, objects: dict[str, Scores], title: str) -> Image.Image:
    """The best, the median and the worst object, as `report.sheet` shows them."""
    indices = {evaluation.name(index): index for index in range(evaluation.num_objects)}
    rows: dict[str, int | str] = {f"sample, seed {seed}": seed for seed in evaluation.seeds[: report.SHEET_SAMPLES]}
    rows |= {BASELINES[baseline]: baseline for baseline in evaluation.baselines}
    shown = []
    for rank, name in report.best_median_worst(objects).items():
        index = indices[name]
        given, wanted = evaluation.views(index)
        wanted = [wanted[place] for place in evenly(len(wanted), report.SHEET_TARGETS)]
        inputs, targets = (
            pictures(places, evaluation.dataset.load(index, places).images) for places in (given, wanted)
        )
        drawn = {row: pictures(wanted, evaluation.drawn(index, drawing, wanted)) for row, drawing in rows.items()}
        label = f"{rank}: {objects[name]['psnr']['mean']:.2f} dB"
        shown.append(report.SheetObject(label, name, inputs, targets, drawn))
    return report.sheet(title, shown)


def pictures(places: list[int], images: Tensor) -> dict[int, np.ndarray]:
    """uint8 images `[N, 3, H, W]` as pictures `[H, W, 3]`, by their places among the object's views."""
    return dict(zip(places, images.movedim(1, -1).numpy(), strict=True))


if __name__ == "__main__":
    run_command(main)
