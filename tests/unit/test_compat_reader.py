"""Snapshots of the unofficial implementation: nothing in them runs, and other files are refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import genvs
from genvs.compat import UnofficialGeNVS
from genvs.compat.reader import read_snapshot
from genvs.config import LEARNED_VIEW_WEIGHTINGS
from genvs.errors import InputError
from genvs.models.view_weighting import make_view_weighting
from tests.hostile_files import hostile_files
from tests.published import Called, Made, Named, pickled, published_config, published_weights, write_snapshot

ROOT = Path(__file__).parents[2]


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
    assert not net.encoder.backbone.conv1.bias.any(), "a convolution before a normalisation layer has none"
    theirs = weights["pixel_nerf_net.encoder.volume_head.reshape_conv.weight"]
    config = net.config.encoder
    for channel, depth in ((0, 0), (2, 1), (7, 3)):
        ours = net.encoder.to_volume.weight[depth * config.volume_channels + channel]
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


# Hostile files, read in another process, where an audit hook sees what is executed

PROGRAM = """
import encodings.cp437, json, pickle, sys, time  # zipfile needs cp437 for names without Unicode
from pathlib import Path
import genvs, torch
from genvs.errors import InputError
torch.set_num_threads(1)
good, canary, ours, usual = (json.loads(argument) for argument in sys.argv[1:])
for path in good:  # so that lazy imports happen now
    genvs.load_snapshot(path)
watching, events = None, []
def hook(event, arguments):
    opens_the_file = event == "open" and arguments[0] in (watching, str(watching))
    if watching and not opens_the_file and event not in ("object.__getattr__", "sys._getframe"):
        events.append(f"{event} {arguments[:1]!a:.100}")
sys.addaudithook(hook)
def usual_reader(path):
    with open(path, "rb") as file:
        pickle.load(file)
def read_all(paths, read):
    global watching
    results = {}
    for path in map(Path, paths):
        events.clear()
        watching, start = path, time.perf_counter()
        try:
            read(path)
            said = "read"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        watching = None
        results[path.stem] = said, list(events), time.perf_counter() - start
    return results
refused = read_all(ours, genvs.load_snapshot)
executed = Path(canary).exists()
print(json.dumps([refused, executed, read_all(usual, usual_reader), Path(canary).exists()]))
"""
EXECUTED = ("os.system", "exec", "compile", "subprocess.Popen")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, Path]:
    """The hostile files by name. Beside them, `canary` exists as soon as one of them was executed."""
    folder = tmp_path_factory.mktemp("hostile")
    contents = hostile_files(folder / "canary")
    for name, content in contents.items():
        (folder / f"{name}.pkl").write_bytes(content)
    return {name: folder / f"{name}.pkl" for name in contents}


@pytest.fixture(scope="module")
def seen(corpus, weights, snapshot) -> list:
    """What our reader said and did, and whether the canary existed then. The same of `pickle.load`."""
    state = snapshot.with_name("training-state.pt")
    torch.save({"net": weights, "optimizer_state": {}}, state)
    usual = [corpus[name] for name in ("os_system", "builtins_exec", "text_protocol", "inst_opcode")]
    canary = usual[0].with_name("canary")
    arguments = [[str(snapshot), str(state)], str(canary), [*map(str, corpus.values())], [*map(str, usual)]]
    command = [sys.executable, "-c", PROGRAM, *map(json.dumps, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_hostile_files_are_refused_and_nothing_of_them_is_executed(corpus, seen):
    refused, executed, _, _ = seen
    assert not executed and refused.keys() == corpus.keys() and len(corpus) >= 30
    for name, (said, events, seconds) in refused.items():
        assert said.startswith(f"InputError: {corpus[name]} "), (name, said)
        assert "\n" not in said and len(said) < 500, (name, said)
        assert events == [], (name, events)
        assert seconds < 10, (name, seconds)


def test_the_hook_sees_what_a_usual_reader_executes(seen):
    """The files are hostile, and the test above would fail if one were executed."""
    _, _, by_usual, executed = seen
    assert executed
    for name, (_, events, _) in by_usual.items():
        assert any(event.startswith(EXECUTED) for event in events), (name, events)
