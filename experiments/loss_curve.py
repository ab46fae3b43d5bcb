"""Whether the fast paths train alike: the loss of a run with all of them, of one with none, and of another seed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import ON_GPU, PRECISIONS, Result, benchmark, set_precision, size_option
from benchmarks.model import PATHS, TrainingStep, data_option, dataset, loaded_batches, training_config
from experiments.curves import plot_option, subplots
from training.config import TrainConfig

FAST, PLAIN_RUN, OTHER_SEED = "every fast path", "none of them, strict fp32", "every fast path, another seed"


def losses_of(config: TrainConfig, steps: int) -> np.ndarray:
    """The loss of each of the first `steps` updates of a run."""
    step = TrainingStep(config, loaded_batches(config, config.workers))
    for _ in range(steps):
        step()
    # The monitor keeps (loss, colour loss, sigma) of every sample until someone records them.
    return torch.stack([kept[0].mean() for kept in step.monitor.losses]).double().cpu().numpy()


def running_mean(losses: np.ndarray) -> np.ndarray:
    """The mean over a twentieth of the run: single losses jump with the noise levels that were drawn."""
    window = max(1, len(losses) // 20)
    return np.convolve(losses, np.full(window, 1 / window), mode="valid")


@benchmark
@data_option
@size_option("steps", 500, 20, "Updates of a run.", least=10)
@size_option("batch", 8, 8, "Images of an update.")
@plot_option
def main(preset: str, data: Path | None, steps: int, batch: int, plot: Path | None) -> Iterator[Result]:
    """Train with all fast paths, with none, and with another seed; the difference that the paths make, beside the one
    that a seed makes."""
    precision = PRECISIONS[0]
    runs = {FAST: ("fast", precision, 0), PLAIN_RUN: ("reference", "fp32", 0), OTHER_SEED: ("fast", precision, 1)}
    losses, rampup = {}, batch * steps / 1e4
    with dataset(data, preset, scenes=40 if ON_GPU else 4, val_scenes=2) as path:
        for name, (ops, arithmetic, seed) in runs.items():
            config = training_config(preset, batch, 2, arithmetic, data=str(path), seed=seed, lr_rampup_kimg=rampup)
            set_precision(arithmetic)
            with PATHS[ops]():
                losses[name] = losses_of(config, steps)
    smooth = {name: running_mean(values) for name, values in losses.items()}
    if plot is not None:
        figure, (axes,) = subplots()
        for name, values in smooth.items():
            axes.plot(values, label=name)
        axes.set(yscale="log", xlabel=f"updates of {batch} images", ylabel=f"loss of {preset}, running mean")
        axes.legend()
        figure.savefig(plot)
    difference, noise = (np.abs(smooth[FAST] - smooth[other]).mean() for other in (PLAIN_RUN, OTHER_SEED))
    ends = [f"{values[-max(1, steps // 5) :].mean():.4g}" for values in losses.values()]
    note = "mean loss of the last fifth: {} with, {} without, {} with another seed".format(*ends)
    name, value = "loss: what the fast paths change", 100 * difference / noise
    yield Result(name, value, "% of what a seed changes", precision, batch, note=note)
