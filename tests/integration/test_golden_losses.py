"""The losses of a short run, compared with those on record: what changes training by accident shows here.

After a change that is meant to alter training, `python -m tests.integration.test_golden_losses` records them anew.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from genvs.data.synthetic.dataset import ensure_dataset
from tests.small_training import records, small_run, train

GOLDEN = Path(__file__).parents[1] / "data" / "golden_losses.json"
NAMES = ("Loss/all", "Loss/rgb", "Gradient/norm")
UPDATES = 20


def curves(cars: Path, run_dir: Path) -> dict[str, list[float]]:
    """Numbers of each update of a run on the embedded cars."""
    train(small_run(cars, UPDATES), run_dir)
    return {name: [float(f"{record[name]:.6g}") for record in records(run_dir)] for name in NAMES}


def test_losses_are_those_on_record(cars, tmp_path):
    """Up to rounding: other threads, libraries and instruction sets gave differences of up to 2e-4."""
    found = curves(cars, tmp_path)
    for name, golden in json.loads(GOLDEN.read_text()).items():
        assert found[name] == pytest.approx(golden, rel=1e-3), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ensure_dataset(Path(folder, "cars"), scenes=12, views=6, resolution=32, val_scenes=3, workers=2)
        found = curves(Path(folder, "cars"), Path(folder, "run"))
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(found) + "\n")
