"""A rank that stalls beside NCCL, whose collectives do not end by themselves."""

import pytest
import torch

from tests.faults.launcher import at_start, stalled
from tests.small_training import small_run

pytestmark = pytest.mark.gpu


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_stalled_rank_ends_the_run_after_the_time_limit(cars, tmp_path):
    stalled(at_start(small_run(cars), tmp_path))
