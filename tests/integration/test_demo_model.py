"""The snapshot that comes with the code draws cars that training never saw."""

import json
from pathlib import Path

import genvs
from genvs.data.synthetic.dataset import ensure_dataset
from inference import evaluate

DEMO = Path(__file__).parents[2] / "models" / "demo.pkl"


def test_its_one_step_preview(tmp_path):
    """On these two cars 23.7 dB, the feature image's colours 22.4."""
    data, out = tmp_path / "cars", tmp_path / "out"
    ensure_dataset(data, scenes=0, views=1, resolution=128, test_scenes=2, test_views=6, workers=2)
    options = {"ckpt_path": DEMO, "data": data, "out_dir": out, "device": "cpu", "denoising_steps": 1}
    arguments = [f"--{name}={value}" for name, value in (options | {"baselines": "colours,nearest"}).items()]
    evaluate.main(arguments, standalone_mode=False)
    results = json.loads((out / "results.json").read_text())
    psnr, baselines = results["summary"]["psnr"]["mean"], results["baselines"]
    assert psnr > 23
    assert psnr > baselines["colours"]["summary"]["psnr"]["mean"] + 0.8
    assert psnr > baselines["nearest"]["summary"]["psnr"]["mean"] + 8
    assert results["summary"]["consistency"]["mean"] > 0.97


def test_it_is_small_and_says_how_far_it_is_trained():
    assert DEMO.stat().st_size < 25e6
    assert genvs.load_snapshot(DEMO).notes["cur_nimg"] == 833_536
