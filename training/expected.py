"""What a run can be expected to reach: the table "how good after how long", of runs that were measured to their end."""

import dataclasses

import numpy as np

from genvs.data.synthetic.dataset import GENERATOR
from genvs.settings import flat
from training.config import RESUMABLE, TRAIN_PRESETS, TrainConfig

# By preset, on its embedded dataset of this generator: PSNR (dB) of one-step views of the held-out scenes, one input
# view, after so many thousand images. One run each; docs/results.md says how they were made.
MEASURED_GENERATOR = 3
MEASURED = {"cpu-demo": {6.0: 18.34, 12.0: 18.99, 18.0: 19.29}, "demo": {1650.0: 21.97}}


def expected_psnr(config: TrainConfig) -> float | None:
    """The PSNR (dB) that a run of this config will have at its end, read off a measured curve.

    None if there is no curve for the preset with these settings and data, or if it does not go so far.
    """
    curve = MEASURED.get(config.preset, {})
    preset, free = TRAIN_PRESETS[config.preset], dict.fromkeys([*RESUMABLE, "seed"])
    same = {**flat(dataclasses.asdict(config)), **free} == {**flat(dataclasses.asdict(preset)), **free}
    if not same or config.data or GENERATOR != MEASURED_GENERATOR or not curve:
        return None
    if not min(curve) <= config.duration_kimg <= max(curve):
        return None
    return float(np.interp(np.log(config.duration_kimg), np.log(list(curve)), list(curve.values())))
