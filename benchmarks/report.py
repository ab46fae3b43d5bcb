"""The benchmarks' JSON files as one Markdown table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from benchmarks.common import REFERENCE, Result, Work
from benchmarks.floors import BANDWIDTH, FIGURES, RATES
from dnnlib.command import run_command
from genvs.errors import InputError
from genvs.files import write_atomic

COLUMNS = ("what", "figure", "ratio", "share of the floor", "goal", "precision", "batch", "preset", "commit", "device")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A Markdown file [default: the terminal].")
def main(files: tuple[Path, ...], out: Path | None) -> None:
    """A table of what is in FILES, which --out wrote: figures, ratio to the reference, share of the floor, goals."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for file in files:
        lines += ["| " + " | ".join(row(result, record)) + " |" for record, result in read(file)]
    table = "\n".join(lines) + f"\n\nReference: {FIGURES['source']}.\n"
    if out is not None:
        write_atomic(table, out)
        print(f"Wrote {out}")
    else:
        print(table, end="")


def read(file: Path) -> list[tuple[dict[str, Any], Result]]:
    """A benchmark's record with each of its results. Raises InputError for another kind of file."""
    try:
        record = json.loads(file.read_text())
        results = [
            {**fields, "work": Work(**fields["work"]) if fields["work"] else None} for fields in record["results"]
        ]
        return [(record, Result(**fields)) for fields in results]
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
    # Goals are ratios to the reference, not to our own slow path.
    ratio = ratios.get(REFERENCE, ratios.get("reference"))
    share = share_of_floor(result) if same_device else None
    return [
        result.name + (f" ({result.note})" if result.note else ""),
        f"{result.value:.4g} {result.unit}" + (f" ±{result.spread:.1%}" if result.spread is not None else ""),
        "; ".join(f"{gain:.2f}x the {name}" for name, gain in ratios.items()),
        "" if share is None else f"{share:.0%}",
        verdict(result, known, ratio),
        result.precision,
        str(result.batch),
        record["preset"],
        record["commit"],
        record["device"],
    ]


def verdict(result: Result, known: dict[str, Any], ratio: float | None) -> str:
    """The goal, and whether it is met."""
    if "value" in known:
        met = result.gain(known["value"]) >= 1
    elif "ratio" in known and ratio is not None:
        met = ratio >= known["ratio"]
    else:
        return ""
    return f"{known['goal']}: {'met' if met else 'missed'}"


def share_of_floor(result: Result) -> float | None:
    """The least time on an H200 that the work takes, over the time that it took; None without a known rate or work."""
    if result.work is None or (result.work.operations and result.precision not in RATES):
        return None
    floor = result.work.seconds(RATES.get(result.precision, RATES["bf16"]), BANDWIDTH)
    took = {"ms": result.value / 1e3, "s": result.value}.get(result.unit, 1 / result.value)
    return floor / took


if __name__ == "__main__":
    run_command(main)
