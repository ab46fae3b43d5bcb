"""Quality against the number of evaluations: of a trained network by Heun and UniPC, and of a few-step one."""

import csv
import json
from pathlib import Path
from typing import Any

import click

import genvs
from benchmarks import quality
from dnnlib.command import Command, FullPath, run_command
from experiments.curves import of_results, plot_option, subplots
from genvs.diffusion.samplers import SAMPLERS
from genvs.errors import InputError
from inference.report import MEASURES

STEPS = {"heun": (3, 5, 8, 13, 25), "unipc": (1, 2, 4, 8, 12, 25)}
TICKS = (1, 2, 5, 12, 25, 49)
SNAPSHOT, FOLDER = FullPath(path_type=Path), FullPath(path_type=Path, file_okay=False)


@click.command(
    "few_steps",
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    epilog="OPTIONS: any of benchmarks.quality cars, such as --objects 10, except of the network and its sampler.",
)
@click.argument("trained", type=SNAPSHOT)
@click.argument("distilled", type=SNAPSHOT)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@of_results("--out_dir", type=FOLDER, required=True, help="Folder of the images and of few_steps.csv.")
@plot_option
def main(trained: Path, distilled: Path, options: tuple[str, ...], out_dir: Path, plot: Path | None) -> None:
    """Measure the snapshot TRAINED and the few-step network DISTILLED on held-out embedded cars.

    A measurement that was interrupted continues when it is started again.
    """
    few = genvs.load_snapshot(distilled).notes.get("num_steps")
    if few is None:
        raise InputError(f"{distilled}: is not a few-step network: give one that ./train.sh --distill has made")
    curves = [(trained, sampler, STEPS[sampler]) for sampler in STEPS]
    rows: list[dict[str, Any]] = []
    for snapshot, sampler, counts in [*curves, (distilled, "consistency", range(1, few + 1))]:
        for num_steps in counts:
            folder = out_dir / f"{sampler}-{num_steps}"
            chosen = {"ckpt_path": snapshot, "sampler": sampler, "denoising_steps": num_steps, "out_dir": folder}
            arguments = ["cars", "--baselines", "none", *options, *(f"--{name}={chosen[name]}" for name in chosen)]
            quality.main.main(arguments, standalone_mode=False)
            summary = json.loads((folder / "results.json").read_text())["summary"]
            means = {measure: summary[measure]["mean"] for measure in summary}
            evaluations = SAMPLERS[sampler].evaluations(num_steps)
            rows.append({"sampler": sampler, "steps": num_steps, "evaluations": evaluations, **means})
            with open(out_dir / "few_steps.csv", "w", newline="") as file:
                table = csv.DictWriter(file, rows[0])
                table.writeheader()
                table.writerows(rows)
    print(f"Wrote {out_dir / 'few_steps.csv'}")
    if plot is not None:
        draw(rows, plot)
        print(f"Wrote {plot}")


def draw(rows: list[dict[str, Any]], plot: Path) -> None:
    """A chart for each measure, with a curve for each sampler."""
    shown = [measure for measure in MEASURES if measure in rows[0]]
    figure, charts = subplots(len(shown), columns=2)
    for axes, measure in zip(charts, shown, strict=True):
        for sampler in dict.fromkeys(row["sampler"] for row in rows):
            points = [(row["evaluations"], row[measure]) for row in rows if row["sampler"] == sampler]
            axes.plot(*zip(*points, strict=True), marker="o", label=sampler)
        smaller_is_better = MEASURES[measure].larger_is_better is False
        axes.set(xscale="log", yscale="log" if smaller_is_better else "linear", ylabel=MEASURES[measure].title)
        axes.set_xticks(TICKS, map(str, TICKS))
        axes.xaxis.minorticks_off()
    charts[0].legend()
    for axes in charts[-2:]:
        axes.set_xlabel("evaluations of the denoiser for a view")
    figure.savefig(plot)


if __name__ == "__main__":
    run_command(main)
