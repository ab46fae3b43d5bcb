"""The benchmarks' JSON files as one Markdown table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks import ceilings
from benchmarks.common import PRECISIONS, REFERENCE, Result, Work
from benchmarks.floors import BANDWIDTH, COMPUTED, FIGURES, RATES
from dnnlib.command import run_command
from genvs.errors import InputError
from genvs.files import write_atomic

COLUMNS = ("what", "figure", "ratio", "share of the floor", "goal", "precision", "batch", "preset", "commit", "device")


class Ceilings(NamedTuple):
    """rates: operations/s by precision. bandwidth: bytes/s."""

    rates: dict[str, float]
    bandwidth: float


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A Markdown file [default: the terminal].")
@click.option("--join", type=click.Path(path_type=Path, dir_okay=False), help="Write all of FILES into this one, too.")
def main(files: tuple[Path, ...], out: Path | None, join: Path | None) -> None:
    """A table of what is in FILES, which --out wrote: figures, ratio to the reference, share of the floor, goals."""
    records = [record for file in files for record in read(file)]
    if join is not None:
        write_atomic(json.dumps(records, indent=1) + "\n", join)
    if out is not None:
        write_atomic(table(records), out)
        click.echo(f"Wrote {out}")
    else:
        click.echo(table(records), nl=False)


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a file: one benchmark's, or several joined. Raises InputError for another kind of file."""
    try:
        content = json.loads(file.read_text())
        records = content if isinstance(content, list) else [content]
        results_of(records[0])
    except (OSError, ValueError, TypeError, LookupError):
        raise InputError(f"{file}: is not a benchmark's result: give files that --out wrote") from None
    return records


def results_of(record: dict[str, Any]) -> list[Result]:
    return [
        Result(**{**fields, "work": Work(**fields["work"]) if fields["work"] else None}) for fields in record["results"]
    ]


def table(records: list[dict[str, Any]]) -> str:
    """One row per figure."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for record in records:
        limits = ceilings_of(record["device"], records)
        lines += ["| " + " | ".join(row(result, record, limits)) + " |" for result in results_of(record)]
    return "\n".join(lines) + f"\n\nReference: {FIGURES['source']}.\n"


def row(result: Result, record: dict[str, Any], limits: Ceilings | None) -> Iterable[str]:
    """The cells of COLUMNS."""
    known = FIGURES["figures"].get(result.name, {}) if record["preset"] == FIGURES["preset"] else {}
    comparable = record["device"] == FIGURES["device"] and known.get("batch", result.batch) == result.batch
    ratios = {}
    if comparable and "reference" in known:
        ratios["reference"] = result.gain(known["reference"])
    if result.baseline is not None:
        ratios[result.baseline_name] = result.gain(result.baseline)
    # Goals are ratios to the reference, not to our own slow path.
    ratio = ratios.get(REFERENCE, ratios.get("reference"))
    share = None if limits is None or result.work is None else share_of_floor(result, result.work, limits)
    return (
        result.name + (f" ({result.note})" if result.note else ""),
        f"{result.value:.4g} {result.unit}" + (f" ±{result.spread:.1%}" if result.spread is not None else ""),
        "; ".join(f"{gain:.2f}x the {name}" for name, gain in ratios.items()),
        "" if share is None else f"{share:.0%}",
        verdict(result, known, ratio),
        result.precision,
        str(result.batch),
        record["preset"],
        record["commit"],
        COMPUTED if record["benchmark"] == "floors" else record["device"],
    )


def verdict(result: Result, known: dict[str, Any], ratio: float | None) -> str:
    """The goal, and whether it is met."""
    if "value" in known:
        met = result.gain(known["value"]) >= 1
    elif "ratio" in known and ratio is not None:
        met = ratio >= known["ratio"]
    else:
        return ""
    return f"{known['goal']}: {'met' if met else 'missed'}"


def ceilings_of(device: str, records: list[dict[str, Any]]) -> Ceilings | None:
    """What `ceilings` measured on the device, else what is known of the reference figures' device."""
    measured = {
        result["name"]: result["value"]
        for record in records
        if record["device"] == device and record["benchmark"] == "ceilings"
        for result in record["results"]
    }
    if ceilings.COPY in measured:
        names = {precision: ceilings.matmul_name(precision) for precision in PRECISIONS}
        rates = {precision: measured[name] * 1e12 for precision, name in names.items() if name in measured}
        return Ceilings(rates, measured[ceilings.COPY] * 1e9)
    return Ceilings(RATES, BANDWIDTH) if device == FIGURES["device"] else None


def share_of_floor(result: Result, work: Work, limits: Ceilings) -> float | None:
    """The least time that the work takes over the time that it took; None if no ceiling is known."""
    rate = limits.rates.get(result.precision)
    if rate is None and work.operations:
        return None
    floor = work.seconds(rate or math.inf, limits.bandwidth)
    if result.unit.endswith("/s"):
        return floor * result.value
    return floor / (result.value * {"ms": 1e-3, "s": 1.0}[result.unit])


if __name__ == "__main__":
    run_command(main)
