"""Waiting for data is the time in which the GPU has nothing to do, not the host."""

import contextlib
import json
import time

import pytest
import torch

from tests.fused_checks import DEVICE
from training.monitor import Monitor

pytestmark = pytest.mark.gpu
CLOCKS_A_SECOND = 2e9  # at most, so that torch.cuda._sleep takes at least as long as is asked


@pytest.mark.parametrize(("busy", "least", "most"), [(0.0, 0.19, 0.3), (0.2, 0.0, 0.05)])
def test_a_wait_counts_while_the_gpu_is_idle(tmp_path, busy, least, most):
    """busy: seconds of the GPU's work before each of two waits of 0.1 s."""
    with contextlib.closing(Monitor(tmp_path, DEVICE, rank=0, cur_nimg=0, total=9)) as monitor:
        torch.cuda.synchronize()
        for _ in range(2):
            torch.cuda._sleep(int(busy * CLOCKS_A_SECOND))
            with monitor.waiting_for_data():
                time.sleep(0.1)
        monitor.record(1)
    (record,) = map(json.loads, (tmp_path / "stats.jsonl").read_text().splitlines())
    assert least <= record["Timing/data_wait"] * record["time"] <= most
