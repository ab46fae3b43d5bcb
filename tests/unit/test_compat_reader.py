"""Snapshots of the unofficial implementation: nothing in them runs, and other files are refused in one line."""

import os
from pathlib import Path

import pytest
import torch

import genvs
from genvs.compat import UnofficialGeNVS
from genvs.compat.reader import read_snapshot
from genvs.config import LEARNED_VIEW_WEIGHTINGS
from genvs.errors import InputError
from genvs.models.view_weighting import make_view_weighting
from tests.published import Called, Made, Named, pickled, published_config, published_weights, write_snapshot


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return published_weights()


@pytest.fixture(scope="module")
def snapshot(weights, tmp_path_factory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("theirs") / "network-snapshot-004000.pkl", weights)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        genvs.load_snapshot(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 500
    return message


def test_a_snapshot_becomes_a_network_of_its_sizes_and_numerics(weights, snapshot):
    net = genvs.load_snapshot(snapshot)
    assert type(net) is UnofficialGeNVS and net.config == published_config()
    assert not net.encoders["rgb"].backbone.conv1.bias.any(), "a convolution before a normalisation layer has none"
    theirs = weights["pixel_nerf_net.encoder.volume_head.reshape_conv.weight"]
    config = net.config.encoder
    for channel, depth in ((0, 0), (2, 1), (7, 3)):
        ours = net.encoders["rgb"].to_volume.weight[depth * config.volume_channels + channel]
        farthest_first = config.volume_depth - 1 - depth
        assert torch.equal(ours[:-3], theirs[channel * config.volume_depth + farthest_first, :, 0, 0])
        assert not ours[-3:].any(), "the image's colours, which theirs does not see"


def test_a_training_state_holds_the_same_tensors(weights, snapshot, tmp_path):
    torch.save({"net": weights, "optimizer_state": {"state": {}, "param_groups": []}}, tmp_path / "training-state.pt")
    net, expected = genvs.load_snapshot(tmp_path / "training-state.pt"), genvs.load_snapshot(snapshot).state_dict()
    assert type(net) is UnofficialGeNVS
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("method", LEARNED_VIEW_WEIGHTINGS)
def test_a_view_weighting_with_weights_is_recognised(weights, tmp_path, method):
    theirs, own = "pixel_nerf_net.cam_weighter", make_view_weighting(method).state_dict()
    named = {f"{theirs}.{name}": tensor for name, tensor in own.items()}
    encoding = {f"{theirs}.positional_encoder.{name}": torch.rand(1, 12, 1) for name in ("_freqs", "_phases")}
    net = genvs.load_snapshot(write_snapshot(tmp_path / "net.pkl", {**weights, **named, **encoding}))
    assert net.config.view_weighting == method
    assert all(torch.equal(tensor, own[name]) for name, tensor in net.renderer.view_weights.state_dict().items())


def test_the_view_weighting_that_the_file_states_is_kept(weights, tmp_path):
    for stated in ("distance_squared", "l1_weighing"):
        net = genvs.load_snapshot(write_snapshot(tmp_path / "net.pkl", weights, method_name=stated))
        assert net.config.view_weighting == stated
    message = refusal(write_snapshot(tmp_path / "net.pkl", weights, method_name="by_colour"))
    assert "by_colour" in message and "distance_squared" in message


@pytest.mark.parametrize("arch", ["ddpmpp", "ncsnpp", "adm"])
def test_a_network_of_every_architecture_is_read_back(tmp_path, arch):
    """Under EDM's names, which are written out here."""
    config = published_config(arch=arch, residual_encoder=arch != "adm")
    weights = published_weights(config)
    assert genvs.load_snapshot(write_snapshot(tmp_path / "net.pkl", weights)).config == config
    own = {"adm": {"out_norm", "out_conv"}, "ncsnpp": {"map_noise"}, "ddpmpp": set()}[arch]
    names = {name.removeprefix("denoiser.model.") for name in weights if name.startswith("denoiser")}
    assert {name.partition(".")[0] for name in names} == {"enc", "dec", "map_layer0", "map_layer1", "map_augment"} | own
    blocks = {name.split(".")[1] for name in names if name.startswith(("enc.", "dec."))}
    expected = {"32x32_conv", "32x32_block0", "16x16_down", "16x16_block0", "16x16_in0", "16x16_in1", "16x16_block1"}
    expected |= {"32x32_up", "32x32_block1"}
    expected |= set() if arch == "adm" else {"32x32_aux_norm", "32x32_aux_conv", "16x16_aux_residual"}
    assert blocks == expected
    layers = {name.split(".")[2] for name in names if name.startswith("dec.16x16_block1.")}
    assert layers == {"norm0", "conv0", "affine", "norm1", "conv1", "skip", "norm2", "qkv", "proj"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pixel_nerf_net.mlp.layers.1.weight": None}, "renderer.field.layers.2.weight"),
        ({"pixel_nerf_net.encoder.volume_head.reshape_conv.weight": torch.zeros(32, 4, 1, 1)}, "size mismatch"),
        ({"pixel_nerf_net.encoder.extra.weight": torch.zeros(1)}, "extra.weight' is not known"),
        ({"denoiser.model.enc.32x32_conv.weight": None}, "enc.32x32_conv.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights, tmp_path, change, reason):
    changed = {name: tensor for name, tensor in {**weights, **change}.items() if tensor is not None}
    assert reason in refusal(write_snapshot(tmp_path / "net.pkl", changed))


def test_other_content_is_named(tmp_path):
    path = tmp_path / "file.pkl"
    os.mkfifo(path)
    assert "is a pipe" in refusal(path), "and not waited for"
    path.unlink()
    no_network = (torch.zeros(3), {}, Called(Named("torch", "load"), ("x",)), Named("os", "system"))
    for content in ({"loss_fn": 1}, [1, 2], *({"ema": ema} for ema in no_network)):
        path.write_bytes(pickled(content))
        assert "no entry" in refusal(path), content
    path.write_bytes(pickled({"ema": Made(Named("a", "B"), {"_parameters": {"x": 1}, "_buffers": {}, "_modules": {}})}))
    assert "'int' for a tensor" in refusal(path)
    for net in ([1], {1: torch.zeros(1)}, {"weight": 1}):
        torch.save({"net": net, "optimizer_state": {}}, path)
        assert "no state dict" in refusal(path)


def test_damaged_files_are_refused_or_change_a_value(tmp_path):
    weights = {name: tensor for name, tensor in published_weights().items() if "mlp" in name}
    whole = write_snapshot(tmp_path / "net.pkl", weights).read_bytes()
    for keep in (1, 2, 3, 10, 11, 50, 500, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.pkl").write_bytes(whole[:keep])
        refusal(tmp_path / "net.pkl")
    for place in torch.randint(len(whole), (300,), generator=torch.Generator().manual_seed(0)).tolist():
        (tmp_path / "net.pkl").write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_snapshot(tmp_path / "net.pkl")[0].values())
        except InputError as error:
            assert "\n" not in str(error)
