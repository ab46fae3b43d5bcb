"""The snapshots that come with the code draw cars that training never saw."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genvs
from genvs.data.synthetic.dataset import ensure_dataset
from inference import evaluate
from inference.options import DEMO
from tests.conftest import ROOT

TRAINED, FEW_STEP = ROOT / "models" / "demo.pkl", ROOT / DEMO


@pytest.fixture(scope="module")
def cars(tmp_path_factory) -> Path:
    data = tmp_path_factory.mktemp("data") / "cars"
    ensure_dataset(data, scenes=0, views=1, resolution=128, test_scenes=2, test_views=6, workers=2)
    return data


def measured(folder: Path, **options) -> dict:
    options |= {"out_dir": folder / "out", "device": "cpu", "baselines": "colours,nearest"}
    evaluate.main([f"--{name}={value}" for name, value in options.items()], standalone_mode=False)
    return json.loads((folder / "out" / "results.json").read_text())


def test_the_one_step_preview_of_the_trained_one(tmp_path, cars):
    """On these two cars 23.7 dB, the feature image's colours 22.4."""
    results = measured(tmp_path, ckpt_path=TRAINED, data=cars, denoising_steps=1)
    psnr, baselines = results["summary"]["psnr"]["mean"], results["baselines"]
    assert psnr > 23
    assert psnr > baselines["colours"]["summary"]["psnr"]["mean"] + 0.8
    assert psnr > baselines["nearest"]["summary"]["psnr"]["mean"] + 8
    assert results["summary"]["consistency"]["mean"] > 0.97


def sharpness(files: Iterable[Path]) -> float:
    """The mean difference between neighbouring pixels."""
    return float(np.mean([np.abs(np.diff(np.asarray(Image.open(file), dtype=float), axis=1)).mean() for file in files]))


def test_the_samples_of_the_two_step_one(tmp_path, cars):
    """On these two cars 21.5 dB, the nearest view 12.6; 1.08 times as sharp as real views (the preview above 0.87)."""
    results = measured(tmp_path, ckpt_path=FEW_STEP, data=cars)
    assert (results["protocol"]["sampler"], results["protocol"]["num_steps"]) == ("consistency", 2)
    psnr, nearest = (each["summary"]["psnr"]["mean"] for each in (results, results["baselines"]["nearest"]))
    assert psnr > max(20.5, nearest + 8)
    assert results["summary"]["consistency"]["mean"] > 0.93
    drawn = sorted((tmp_path / "out" / "images" / "seed=0").glob("*/*.png"))
    real = [cars.parent / "cars_test" / file.parent.name.partition("-")[2] / "rgb" / file.name for file in drawn]
    assert 0.95 < sharpness(drawn) / sharpness(real) < 1.2


@pytest.mark.parametrize(("file", "num_images"), [(TRAINED, 833_536), (FEW_STEP, 390_144)])
def test_they_are_small_and_say_how_far_they_are_trained(file, num_images):
    assert file.stat().st_size < 25e6
    assert genvs.load_snapshot(file).notes["cur_nimg"] == num_images
