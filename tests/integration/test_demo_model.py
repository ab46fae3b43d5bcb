"""The snapshot that comes with the code draws cars that training never saw."""

import json
from pathlib import Path

import pytest

import genvs
from genvs.data.synthetic.dataset import ensure_dataset
from inference import evaluate

DEMO = Path(__file__).parents[2] / "models" / "demo.pkl"
CARS, VIEWS = 2, 6


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("datasets") / "cars"
    ensure_dataset(path, scenes=0, views=1, resolution=64, test_scenes=CARS, test_views=VIEWS, workers=2)
    return path


def evaluated(data: Path, out: Path, **options: object) -> dict:
    options |= {"ckpt_path": DEMO, "data": data, "out_dir": out, "device": "cpu"}
    evaluate.main([f"--{name}={value}" for name, value in options.items()], standalone_mode=False)
    return json.loads((out / "results.json").read_text())


def test_the_one_step_preview(data, tmp_path):
    """On the simpler cars of generator 1, with which it was trained, 26.1 dB, 2.9 dB above the feature image's colours
    (docs/results.md); on these two of today's, 22.0 and 21.0 dB.
    """
    results = evaluated(data, tmp_path, denoising_steps=1, baselines="colours,nearest")
    psnr, baselines = results["summary"]["psnr"]["mean"], results["baselines"]
    assert psnr > 21
    assert psnr > baselines["colours"]["summary"]["psnr"]["mean"] + 0.3
    assert psnr > baselines["nearest"]["summary"]["psnr"]["mean"] + 8
    assert results["summary"]["consistency"]["mean"] > 0.97


def test_samples(data, tmp_path):
    """On 100 cars of generator 1 with 12 steps: 23.4 dB, consistency 0.996."""
    figures = evaluated(data, tmp_path, denoising_steps=6, objects=1)["summary"]
    assert figures["psnr"]["mean"] > 21 and figures["consistency"]["mean"] > 0.97


def test_it_is_small_and_says_how_far_it_is_trained():
    assert DEMO.stat().st_size < 24e6
    assert genvs.load_snapshot(DEMO).notes["cur_nimg"] == 2_500_096
