"""What inference.cross drew and measured, as files: pictures, a table as CSV and Markdown, and a contact sheet."""

import contextlib
import csv
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from PIL import Image

from genvs.files import remove_orphans, replacing, write_atomic
from genvs.modalities import MODALITIES
from genvs.visualize import Band, contact_sheet
from inference import folders, options, writers
from inference.cross import DRAWINGS, FUSED, Cross, Experiment, Scores, open_cross
from torch_utils import distributed

NETWORK, MEAN, _ = DRAWINGS
ByKey = Mapping[tuple[str, str, str], Mapping[str, Any]]  # `table_rows` by inputs, target and drawing
SHEET_SCENES = 2
CURVES = "fusion-curves.png"
MEASURES = ("psnr", "ssim", "gray_psnr", "iou", "depth_error", "agreement")
NOT_COMPARABLE = (
    "**Not comparable with the figures of CrossModalityDiffusion's paper:** its pictures were not published, and these "
    "sensors are others; it stretches pictures to their own range before it measures them, uses the weights of the "
    "last step instead of their averages, and may draw a view from itself."
)
ABOUT = (
    "Means over the scenes ± standard errors. All runs draw the same views, each from noise of its own, and pictures "
    "are measured as 8 bits keep them. Mean image: of training pictures of the target's modality. Nearest input: the "
    "nearest input view, copied; of the target's modality, if there is one. Gray PSNR: of the luma of photos. IoU: of "
    "what is not background, which is the silhouette in photos and the returns in other pictures. Depth error: mean "
    "absolute error in world units, where both have a return."
)
BOLD = (
    "In brackets: by how much the network is better than the better baseline, the mean image or the nearest input; "
    "bold where it is better than both. Other sensors see no colour: judge photos drawn from them by 'rgb in gray'."
)
EXPLAINED = {
    "pairs": "{num_inputs} views of one modality are the inputs.",
    "fusion": "Input views of random modalities, one by one (such as 1 of 3) and together (all 3).",
    "sensors": "One view, as every subset of the sensors sees it.",
}


def cross_evaluation(given: dict[str, Any], device: torch.device, batch_size: int, dry_run: bool) -> None:
    """Draw and measure one experiment, and write its tables and pictures. given: as in `open_cross`."""
    cross = open_cross(given, device)
    experiment, folder = cross.experiment, cross.out_dir
    distributed.print0("\n".join(folders.facts(cross.settings)))
    names = [f"{experiment.name}.{kind}" for kind in ("csv", "md", "png")]
    if experiment.name == "fusion" and importlib.util.find_spec("matplotlib") is None:
        options.warn("no curves are drawn, which need matplotlib: pip install -c constraints.txt -e .[plots]")
    elif experiment.name == "fusion":
        names.append(CURVES)
    path = folder / f"{experiment.name}-protocol.json"

    def check() -> None:
        if not folders.check_settings(path, cross.settings):
            writers.check_new(folder, [*names, cross.pictures.name])

    check()
    if dry_run:
        distributed.print0("Dry run: everything is in order.")
        return
    rank = distributed.get_rank()
    with folders.own_folder(path, cross.settings, check) if rank == 0 else contextlib.nullcontext():
        for of_run in cross.pictures.glob("*") if rank == 0 else ():
            remove_orphans(of_run)
        distributed.barrier()
        scores = cross.run(batch_size)
        if rank == 0:
            write_results(cross, scores, [folder / name for name in names])


def write_results(cross: Cross, scores: Mapping[int, Scores], paths: Sequence[Path]) -> None:
    """Write the table, the page, the sheet and the curves, if `paths` has a fourth one; print the page too."""
    rows, experiment = table_rows(scores), cross.experiment
    title = f"{experiment.name}: {Path(cross.settings['snapshot']).name} on {cross.dataset.path.name}"
    page = as_markdown(title, experiment, rows, folders.facts(cross.settings), cross.agreement_of_targets())
    write_atomic(as_csv(rows), paths[0])
    write_atomic(page, paths[1])
    writers.write_png(paths[2], sheet(cross, title, rows))
    for path in paths[3:]:
        draw_curves(path, title, fused_figures(rows, experiment.targets))
    print("\n".join(["", page, *(f"Wrote {path}" for path in paths)]))


def sheet(cross: Cross, title: str, rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """A picture of some scenes: the inputs, then a row for each modality with the first view as every run draws it.

    rows: `table_rows`, whose means over all scenes are shown beside the runs.
    """
    psnr = {(row["inputs"], row["target"]): row["psnr"] for row in rows if row["drawing"] == NETWORK}
    bands: list[Band] = []
    for scene in cross.scenes[:SHEET_SCENES]:
        inputs, targets, _ = cross.load([scene])
        kinds = [list(MODALITIES)[index] for index in inputs.modality[0].tolist()]
        bands.append((kinds, {f"inputs, scene {scene}": inputs.images[0].movedim(1, -1).numpy()}))
        for name, views in targets.items():
            labels = ["target", *(f"{run}: {psnr[run, name]:.1f} dB" for run in cross.experiment.runs)]
            drawn = [writers.read_strip(cross.path(scene, run, name))[0] for run in cross.experiment.runs]
            pictures = torch.stack([views.images[0, 0], *drawn])
            bands.append((labels, {name: pictures.movedim(1, -1).numpy()}))
    return contact_sheet(title, bands, caption="dB: PSNR of the target's modality, mean over all scenes.")


def table_rows(scores: Mapping[int, Scores]) -> list[dict[str, Any]]:
    """A row for each run, target and drawing: means over scenes, and of several `psnr_error`, the standard error."""
    rows = []
    of_scenes = [scores[scene] for scene in sorted(scores)]
    for run, target, drawing in of_scenes[0]:
        every = [of_scene[run, target, drawing] for of_scene in of_scenes]
        means = {measure: fmean(one[measure] for one in every) for measure in every[0]}
        if len(every) > 1:
            means["psnr_error"] = stdev(one["psnr"] for one in every) / math.sqrt(len(every))
        rows.append({"inputs": run, "target": target, "drawing": drawing, **means})
    return rows


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    columns = ["inputs", "target", "drawing", *MEASURES[:1], "psnr_error", *MEASURES[1:]]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()})
    return text.getvalue()


def as_markdown(
    title: str, experiment: Experiment, rows: Sequence[Mapping[str, Any]], facts: Sequence[str], agreement: float | None
) -> str:
    """The whole page. facts: what was drawn, a line each. agreement: of the real pictures."""
    by_key = {(row["inputs"], row["target"], row["drawing"]): row for row in rows}
    runs, targets = list(experiment.runs), experiment.targets
    columns = [(name, name, "psnr") for name in targets]
    if "rgb" in targets:
        columns.insert(1, ("rgb in gray", "rgb", "gray_psnr"))
    parts = [f"# {title}", NOT_COMPARABLE, EXPLAINED[experiment.name].format(num_inputs=experiment.num_inputs), BOLD]
    parts += ["## PSNR (dB) by inputs and target", _matrix(by_key, runs, columns, 2)]
    if experiment.name == "fusion":
        lines = [
            [str(number), *(f"{alone:.2f} → {together:.2f} ({together - alone:+.2f})" for alone, together in figures)]
            for number, *figures in zip(FUSED, *fused_figures(rows, targets).values(), strict=True)
        ]
        parts.append("## PSNR (dB) by the number of views")
        parts.append(markdown_table(["views, alone → together", *targets], lines))
    parts += ["## IoU by inputs and target", _matrix(by_key, runs, [(name, name, "iou") for name in targets], 3)]
    parts += ["## All figures", _figures(by_key, [(run, name) for run in runs for name in targets])]
    if agreement is not None:
        of_runs = [[run, f"{by_key[run, 'depth', NETWORK]['agreement']:.3f}"] for run in runs]
        parts += [
            "## Photos and depth pictures of the same cameras",
            "The intersection over union of the silhouettes that are drawn in the two.",
            markdown_table(["inputs", "IoU"], [*of_runs, ["real pictures", f"{agreement:.3f}"]]),
        ]
    return "\n\n".join([*parts, ABOUT, "## What was drawn", "\n".join(f"* {fact}" for fact in facts)]) + "\n"


def _matrix(by_key: ByKey, runs: Sequence[str], columns: Sequence[tuple[str, str, str]], digits: int) -> str:
    """A line for each run: the network's figures, and how much better than the better baseline's they are.

    columns: title, target and measure of each.
    """
    lines = [[run] for run in (*runs, MEAN, "better than both baselines")]
    for _, name, measure in columns:
        better = 0
        for line, run in zip(lines, runs, strict=False):
            own, *others = (by_key[run, name, drawing] for drawing in DRAWINGS)
            margin = own[measure] - max(other[measure] for other in others)
            text = f"{own[measure]:.{digits}f}"
            if f"{measure}_error" in own:
                text += f" ± {own[f'{measure}_error']:.{digits}f}"
            line.append(f"{f'**{text}**' if margin > 0 else text} ({margin:+.{digits}f})")
            better += margin > 0
        lines[-2].append(f"{by_key[runs[0], name, MEAN][measure]:.{digits}f}")
        lines[-1].append(f"{better} of {len(runs)}")
    return markdown_table(["inputs", *(title for title, _, _ in columns)], lines)


def _figures(by_key: ByKey, pairs: Sequence[tuple[str, str]]) -> str:
    header = [f"{measure}: {drawing}" for measure in ("PSNR", "gray PSNR", "IoU") for drawing in DRAWINGS]
    lines = []
    for run, name in pairs:
        own = [by_key[run, name, drawing] for drawing in DRAWINGS]
        grays = [f"{of['gray_psnr']:.2f}" if name == "rgb" else "-" for of in own]
        error = f"{own[0]['depth_error']:.4f}" if name == "depth" else "-"
        figures = [*(f"{of['psnr']:.2f}" for of in own), *grays, *(f"{of['iou']:.3f}" for of in own)]
        lines.append([run, name, *figures, f"{own[0]['ssim']:.3f}", error])
    return markdown_table(["inputs", "target", *header, "SSIM", "depth error"], lines)


def fused_figures(rows: Sequence[Mapping[str, Any]], targets: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """For each target and each N of FUSED: the mean PSNR from each of N views alone, and the PSNR from all N."""
    psnr = {(row["inputs"], row["target"]): row["psnr"] for row in rows if row["drawing"] == NETWORK}
    return {
        name: [(fmean(psnr[f"{i} of {n}", name] for i in range(1, n + 1)), psnr[f"all {n}", name]) for n in FUSED]
        for name in targets
    }


def draw_curves(path: Path, title: str, figures: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """PSNR against the number of fused views, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(figures), 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, (name, values) in zip(figure.subplots(1, len(figures), squeeze=False)[0], figures.items(), strict=True):
        alone, together = zip(*values, strict=True)
        axes.plot(FUSED, together, "o-", label="all together")
        axes.plot(FUSED, alone, "o--", label="each alone, mean")
        axes.set(title=name, xlabel="input views", xticks=FUSED)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("PSNR (dB)")
    figure.axes[0].legend()
    with replacing(path) as file:
        figure.savefig(file, format="png")


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
