"""Stopping a lone process in a step, which may take a minute while it is recorded."""

import signal

import pytest
import torch

from genvs.sampling.cuda_graphs import Recorder
from training.signals import CutShort, StopRequest

pytestmark = pytest.mark.gpu


@pytest.fixture
def stop():
    """A StopRequest; afterwards signals do what they did before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield StopRequest(torch.device("cuda"))
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_in_a_step_cuts_it_short(stop):
    with pytest.raises(CutShort), stop.step():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the step goes on")
    assert stop.agreed()


def test_a_recording_is_completed(stop):
    x = torch.ones(3, device="cuda")

    def doubled() -> torch.Tensor:
        signal.raise_signal(signal.SIGTERM)
        return 2 * x

    with stop.step():
        result, graph = Recorder(x.device).record(doubled)
    graph.replay()
    assert stop.agreed() and result.tolist() == [2, 2, 2]


def test_outside_a_step_the_run_goes_on_to_its_end(stop):
    signal.raise_signal(signal.SIGTERM)
    assert stop.agreed()
