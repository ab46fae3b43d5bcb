"""Runs of several processes: that more than two repeat exactly, and that all are started alike."""

import dataclasses
from pathlib import Path

import pytest

from genvs.errors import InputError
from tests.ranks import on_ranks
from tests.small_training import CPU, opened, resume, small_run, train, unequal
from torch_utils import distributed
from training.data import check_ranks_agree

RANKS, BATCH = 3, 6


def on_three_ranks(rank: int, cars: Path, folder: Path) -> None:
    """Runs in each of three processes; a failed assertion fails the test."""
    assert distributed.init("cpu") == CPU
    config = small_run(cars, batch_size=BATCH, duration_kimg=3 * BATCH / 1000)
    undisturbed = train(config, folder / "undisturbed")
    train(dataclasses.replace(config, duration_kimg=BATCH / 1000), folder / "resumed")
    resumed = resume(folder / "resumed", duration_kimg=config.duration_kimg)
    assert resumed["cur_nimg"] == 3 * BATCH and unequal(resumed, undisturbed) == []

    facts = opened(config).facts()
    own = {"data": f"{cars}{rank}", "workers": rank}  # where the data lie may differ
    check_ranks_agree(dataclasses.replace(config, **own), facts, 0)
    faster = dataclasses.replace(config, lr=1 / (1 + rank))
    others = {"lr 1.0 -> 0.5": (faster, facts, 0), "far 0 -> 1": (config, {"far": rank}, 0)}
    for name, arguments in (others | {"images seen 0 -> 1": (config, facts, rank)}).items():
        with pytest.raises(InputError, match=f"^process 1 differs from process 0 .{name}."):
            check_ranks_agree(*arguments)
    distributed.shutdown()


def test_three_processes(cars, tmp_path):
    on_ranks(on_three_ranks, cars, tmp_path, world_size=RANKS)
