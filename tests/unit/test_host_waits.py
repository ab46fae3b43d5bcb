"""Between records, a training step would not wait for a GPU."""

import itertools

import torch

from tests.host_waits import host_waits, loop_steps
from tests.small_model import some_batch
from tests.small_training import BATCH, CPU


def test_what_would_wait_is_found():
    values = torch.arange(4.0)
    for wait in (
        lambda: values.sum().item(),
        lambda: bool(values.isnan().any()),
        lambda: values.tolist(),
        lambda: values[values > 1],
        lambda: values.nonzero(),
        lambda: torch.tensor([1.0, 2.0], device=CPU),
        lambda: torch.as_tensor(3, device=CPU),
        lambda: values.new_tensor([1.0]),
    ):
        with host_waits() as found:
            wait()
        assert len(found) >= 1 and found[0].startswith("tests/unit/test_host_waits.py:"), found
    with host_waits() as found:
        torch.where(values > 1, values, 0.0).cumsum(0).clamp(min=1)
        torch.as_tensor(values)
        torch.tensor(3.0)
    assert found == []


def test_a_step_between_records_waits_for_nothing(tmp_path):
    with loop_steps(tmp_path, CPU, itertools.repeat(some_batch(BATCH // 2))) as steps:
        for _ in range(2):  # the first creates the optimizer's moments
            for name in list(steps)[:-1]:
                with host_waits() as found:
                    steps[name]()
                assert found == [], name
        with host_waits() as found:
            steps["record"]()
        assert found, "a record reads numbers back"
