"""The experiments, at the smallest size."""

import csv
import dataclasses
import importlib
import json
import re
from pathlib import Path

import click
import pytest
import torch

from benchmarks import quality
from experiments import charts, curves, few_steps, recipe, seeds
from genvs.errors import InputError
from tests.small_model import SIZE, saved, small_net, some_cameras
from training.config import TRAIN_PRESETS, differences, flat

pytest.importorskip("matplotlib", reason="the extra `plots`")
PRESET = TRAIN_PRESETS["cpu-demo"]


@pytest.fixture
def run(cars, capsys):
    """The rows of an experiment's table."""

    def rows(name: str, *options: str) -> list[list[str]]:
        arguments = ["--preset", "cpu-demo", "--data", str(cars), *options]
        importlib.import_module(f"experiments.{name}").main.main(arguments, standalone_mode=False)
        return rows_of(capsys.readouterr().out)

    return rows


def rows_of(printed: str) -> list[list[str]]:
    return [line[2:-2].split(" | ") for line in printed.splitlines() if line.startswith("|")][2:]


def is_png(file: Path) -> bool:
    return file.read_bytes().startswith(b"\x89PNG")


def changes(variant: str) -> list[str]:
    configs = PRESET, recipe.variant_of(PRESET, variant)
    return differences(*(flat(dataclasses.asdict(config)) for config in configs))


def test_a_variant_changes_what_it_names() -> None:
    assert changes("preset") == []
    assert changes("num_targets=2 loss.P_mean=-2") == ["loss.P_mean 0.0 -> -2.0", "num_targets 1 -> 2"]
    assert {"net.numerics genvs -> unofficial", "lr 0.002 -> 0.5"} < set(changes("reference lr=0.5"))
    for wrong in ("learning_rate=1", "loss=3", "lr=fast", "lr"):
        with pytest.raises(InputError):
            recipe.variant_of(PRESET, wrong)


def test_recipes_are_compared(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(recipe, "VIEWS", 2)
    plot = tmp_path / "plot.png"
    options = ["--kimg=9", "--every=0.032", f"--plot={plot}"]
    options += [f"--variant={name} duration_kimg=0.032" for name in ("preset", "reference")]
    ours, reference, mean, other_mean = run("recipe", *options)
    drawn = r"above the better baseline; consistency \d\.\d{3}, samples' PSNR \d+\.\d{3}; \d+\.\d minutes"
    assert re.search(drawn, ours[0]) and ours[1] != reference[1] and is_png(plot)
    assert mean[1] == ours[1] and other_mean[1] == reference[1]
    won = float(ours[0].partition("(")[2].split()[0]) > 0
    assert f"{int(won)} of 1 beat both" in mean[0]


def test_loss_curves_differ_by_the_seed_alone_if_there_is_no_fast_path(run, tmp_path) -> None:
    plot = tmp_path / "plot.png"
    ((what, figure, *_),) = run("loss_curve", "--steps=10", "--batch=2", f"--plot={plot}")
    fast, plain, other_seed = re.findall(r"\d\.\d+", what)
    assert fast == plain != other_seed and figure.startswith("0 %")
    assert is_png(plot)


def test_new_networks_render_something(capsys) -> None:
    seeds.main.main(["--preset=cpu-demo", "--seeds=8"], standalone_mode=False)
    here, unofficial = rows_of(capsys.readouterr().out)
    assert here[1] == "0 of 8 seeds" and unofficial[1] != here[1]


def test_curves_of_a_run(tmp_path) -> None:
    levels = ((), (15.0, 14.0, 13.0), (), (20.0, 18.0, 13.0))  # evaluations at a half and at the end
    scores = [dict(zip(curves.PSNR, values, strict=False)) for values in levels]
    records = [{"nimg": nimg, "Loss/all": 9 / nimg, **score} for nimg, score in zip((1, 4, 5, 8), scores, strict=True)]
    (tmp_path / "stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    curves.main.main([str(tmp_path)], standalone_mode=False)
    assert is_png(tmp_path / "curves.png")
    with pytest.raises(click.BadParameter, match="png"):
        curves.main.main([str(tmp_path), "--plot", str(tmp_path / "curves.txt")], standalone_mode=False)


def test_quality_by_evaluations(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(quality, "SETS", tmp_path / "sets")
    monkeypatch.setattr(quality, "PUBLISHED_RESOLUTION", SIZE)  # drawn faster
    monkeypatch.setattr(few_steps, "STEPS", {"heun": (1,)})
    net, out_dir, plot = small_net(), tmp_path / "out", tmp_path / "plot.png"
    paths = [str(tmp_path / name) for name in ("trained.pkl", "distilled.pkl")]
    for path, notes in zip(paths, ({}, {"num_steps": 2}), strict=True):
        saved(Path(path), net, **notes)
    options = ["--objects", "1", "--seeds", "0", "--metrics", "none", "--out_dir", str(out_dir), "--plot", str(plot)]
    few_steps.main.main([*paths, *options], standalone_mode=False)
    rows = list(csv.DictReader((out_dir / "few_steps.csv").read_text().splitlines()))
    counts = [(row["sampler"], row["steps"], row["evaluations"]) for row in rows]
    assert counts == [("heun", "1", "1"), ("consistency", "1", "1"), ("consistency", "2", "2")]
    assert rows[0]["psnr"] == rows[1]["psnr"] != rows[2]["psnr"], "one step of any sampler is the denoiser's estimate"
    assert is_png(plot)
    with pytest.raises(InputError, match="trained.pkl: is not a few-step network"):
        few_steps.main.main([paths[0], *paths[:1], *options], standalone_mode=False)


def test_charts_reads_sonars_inputs_as_a_pinhole_cameras_without_the_range():
    net, images, cameras = small_net(modalities=("sonar",)), torch.rand(2, 3, SIZE, SIZE), some_cameras(2)
    with torch.no_grad():
        lifted, kept = net.encoders["sonar"](images), net.encode_as("sonar", images, cameras)
        with charts.as_in_cross_modality_diffusion():
            assert torch.equal(net.encode_as("sonar", images, cameras), lifted)
    assert not torch.allclose(kept, lifted)
