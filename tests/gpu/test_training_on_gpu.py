"""The update, the files and the ranks of training, on GPUs."""

import contextlib
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genvs import files
from tests.gpu.conftest import on_ranks
from tests.small_training import small_run, train
from tests.unit.test_muon import check_updates
from tests.unit.test_parallel import check_gradients
from tests.unit.test_update_weights import check_against_plain_adam
from torch_utils.background_writer import BackgroundWriter

pytestmark = pytest.mark.gpu


def test_an_update_is_adams_with_clipped_gradients_and_without_bad_ones():
    check_against_plain_adam(torch.device("cuda"))


def test_muons_updates_in_bf16_are_those_in_float32():
    check_updates(torch.device("cuda"), error=0.1)


def test_a_run_shows_samples_and_an_orbit(cars, tmp_path):
    config = small_run(cars, snapshot_ticks=1, logger=("tensorboard",))
    train(config, tmp_path, held_out=True, device=torch.device("cuda", torch.cuda.current_device()))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name in ("Samples", "Orbit"):
        assert events.Images(name)[-1].step == config.total_nimg
    assert (tmp_path / "samples-000000.png").is_file()


# Saving


def test_what_is_written_is_what_was_given(tmp_path):
    """Although the tensors change as soon as `submit` returns, with much work queued before and after it."""
    weight = torch.zeros(64, 64, 32, 32, device="cuda").to(memory_format=torch.channels_last)
    with contextlib.closing(BackgroundWriter()) as writer:
        for number in range(3):
            for _ in range(50):
                weight += 1
            writer.submit(files.save_atomic, {"w": weight, "step": number}, tmp_path / f"{number}.pt")
            weight.fill_(-1)
            for _ in range(50):
                weight += 1
            weight.zero_()
    for number in range(3):
        loaded = files.load(tmp_path / f"{number}.pt")
        assert loaded["w"].device.type == "cpu" and loaded["w"].stride() == weight.stride()
        assert (loaded["w"] == 50).all() and loaded["step"] == number


def test_what_does_not_fit_on_the_device_twice_is_copied_to_the_host(tmp_path, monkeypatch):
    weight = torch.full((1000,), 3.0, device="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (weight.nbytes - 1, 1 << 40))
    before = torch.cuda.memory_allocated()
    with contextlib.closing(BackgroundWriter()) as writer:
        writer.submit(files.save_atomic, {"w": weight}, tmp_path / "a.pt")
        assert torch.cuda.memory_allocated() == before
    assert (files.load(tmp_path / "a.pt")["w"] == 3).all()


def test_saving_pauses_training_for_less_than_a_tenth_of_a_second(tmp_path):
    """As many numbers, in as many tensors, as a training state of `srn128`: 4 x 102.8 M in 4 x 813."""
    content = {f"{i}": torch.zeros(126_500, device="cuda") for i in range(4 * 813)}
    pauses = []
    with contextlib.closing(BackgroundWriter()) as writer:
        for _ in range(2):  # the first allocates memory, which training has already allocated
            torch.cuda.synchronize()
            start = time.perf_counter()
            writer.submit(files.save_atomic, content, tmp_path / "state.pt")
            torch.cuda.synchronize()
            pauses.append(time.perf_counter() - start)
            writer.wait()
    assert pauses[1] < 0.1, pauses


# Ranks


def check_both(rank: int, device: torch.device) -> None:
    check_gradients(rank, device, "none", tolerance=1e-3)
    check_gradients(rank, device, "bf16", tolerance=2e-2)


@pytest.mark.skipif("torch.cuda.device_count() < 2", reason="needs two GPUs")
def test_gradients_of_two_gpus_in_full_and_compressed():
    on_ranks(check_both, 2)
