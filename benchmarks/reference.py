"""Another implementation's training step and sampler, timed as ours are (benchmarks/README.md)."""

import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import click

from benchmarks.common import (
    DEVICE,
    Result,
    benchmark,
    seconds_option,
    set_precision,
    size_option,
    throughput,
    views_option,
)


class ImportsFrom:
    """Lets imports find what lies in `folder` before modules of the same names, loaded ones too: `genvs`, `training`.

    What is loaded goes on working, because it holds what it has imported.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.names = {each.stem for each in folder.iterdir() if each.is_dir() or each.suffix == ".py"} - {"benchmarks"}
        for module in [module for module in sys.modules if module.partition(".")[0] in self.names]:
            del sys.modules[module]

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [self.folder]) if path is None and name in self.names else None


@benchmark
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@size_option("batch", 24, 2, "Images of an update, and views at a time.")
@views_option
@seconds_option
def main(preset: str, seconds: float, folder: Path, batch: int, views: int) -> Iterator[Result]:
    """Time the functions of FOLDER/adapter.py, with TF32 off. The adapter may import what lies beside it, also under
    names of this project's packages."""
    set_precision("fp32")
    sys.meta_path.insert(0, ImportsFrom(folder.resolve()))
    try:
        from adapter import sampler, training_step
    except ImportError as error:
        raise click.UsageError(f"{folder}: {error}: write its adapter.py as benchmarks/README.md says") from None
    step = Result("reference: training step", 0, "images/s", "fp32", batch, note=f"{views} views")
    yield from throughput(training_step(batch, views, DEVICE), step, seconds)
    heun = Result("reference: 25 Heun steps", 0, "views/s", "fp32", batch)
    yield from throughput(sampler(batch, 25, DEVICE), heun, seconds)
