"""The benchmarks' JSON files as one Markdown table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.common import LESS_IS_BETTER, REFERENCE, OutputFile, Result
from dnnlib.command import run_command
from genvs.errors import InputError
from genvs.files import write_atomic

COLUMNS = ("what", "figure", "ratio", "share of the floor", "goal", "precision", "batch", "preset", "commit", "device")
FIGURES = json.loads(Path(__file__).with_name("reference_figures.json").read_text())


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=OutputFile(), help="A Markdown file [default: the terminal].")
def main(files: tuple[Path, ...], out: Path | None) -> None:
    """A table of what is in FILES, which --out wrote: figures, ratio to the reference, share of the floor, goals."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(row(result, record) for file in files for record, result in read(file))]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows) + f"\nReference: {FIGURES['source']}.\n"
    if out is None:
        print(table, end="")
    else:
        write_atomic(table, out)
        print(f"Wrote {out}")


def read(file: Path) -> list[tuple[dict[str, Any], Result]]:
    """A benchmark's record with each of its results. Raises InputError for another kind of file."""
    try:
        record = json.loads(file.read_text())
        return [(record, Result(**fields)) for fields in record["results"]]
    except (OSError, ValueError, TypeError, LookupError):
        raise InputError(f"{file}: is not a benchmark's result: give files that --out wrote") from None


def row(result: Result, record: dict[str, Any]) -> list[str]:
    """The cells of COLUMNS. Published figures are compared on their own device, preset and batch alone."""
    known = FIGURES["figures"].get(result.name, {}) if record["preset"] == FIGURES["preset"] else {}
    same_device = record["device"] == FIGURES["device"]
    ratios = {}
    if same_device and "reference" in known and known.get("batch", result.batch) == result.batch:
        ratios["reference"] = result.gain(known["reference"])
    if result.baseline is not None:
        ratios[result.baseline_name] = result.gain(result.baseline)
    took = {"ms": result.value / 1e3, "s": result.value}.get(result.unit, 1 / (result.value or 1))
    return [
        result.name + (f" ({result.note})" if result.note else ""),
        result.figure,
        "; ".join(f"{gain:.2f}x the {name}" for name, gain in ratios.items()),
        f"{result.floor / took:.0%}" if result.floor is not None and same_device else "",
        # Goals are ratios to the reference, not to our own slow path.
        verdict(result, known, ratios.get(REFERENCE, ratios.get("reference"))),
        result.precision,
        str(result.batch),
        *(record[name] for name in ("preset", "commit", "device")),
    ]


def verdict(result: Result, known: dict[str, Any], ratio: float | None) -> str:
    """The goal, and whether it is met."""
    if "goal" in known:
        sign = "<=" if result.unit in LESS_IS_BETTER else ">="
        goal, met = f"{sign} {known['goal']} {result.unit}", result.gain(known["goal"]) >= 1
    elif "goal_ratio" in known and ratio is not None:
        goal, met = f">= {known['goal_ratio']}x", ratio >= known["goal_ratio"]
    else:
        return ""
    return f"{goal}: {'met' if met else 'missed'}"


if __name__ == "__main__":
    run_command(main)
