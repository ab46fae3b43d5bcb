"""Figures of a snapshot on a dataset's split, by the literature's protocol: see docs/evaluation.md."""

import contextlib
import json
import sys
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

# A script's path starts at its own folder, where `inference` is inference.py.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dnnlib.quiet_interrupt  # noqa: F401

# isort: split
import click
import torch
from tqdm import tqdm

from dnnlib.command import Command, option_group, run_command
from genvs.config import UNOFFICIAL
from genvs.data.baselines import mean_training_image
from genvs.data.stored import dataset_class
from genvs.errors import InputError
from genvs.files import write_atomic
from genvs.snapshot import snapshot_sha256
from inference import folders, options, protocol, report, writers
from inference.cross import EXPERIMENTS
from inference.cross_report import cross_evaluation
from inference.evaluation import BASELINES, SAMPLES, Evaluation
from inference.report import MEASURES, Measures, Scores
from torch_utils import distributed

PATIENCE = timedelta(days=7)  # how long a rank that is done waits for the others
VIEWS = "Views to draw. all: all but the inputs; list: 0, 24, 49, ..., 249; FILE: those whose numbers are in it."
SEEDS = "Seeds of the noise; each draws a sample of every view: 0-9, or 0,3,5."
NUM_INPUTS = "How many input views: view 64, then 104 and 84; with --cross any views."
BATCH_SIZE = "Views drawn at a time, on each device."
CROSS = "pairs: each modality from each; fusion: from 2 to 5 views of any; sensors: from every subset at one camera."
MODALITY_LIST: dict[str, Any] = {"metavar": "LIST", "callback": options.parse_names, "show_default": "the network's"}
CROSS_OPTIONS = ("cross", "inputs", "targets")
NOT_IN_CROSS = ("views", "guide", "noise", "seeds", "baselines", "metrics")
OUT_DIR = "Folder of images and results. Images that it already holds are not drawn again."
of_data, of_cross, of_measures, of_output = map(option_group, ("Data", "Several modalities", "Measuring", "Output"))


def names_option(option: str, known: Collection[str], default: str) -> Callable[[Callable], Callable]:
    """An option that takes some of the names, with commas between; 'all' or 'none'."""

    def parse(context: click.Context, parameter: click.Parameter, text: str) -> list[str]:
        if text in ("all", "none"):
            return list(known) if text == "all" else []
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is not known: choose from {', '.join(known)}; or all, or none")
        return list(dict.fromkeys(names))

    text = f"What to measure in addition: some of {', '.join(known)}; all; or none."
    return of_measures(option, default=default, metavar="LIST", callback=parse, help=text)


@click.command(cls=Command, epilog=options.BY_DEFAULT)
@of_data("--data", type=options.PATH, required=True, help="Dataset, as train.py takes it, or the split itself.")
@of_data("--split", type=click.Choice(["train", "val", "test"]), default="test", help="Which of its splits.")
@of_data("--objects", "max_objects", type=click.IntRange(min=1), show_default="all", help="Only the first N.")
@of_data("--num_inputs", type=click.IntRange(1, 3), show_default="1; with --cross pairs 3", help=NUM_INPUTS)
@of_data("--views", default="all", metavar="all|list|FILE", help=VIEWS)
@of_cross("--cross", type=click.Choice(EXPERIMENTS), show_default="pairs, with --inputs or --targets", help=CROSS)
@of_cross("--inputs", **MODALITY_LIST, help="Modalities to draw from.")
@of_cross("--targets", **MODALITY_LIST, help="Modalities to draw.")
@options.camera_options
@options.network_options
@options.sampling_options(noise="fresh")
@of_measures("--seeds", default="0", metavar="LIST", callback=options.parse_numbers, help=SEEDS)
@names_option("--baselines", BASELINES, default="none")
@names_option("--metrics", MEASURES, default="consistency")
@of_output("--out_dir", type=options.FOLDER, show_default="inference/output/evaluation-...", help=OUT_DIR)
@of_output("--batch_size", type=click.IntRange(min=1), show_default="16; with --cross 64", help=BATCH_SIZE)
@of_output("--dry-run", "-n", is_flag=True, help="Check everything, say what would be drawn, and exit.")
@click.pass_context
def main(context: click.Context, batch_size: int | None, dry_run: bool, **given) -> None:
    """Measure a snapshot on held-out objects: draw their views from one to three others, and compare.

    Started again, it continues an evaluation that was interrupted, or done with fewer objects, seeds, baselines or
    metrics.
    """
    crosses = any(given[name] is not None for name in CROSS_OPTIONS)
    for name in NOT_IN_CROSS if crosses else ():
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise InputError(f"--{name} has no effect with --cross, --inputs and --targets: leave it out")
    device = options.choose_device(given["device"])
    if not dry_run:
        device = distributed.init(device.type, timeout=PATIENCE)
    try:
        if crosses:
            cross_evaluation(given, device, batch_size or 64, dry_run)
        else:
            evaluate(given, device, batch_size or 16, dry_run)
    except torch.OutOfMemoryError:
        raise InputError("the GPU's memory is too small: pass a smaller --batch_size, or --device cpu") from None
    except KeyboardInterrupt:
        distributed.print0("\nInterrupted: start the same command again to draw the rest.", file=sys.stderr)
        raise
    distributed.shutdown()


def evaluate(given: dict[str, Any], device: torch.device, batch_size: int, dry_run: bool) -> None:
    """The literature's protocol, of photos drawn from photos."""
    evaluation = open_evaluation({**given, "num_inputs": given["num_inputs"] or 1}, device)
    evaluation.check()
    measures = Measures(evaluation, device)
    distributed.print0("\n".join(folders.facts(evaluation.protocol)))
    if dry_run:
        click.echo("Dry run: everything is in order.")
        return
    with evaluation.own_folder() if distributed.get_rank() == 0 else contextlib.nullcontext():
        distributed.barrier()
        results = draw_and_measure(evaluation, measures, batch_size)
        if distributed.get_rank() == 0:
            write_results(evaluation, results)


def open_evaluation(given: dict[str, Any], device: torch.device) -> Evaluation:
    """The evaluation that the options ask for. Raises InputError where something cannot be opened."""
    ckpt_path, net = options.open_network(given)
    given = options.settle(given, net)
    data, baselines = given["data"], given["baselines"]
    scene, kind, known = net.config.scene, dataset_class(given["data_class"]), ", ".join(net.config.modalities)
    if "rgb" not in net.config.modalities:
        raise InputError(f"{ckpt_path}: draws {known}, and this measures photos: pass --cross, or --inputs, --targets")
    if known != "rgb":
        distributed.print0(f"Measured: rgb drawn from rgb; for others of {known} pass --cross, or --inputs, --targets")
    path, split = protocol.find_split(data, given["split"], kind)
    dataset = protocol.open_dataset(path, net.config, given)
    if "colours" in baselines and net.config.numerics == UNOFFICIAL:
        raise InputError(
            "--baselines: a snapshot of the unofficial implementation renders features that are not colours: leave "
            "colours out"
        )
    mean_image = None
    if "mean" in baselines:
        train = protocol.open_dataset(protocol.find_split(data, "train", kind)[0], net.config, given)
        mean_image = mean_training_image(train, range(len(train)))
    classes = dataset.checked_classes() if scene.num_classes else None
    denoise = options.fast_denoiser(net, given, device, classes[0] if classes else None)
    guide = options.load_guide(given, net, device, classes[0] if classes else None)
    chosen = {
        **folders.settings_of(ckpt_path, net, dataset, split, classes, given, device),
        "guide": str(given["guide"]) if guide else None,
        "guide_sha256": snapshot_sha256(given["guide"]) if guide else None,
        "num_objects": min(given["max_objects"] or len(dataset), len(dataset)),
        "views": protocol.read_views(given["views"]),
        **{name: given[name] for name in ("num_inputs", "seeds", "baselines", "metrics")},
    }
    out_dir = given["out_dir"] or folders.default_folder("evaluation", chosen, given)
    return Evaluation(denoise, guide, dataset, classes, chosen, mean_image, out_dir)


def draw_and_measure(evaluation: Evaluation, measures: Measures, batch_size: int) -> dict[str, dict[str, Any]]:
    """Draw and measure on all ranks. Returns, by drawing, the scores of all objects and their summary."""
    drawings = evaluation.drawings
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    num_views = [len(evaluation.views(index)[1]) for index in range(evaluation.protocol["num_objects"])]
    scores: dict[str, dict[str, Scores]] = {}
    total = sum(map(len, drawings.values())) * sum(num_views[rank::world_size])
    title = "drawing" if world_size == 1 else f"drawing (process 1 of {world_size})"
    with tqdm(total=total, desc=title, unit="view", disable=True if rank else None) as bar:
        for index in range(rank, len(num_views), world_size):
            inputs, targets = (evaluation.dataset.load(index, views) for views in evaluation.views(index))
            drawn = {}
            for name, samples in drawings.items():
                images = []
                for sample in samples:
                    images.append(evaluation.draw(index, sample, inputs, targets.cameras, batch_size))
                    bar.update(num_views[index])
                drawn[name] = torch.stack(images)
            scores[evaluation.name(index)] = measures.of_object(drawn, inputs, targets)
    scores = dict(sorted(pair for part in distributed.gather_objects(scores) for pair in part.items()))
    results = {}
    for name in drawings:
        objects = {scene: of_object[name] for scene, of_object in scores.items()}
        summary = report.summarize(objects, measures.of_sets(name))
        results[name] = {"objects": objects, "summary": summary}
    return results


def write_results(evaluation: Evaluation, results: dict[str, dict[str, Any]]) -> None:
    """Write results.json, table.md and contact_sheet.png; print the figures too."""
    chosen = evaluation.protocol
    departures = protocol.departures(evaluation.dataset, chosen)
    inputs, targets = evaluation.views(0)
    content = {
        "protocol": {**chosen, "input_views": inputs, "target_views": targets},
        "not_comparable_because": departures,
        **results[SAMPLES],
        "baselines": {name: results[name] for name in chosen["baselines"]},
    }
    title = f"{Path(chosen['snapshot']).name} on {evaluation.dataset.path.name}"
    summaries = {name: results[name]["summary"] for name in results}
    table = report.markdown(title, folders.facts(chosen), departures, summaries, len(chosen["seeds"]))
    paths = [evaluation.out_dir / name for name in ("results.json", "table.md", "contact_sheet.png")]
    write_atomic(json.dumps(content, indent=1) + "\n", paths[0])
    write_atomic(table, paths[1])
    writers.write_png(paths[2], report.sheet(evaluation, results[SAMPLES]["objects"], title))
    click.echo("\n" + table.partition("\n## ")[0])  # what was drawn is printed before
    for path in paths:
        click.echo(f"Wrote {path}")


if __name__ == "__main__":
    run_command(main)
