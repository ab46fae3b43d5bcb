"""Snapshots: the same model in another process, and nothing but tensors and plain values in the file."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch

import genvs
from genvs.config import PRESETS
from genvs.errors import InputError, run_program
from genvs.models import GeNVS
from genvs.snapshot import main as halve
from tests.small_model import SIZE, small_net, some_cameras

ROOT = Path(__file__).parents[2]


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
    path = tmp_path / "network-snapshot-000012.pkl"
    genvs.save_snapshot(path, net.config, net.state_dict(), cur_nimg=12345)
    return path


def test_a_network_comes_back_whole(net, snapshot):
    loaded = genvs.load_snapshot(snapshot)
    assert loaded.config == net.config and torch.equal(outputs(loaded), outputs(net))
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    state = net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    scene = dataclasses.replace(net.config.scene, near=1.25, far=2.75, focal=1.5, radius=2.0)
    genvs.save_snapshot(snapshot, dataclasses.replace(net.config, scene=scene), state)
    assert genvs.load_snapshot(snapshot).config.scene == scene


def test_a_snapshot_holds_tensors_and_plain_values_only(snapshot):
    """The pickle in it names nothing but what rebuilds tensors."""
    assert genvs.load_snapshot(snapshot).notes == {"cur_nimg": 12345}
    with zipfile.ZipFile(snapshot) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        code = archive.read(name)
    modules = {argument.split()[0] for op, argument, _ in pickletools.genops(code) if op.name == "GLOBAL"}
    assert modules <= {"torch", "torch._utils", "collections"}


def test_depth_planes_can_be_given(net, snapshot):
    assert genvs.load_snapshot(snapshot, far=3.0).config.scene == dataclasses.replace(net.config.scene, far=3.0)
    with pytest.raises(InputError, match="`near`=3, `far`=1.8"):
        genvs.load_snapshot(snapshot, near=3.0)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        genvs.load_snapshot(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def changed(snapshot: Path, **changes) -> Path:
    content = torch.load(snapshot, weights_only=True)
    torch.save({**content, **changes}, snapshot)
    return snapshot


def test_missing_and_foreign_files_are_refused(snapshot, tmp_path):
    assert "does not exist" in refusal(tmp_path / "nothing.pkl")
    assert "folder" in refusal(tmp_path)
    text = tmp_path / "text.pkl"
    text.write_text("no snapshot")
    refusal(text)
    state_dict = tmp_path / "other.pkl"
    torch.save({"weight": torch.zeros(3)}, state_dict)
    assert "not a GeNVS snapshot" in refusal(state_dict)
    torch.save([torch.zeros(3)], state_dict)
    assert "not a GeNVS snapshot" in refusal(state_dict)


def test_another_version_is_named(snapshot):
    message = refusal(changed(snapshot, version=99))
    assert "version 99" in message and "reads 2" in message


@pytest.mark.parametrize("case", ["missing", "extra", "shape", "unknown setting", "bad size", "no config", "no state"])
def test_weights_and_config_that_do_not_fit_are_refused(snapshot, case):
    content = torch.load(snapshot, weights_only=True)
    state, config = content["state"], content["config"]
    name = "denoiser.unet.conv_in.weight"
    if case == "missing":
        del state[name]
    elif case == "extra":
        state["denoiser.unet.conv_in.more"] = torch.zeros(1)
    elif case == "shape":
        state[name] = state[name][:1]
    elif case == "unknown setting":
        config["denoiser"]["colour"] = 1
    elif case == "bad size":
        config["resolution"] = 33
    elif case == "no config":
        content["config"] = None
    else:
        content["state"] = None
    refusal(changed(snapshot, **content))


def halving(*arguments: Path) -> int:
    with pytest.raises(SystemExit) as exited:
        run_program(lambda: halve(list(map(str, arguments))))
    return exited.value.code


def test_in_half_precision_it_is_half_as_large_and_draws_the_same(tmp_path):
    """The preset that is made for this, whose snapshot comes with the code: 24 MB is the most that is fair to clone."""
    full, half = tmp_path / "full.pkl", tmp_path / "half.pkl"
    net = GeNVS(PRESETS["demo"])
    genvs.save_snapshot(full, net.config, net.state_dict(), cur_nimg=12345)
    assert halving(full, half) == 0
    assert half.stat().st_size < min(24e6, 0.51 * full.stat().st_size)
    content = torch.load(half, weights_only=True)
    assert content["version"] == 2 and content["notes"] == {"cur_nimg": 12345, "halved_from": "full.pkl"}
    loaded = genvs.load_snapshot(half)
    assert loaded.config == net.config
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, net.state_dict()[name].half().float())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-9])
def test_half_precision_hardly_shows(net, scale, tmp_path):
    """Even where weights are so small that most of their digits are lost, or all."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for block in [*net.denoiser.unet.encoder, *net.denoiser.unet.decoder]:
            block.conv1.weight.mul_(scale)
    full, half = tmp_path / "full.pkl", tmp_path / "half.pkl"
    genvs.save_snapshot(full, net.config, net.state_dict())
    assert halving(full, half) == 0
    expected, drawn = outputs(net), outputs(genvs.load_snapshot(half))
    assert 0 < (drawn - expected).norm() < 2e-3 * expected.norm()


def test_half_precision_leaves_the_frequencies_of_ncsnpp_as_they_are(tmp_path):
    net = small_net(arch="ncsnpp", residual_encoder=True)
    full, half = tmp_path / "full.pkl", tmp_path / "half.pkl"
    genvs.save_snapshot(full, net.config, net.state_dict())
    assert halving(full, half) == 0
    assert torch.equal(genvs.load_snapshot(half).denoiser.unet.frequencies, net.denoiser.unet.frequencies)


@pytest.mark.parametrize("number", [1e5, float("inf"), float("nan")])
def test_numbers_beyond_half_precision_are_refused(net, number, tmp_path, capsys):
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    state["denoiser.unet.conv_in.weight"][1, 2, 0, 0] = number
    genvs.save_snapshot(tmp_path / "full.pkl", net.config, state)
    assert halving(tmp_path / "full.pkl", tmp_path / "half.pkl") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tmp_path / 'full.pkl'}: denoiser.unet.conv_in.weight") and error.count("\n") == 1
    assert os.listdir(tmp_path) == ["full.pkl"]


def test_halving_refuses_in_one_line_and_overwrites_nothing(snapshot, tmp_path, capsys):
    text = tmp_path / "text.pkl"
    text.write_text("no snapshot")
    before = {path: path.read_bytes() for path in (snapshot, text)}
    for source, target, reason in (
        (snapshot, snapshot, "exists"),
        (snapshot, text, "exists"),
        (snapshot, tmp_path / "no" / "folder.pkl", "cannot be written"),
        (text, tmp_path / "new.pkl", "not a file of tensors"),
        (tmp_path / "nothing.pkl", tmp_path / "new.pkl", "does not exist"),
    ):
        assert halving(source, target) == 2
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and error.count("\n") == 1 and reason in error
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
