"""Snapshots: the same model in another process, and nothing but tensors and plain values in the file."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

import pytest
import torch

import genvs
from genvs.config import PRESETS
from genvs.errors import InputError
from genvs.models import GeNVS
from genvs.sampling.synthesis import usual_sampling
from genvs.snapshot import main as halve
from tests.programs import exit_code_of
from tests.small_model import SIZE, saved, small_net, some_cameras

CONV_IN = "denoisers.rgb.unet.conv_in.weight"


def outputs(net: GeNVS) -> torch.Tensor:
    """Denoised views of two scenes `[4, 3, H, W]`: every part of the network takes part."""
    images = torch.linspace(-1, 1, 2 * 2 * 3 * SIZE * SIZE).sin().reshape(2, 2, 3, SIZE, SIZE)
    with torch.no_grad():
        features = net.render(net.encode(images), some_cameras(2, 2), some_cameras(2, 2, seed=1)).flatten(0, 1)
        return net.denoise(images.flatten(0, 1).flip(-1), torch.tensor(0.7), features)


@pytest.fixture(scope="module")
def net() -> GeNVS:
    return small_net()


@pytest.fixture
def snapshot(net, tmp_path) -> Path:
    return saved(tmp_path / "network-snapshot-000012.pkl", net, cur_nimg=12345)


def test_a_network_comes_back_whole(net, snapshot):
    loaded, state = genvs.load_snapshot(snapshot), net.state_dict()
    assert loaded.config == net.config and torch.equal(outputs(loaded), outputs(net))
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    assert loaded.notes == {"cur_nimg": 12345}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("format"), "not a GeNVS snapshot"),
        (lambda content: content.update(version=99), "version 99, this program reads 2"),
        (lambda content: content["state"].popitem(), "Missing key"),
        (lambda content: content["state"].update(more=torch.zeros(1)), "Unexpected key"),
        (lambda content: content["state"].update({CONV_IN: torch.zeros(1)}), "size mismatch"),
        (lambda content: content["config"]["denoiser"].update(colour=1), "no setting 'colour'"),
        (lambda content: content["config"].update(resolution=33), "`resolution`"),
        (lambda content: content.update(state=None), "damaged"),
    ],
)
def test_what_does_not_fit_is_refused(snapshot, change, reason):
    content = torch.load(snapshot, weights_only=True)
    change(content)
    torch.save(content, snapshot)
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        genvs.load_snapshot(snapshot)
    assert str(snapshot) in str(caught.value) and "\n" not in str(caught.value)


halving = functools.partial(exit_code_of, halve)


@pytest.mark.parametrize("kind", ["demo", "ncsnpp"])
def test_in_half_precision_it_is_half_as_large_and_draws_the_same(kind, tmp_path):
    """With the preset of models/demo.pkl: 25 MB is the most that is fair to clone. Frequencies stay exact."""
    net = GeNVS(PRESETS["demo"]) if kind == "demo" else small_net(arch="ncsnpp", residual_encoder=True)
    full, half = saved(tmp_path / "full.pkl", net, cur_nimg=12345), tmp_path / "half.pkl"
    assert halving(full, half, "--steps", 5) == 0
    loaded = genvs.load_snapshot(half)
    assert half.stat().st_size < (min(25e6, 0.51 * full.stat().st_size) if kind == "demo" else full.stat().st_size)
    assert loaded.config == net.config
    assert loaded.notes == {"cur_nimg": 12345, "halved_from": "full.pkl", "unipc_steps": 5}
    assert (usual_sampling(loaded), usual_sampling(loaded, "heun")) == (("unipc", 5), ("heun", 25))
    for name, tensor in loaded.state_dict().items():
        given = net.state_dict()[name]
        expected = given if name.endswith("unet.frequencies") else given.half().float()
        assert tensor.dtype == torch.float32 and torch.equal(tensor, expected), name


@pytest.mark.parametrize("number", [1e5, float("nan")])
def test_numbers_beyond_half_precision_are_refused(net, number, tmp_path, capsys):
    state = {**net.state_dict(), CONV_IN: torch.full_like(net.state_dict()[CONV_IN], number)}
    genvs.save_snapshot(tmp_path / "full.pkl", net.config, state)
    assert halving(tmp_path / "full.pkl", tmp_path / "half.pkl") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tmp_path / 'full.pkl'}: {CONV_IN}") and error.count("\n") == 1
    assert os.listdir(tmp_path) == ["full.pkl"]


def test_halving_refuses_in_one_line_and_overwrites_nothing(snapshot, tmp_path, capsys):
    before = snapshot.read_bytes()
    for source, target, reason in (
        (snapshot, snapshot, "exists"),
        (snapshot, tmp_path / "no" / "folder.pkl", "could not be saved"),
        (tmp_path / "nothing.pkl", tmp_path / "new.pkl", "No such file"),
    ):
        assert halving(source, target) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and error.count("\n") == 1 and reason in error
    assert list(tmp_path.iterdir()) == [snapshot] and snapshot.read_bytes() == before
