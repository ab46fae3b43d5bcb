"""The comparison of recipes: what a variant changes, how long a run is, and what its table says."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from experiments import recipe
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.errors import InputError
from genvs.settings import flat
from training.config import TRAIN_PRESETS

PRESET = TRAIN_PRESETS["cpu-demo"]


def differing(variant: str) -> dict:
    before, after = (flat(dataclasses.asdict(c)) for c in (PRESET, recipe.variant_of(PRESET, variant)))
    return {name: after[name] for name in before if before[name] != after[name]}


def test_a_variant_changes_what_it_names() -> None:
    assert differing("preset") == {}
    assert differing("loss.P_mean=-2 num_targets=2 bf16=false") == {"loss.P_mean": -2, "num_targets": 2, "bf16": False}
    assert differing("reference")["net.numerics"] == "unofficial"
    assert differing("reference lr=0.5 batch_gpu=4") == differing("reference") | {"lr": 0.5, "batch_gpu": 4}
    for variant in recipe.VARIANTS:
        recipe.variant_of(PRESET, variant)


@pytest.mark.parametrize(
    "variant", ["learning_rate", "loss=3", "lr.P_mean=3", "num_targets=1 nothing=2", "lr=fast", "lr"]
)
def test_what_is_no_setting_is_refused(variant: str) -> None:
    with pytest.raises(InputError, match=variant.split()[-1].partition("=")[0]):
        recipe.variant_of(PRESET, variant)


def test_minutes_are_of_training_alone() -> None:
    rate = {"Timing/images_per_sec": 10.0}
    records = [
        {"nimg": 600, "Timing/images_per_sec": 1.0},  # compilation is in it
        {"nimg": 1200, **rate},
        {"nimg": 1200, "PSNR/1_input": 14.0},
        {"nimg": 2400, **rate},
        {"nimg": 2400, "PSNR/1_input": 16.0},
    ]
    assert recipe.training_minutes(records) == pytest.approx(3.0)
    assert recipe.curve(records) == ([1.2, 2.4], [pytest.approx(1.0), pytest.approx(3.0)], [14.0, 16.0])


def test_what_is_written_half_is_read_later(tmp_path) -> None:
    stats = tmp_path / "stats.jsonl"
    assert recipe.read(stats) == []
    stats.write_text('{"nimg": 8}\n{"nim')
    assert recipe.read(stats) == [{"nimg": 8}]


def test_the_table_compares_equal_numbers_of_images() -> None:
    slow = recipe.Outcome([1.0, 2.0], [1.0, 2.0], [12.0, 13.0], 0.5)
    fast = [recipe.Outcome([2.0, 4.0], [1.0, 2.0], psnr, 0.9) for psnr in ([14.0, 18.0], [16.0, 20.0])]
    table = recipe.markdown({"fast": fast, "slow": [slow], "later": []}).splitlines()
    assert len(table) == 4 and "after 2 kimg" in table[0]
    assert table[2] == "| `fast` | 15.00 (14.00 to 16.00) | +0.00 | 19.00 | 4 | 2 | 0.900 |"
    assert table[3] == "| `slow` | 13.00 | -2.00 | 13.00 | 2 | 2 | 0.500 |"


def test_what_was_measured_later_does_not_stand_for_earlier() -> None:
    slow = recipe.Outcome([1.0, 2.0], [1.0, 2.0], [12.0, 13.0], 0.5)
    fast = [recipe.Outcome([first, 8.0], [1.0, 2.0], [15.0, 18.0], 0.9) for first in (2.0, 4.0)]
    for variants in ({"slow": [slow], "fast": fast}, {"fast": fast, "slow": [slow]}):
        rows = {row.split("`")[1]: row.split("` ")[1] for row in recipe.markdown(variants).splitlines()[2:]}
        assert rows["fast"] == "| - | - | 18.00 | 8 | 2 | 0.900 |"
        over_the_first = "+0.00" if next(iter(variants)) == "slow" else "-"
        assert rows["slow"] == f"| 13.00 | {over_the_first} | 13.00 | 2 | 2 | 0.500 |"


@pytest.fixture(scope="module")
def cars(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe") / "cars"
    ensure_dataset(folder, scenes=4, views=8, resolution=32, val_scenes=2, workers=1)
    return folder


def test_runs_of_so_many_images(cars, tmp_path) -> None:
    out, table = tmp_path / "recipe.json", tmp_path / "table.md"
    options = ["--preset", "cpu-demo", "--data", str(cars), "--kimg", "0.032", "--every", "0.016", "--objects", "1"]
    options += ["--variant", "preset", "--variant", "reference", "--out", str(out), "--table", str(table)]
    recipe.main.main(options, standalone_mode=False)
    ours, reference = json.loads(out.read_text())["results"]
    assert ours["curves"]["kimg"] == reference["curves"]["kimg"] == [0.016, 0.032]
    assert ours["curves"]["PSNR"] != reference["curves"]["PSNR"] and ours["value"] == ours["curves"]["PSNR"][-1]
    assert [line.split(" ")[1] for line in table.read_text().splitlines()[2:]] == ["`preset`", "`reference`"]


def test_a_run_of_so_many_minutes(cars) -> None:
    before = signal.getsignal(signal.SIGTERM)
    config = dataclasses.replace(PRESET, data=str(cars), kimg_per_tick=100.0, log_kimg=0.016, tensorboard=False)
    outcome = recipe.run(config, torch.device("cpu"), minutes=0.01, objects=1)
    assert 0.032 <= outcome.kimg[-1] < 2 and 0.01 <= outcome.minutes[0] < 1
    assert 3 < outcome.psnr[-1] < 30 and 0 <= outcome.consistency <= 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_ends_them_all(cars, monkeypatch) -> None:
    config = dataclasses.replace(PRESET, data=str(cars), kimg_per_tick=100.0, log_kimg=0.016, tensorboard=False)
    train = recipe.training_loop

    def interrupted(config, run_dir, *others) -> None:
        def interrupt() -> None:
            while not recipe.read(run_dir / "stats.jsonl"):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        train(config, run_dir, *others)

    monkeypatch.setattr(recipe, "training_loop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipe.run(config, torch.device("cpu"), minutes=None, objects=1)


def test_a_run_has_a_length() -> None:
    with pytest.raises(InputError, match="--kimg and --minutes"):
        recipe.main.main(["--preset", "cpu-demo"], standalone_mode=False)
