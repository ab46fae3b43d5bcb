"""The experiments, at the smallest size."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import pytest
from PIL import Image

from experiments import curves, recipe
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


def changes(variant: str) -> list[str]:
    return differences(*(flat(config) for config in (PRESET, recipe.variant_of(PRESET, variant))))


def test_a_variant_changes_what_it_names() -> None:
    assert changes("preset") == []
    assert changes("num_targets=2 loss.P_mean=-2") == ["loss.P_mean 0.0 -> -2.0", "num_targets 1 -> 2"]
    assert "net.numerics genvs -> unofficial" in changes("reference lr=0.5") and "lr 0.001 -> 0.5" in changes(
        "reference lr=0.5"
    )
    for variant in recipe.VARIANTS:
        recipe.variant_of(PRESET, variant)
    for wrong in ("learning_rate=1", "loss=3", "lr=fast", "lr"):
        with pytest.raises(InputError):
            recipe.variant_of(PRESET, wrong)


def test_recipes_are_compared(cars, tmp_path) -> None:
    table = tmp_path / "table.md"
    options = ["--kimg=0.032", "--every=0.016", "--variant=preset", "--variant=reference", f"--table={table}"]
    ours, reference = run("recipe", cars, tmp_path / "recipe.json", *options)
    assert ours["curves"]["kimg"] == reference["curves"]["kimg"] == [0.016, 0.032]
    assert ours["curves"]["PSNR"] != reference["curves"]["PSNR"] and ours["value"] == ours["curves"]["PSNR"][-1]
    rows = table.read_text().splitlines()[2:]
    assert rows[0].startswith(f"| `preset` | {ours['value']:.2f} | +0.00 |") and rows[1].startswith("| `reference` |")


def test_loss_curves_differ_by_the_seed_alone_if_there_is_no_fast_path(cars, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    (result,) = run("loss_curve", cars, tmp_path / "out.json", "--steps=10", "--batch=2", f"--plot={plot}")
    fast, plain, other_seed = result["curves"].values()
    assert fast == plain != other_seed and len(fast) == 10 and result["value"] == 0
    assert Image.open(plot).format == "PNG"


def test_seeds(cars, tmp_path) -> None:
    plot = tmp_path / "seeds.png"
    here, unofficial, seed, won = run(
        "seeds", cars, tmp_path / "out.json", "--seeds=1", "--kimg=0.064", f"--plot={plot}"
    )
    assert here["value"] == 0 and unofficial["value"] > 0
    assert won["value"] == (seed["value"] > 0) and Image.open(plot).format == "PNG"


def test_curves_of_a_run(tmp_path) -> None:
    levels = ((), (15.0, 14.0, 13.0), (), (20.0, 18.0, 13.0))  # evaluations at a half and at the end
    scores = [dict(zip(curves.PSNR, values, strict=False)) for values in levels]
    records = [{"nimg": nimg, "Loss/all": 9 / nimg, **score} for nimg, score in zip((1, 4, 5, 8), scores, strict=True)]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    curves.main.main([str(tmp_path)], standalone_mode=False)
    assert Image.open(tmp_path / "curves.png").format == "PNG"
    with pytest.raises(click.BadParameter, match="png"):
        curves.main.main([str(tmp_path), "--plot", str(tmp_path / "curves.txt")], standalone_mode=False)
