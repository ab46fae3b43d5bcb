"""What a run can be expected to reach."""

import dataclasses

import pytest

from training.config import TRAIN_PRESETS
from training.expected import MEASURED, expected_psnr


def test_only_a_run_like_a_measured_one_gets_a_number():
    config = TRAIN_PRESETS["cpu-demo"]
    first, second, last = MEASURED["cpu-demo"].values()

    def expected(**changes) -> float | None:
        return expected_psnr(dataclasses.replace(config, **changes))

    assert expected() == expected(seed=3, batch_gpu=4, logger=None) == pytest.approx(last)
    assert first < expected(duration_kimg=9.0) < second
    for changes in ({"duration_kimg": 3.0}, {"duration_kimg": 20.0}, {"lr": 2e-3}, {"data": "cars"}, {"xflip": True}):
        assert expected(**changes) is None, changes
    assert expected_psnr(TRAIN_PRESETS["srn128"]) is None
