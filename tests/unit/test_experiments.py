"""The experiments, at the smallest size."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import click
import pytest

from experiments import curves, recipe, seeds
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.errors import InputError
from training.config import TRAIN_PRESETS, differences, flat

pytest.importorskip("matplotlib", reason="the extra `plots`")
PRESET = TRAIN_PRESETS["cpu-demo"]


@pytest.fixture(scope="module")
def cars(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiments") / "cars"
    ensure_dataset(folder, scenes=4, views=8, resolution=32, val_scenes=2, workers=1)
    return folder


def run(name: str, cars: Path, out: Path, *options: str) -> list[dict]:
    """The results of an experiment's command."""
    arguments = ["--preset", "cpu-demo", "--data", str(cars), "--out", str(out), *options]
    importlib.import_module(f"experiments.{name}").main.main(arguments, standalone_mode=False)
    return json.loads(out.read_text())["results"]


def is_png(file: Path) -> bool:
    return file.read_bytes().startswith(b"\x89PNG")


def changes(variant: str) -> list[str]:
    configs = PRESET, recipe.variant_of(PRESET, variant)
    return differences(*(flat(dataclasses.asdict(config)) for config in configs))


def test_a_variant_changes_what_it_names() -> None:
    assert changes("preset") == []
    assert changes("num_targets=2 loss.P_mean=-2") == ["loss.P_mean 0.0 -> -2.0", "num_targets 1 -> 2"]
    assert {"net.numerics genvs -> unofficial", "lr 0.001 -> 0.5"} < set(changes("reference lr=0.5"))
    for wrong in ("learning_rate=1", "loss=3", "lr=fast", "lr"):
        with pytest.raises(InputError):
            recipe.variant_of(PRESET, wrong)


def test_recipes_are_compared(cars, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe, "VIEWS", 2)
    table = tmp_path / "table.md"
    options = ["--kimg=0.032", "--every=0.032", "--variant=preset", "--variant=reference", f"--table={table}"]
    ours, reference = run("recipe", cars, tmp_path / "recipe.json", *options)
    assert ours["curves"]["kimg"] == reference["curves"]["kimg"] == [0.032]
    assert ours["curves"]["PSNR"] != reference["curves"]["PSNR"] and ours["value"] == ours["curves"]["PSNR"][-1]
    rows = table.read_text().splitlines()[2:]
    assert rows[0].startswith(f"| `preset` | {ours['value']:.2f} | +0.00 |") and rows[1].startswith("| `reference` |")


def test_loss_curves_differ_by_the_seed_alone_if_there_is_no_fast_path(cars, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    (result,) = run("loss_curve", cars, tmp_path / "out.json", "--steps=10", "--batch=2", f"--plot={plot}")
    fast, plain, other_seed = result["curves"].values()
    assert fast == plain != other_seed and len(fast) == 10 and result["value"] == 0
    assert is_png(plot)


def test_seeds(cars, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(seeds, "NETWORKS", 8)
    plot = tmp_path / "seeds.png"
    here, unofficial, seed, won = run(
        "seeds", cars, tmp_path / "out.json", "--seeds=1", "--kimg=0.064", f"--plot={plot}"
    )
    assert here["value"] == 0 and unofficial["value"] > 0
    assert won["value"] == (seed["value"] > 0) and is_png(plot)


def test_curves_of_a_run(tmp_path) -> None:
    levels = ((), (15.0, 14.0, 13.0), (), (20.0, 18.0, 13.0))  # evaluations at a half and at the end
    scores = [dict(zip(curves.PSNR, values, strict=False)) for values in levels]
    records = [{"nimg": nimg, "Loss/all": 9 / nimg, **score} for nimg, score in zip((1, 4, 5, 8), scores, strict=True)]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    curves.main.main([str(tmp_path)], standalone_mode=False)
    assert is_png(tmp_path / "curves.png")
    with pytest.raises(click.BadParameter, match="png"):
        curves.main.main([str(tmp_path), "--plot", str(tmp_path / "curves.txt")], standalone_mode=False)
