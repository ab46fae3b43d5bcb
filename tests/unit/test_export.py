"""Networks as folders: bit by bit the same network, and folders that cannot be used are refused in one line."""

import functools
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import genvs
from genvs.errors import InputError
from genvs.export import main
from genvs.models import GeNVS
from genvs.snapshot import main as halve
from tests.programs import exit_code_of
from tests.small_model import saved, small_net
from tests.small_training import small_run
from training.fine_tuning import start_from
from training.state import create_state

export = functools.partial(exit_code_of, main)


def some_net(kind: str) -> GeNVS:
    if kind == "ncsnpp":
        return small_net(arch="ncsnpp", residual_encoder=True)
    return small_net(modalities=("rgb", "sar"))


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert export(saved(folder / "snapshot.pkl", small_net(), cur_nimg=12345), folder / "car net") == 0
    return folder / "car net"


@pytest.fixture
def folder(shared_folder, tmp_path) -> Path:
    return Path(shutil.copytree(shared_folder, tmp_path / "car net"))


@pytest.mark.parametrize("half", [False, True], ids=["full", "half"])
@pytest.mark.parametrize("kind", ["ncsnpp", "modalities"])
def test_the_folder_has_the_same_network_bit_by_bit(kind, half, tmp_path):
    """In half precision if the snapshot is; frequencies of NCSN++ stay in float32."""
    net = some_net(kind)
    snapshot = saved(tmp_path / "snapshot.pkl", net, cur_nimg=12345)
    if half:
        halve([str(snapshot), str(tmp_path / "half.pkl")])
        snapshot = tmp_path / "half.pkl"
    assert export(snapshot, tmp_path / "net") == 0
    stored, weights = genvs.load_snapshot(snapshot), tmp_path / "net" / "model.safetensors"
    for loaded in (genvs.load_snapshot(tmp_path / "net"), genvs.from_pretrained(str(tmp_path / "net"))):
        assert loaded.config == net.config and loaded.notes == stored.notes and not loaded.training
        assert loaded.state_dict().keys() == net.state_dict().keys()
        for name, tensor in loaded.state_dict().items():
            assert torch.equal(tensor, stored.state_dict()[name]), name
    with safe_open(weights, framework="pt") as file:
        dtypes = {file.get_slice(name).get_dtype() for name, _ in net.named_parameters()}
    assert dtypes == {"F16" if half else "F32"} and weights.stat().st_size < 1.05 * snapshot.stat().st_size


def test_depth_planes_may_be_given(shared_folder):
    assert genvs.from_pretrained(shared_folder, near=0.5, far=2.5).config.scene.planes == {"near": 0.5, "far": 2.5}


def test_training_starts_from_a_folder(shared_folder):
    folder = str(shared_folder)
    assert start_from(folder).net.resolution == 32
    config = small_run("data", transfer=folder)
    state = create_state(config, config.net.scene, torch.device("cpu"))
    weights = load_file(shared_folder / "model.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.net.state_dict().items())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change_config(folder: Path, **changes) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["denoisers.rgb.unet.conv_in.weight"] = torch.zeros(2, 2)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: cut(folder / "config.json"), "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "not a GeNVS snapshot"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "not JSON"),
        (lambda folder: change_config(folder, version=99), "version 99"),
        (lambda folder: change_config(folder, notes=3), "damaged"),
        (lambda folder: change_config(folder, config={"resolution": 33}), "damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x80\x04."), "model.safetensors"),
        (change_weights, "size mismatch"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder, spoil, reason, tmp_path, capsys):
    spoil(folder)
    assert export(folder, tmp_path / "new") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {folder}") and error.count("\n") == 1 and reason in error
    assert not (tmp_path / "new").exists()


def test_weights_alone_are_refused_with_the_remedy(folder):
    with pytest.raises(InputError, match="model.safetensors .*folder"):
        genvs.load_snapshot(folder / "model.safetensors")


def test_a_runs_folder_is_refused_with_its_newest_snapshot(tmp_path):
    for kimg in ("000006", "000012"):
        (tmp_path / f"network-snapshot-{kimg}.pkl").touch()
    with pytest.raises(InputError, match="give .*000012.pkl"):
        genvs.load_snapshot(tmp_path)


def test_changed_bytes_are_read_or_refused(folder):
    """In the config and in the header of the weights, which states names, types, shapes and places."""
    rng, read = random.Random(0), 0
    for path in (folder / "config.json", folder / "model.safetensors"):
        good = path.read_bytes()
        end = len(good) if path.suffix == ".json" else 8 + int.from_bytes(good[:8], "little")
        for _ in range(40):
            place = rng.randrange(end)
            path.write_bytes(good[:place] + bytes([rng.choice(b'0-9"{')]) + good[place + 1 :])
            try:
                genvs.load_snapshot(folder)
                read += 1
            except InputError as error:
                assert str(error).startswith(str(folder)) and str(error).isprintable()
        path.write_bytes(good)
    assert read < 40, "most changes matter"


def test_nothing_is_overwritten(folder, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert export(folder, folder) == 2 and "not empty" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert before.keys() == {"README.md", "config.json", "model.safetensors"}
    assert export(folder, tmp_path / "new") == 0 and "Nothing was measured" in (tmp_path / "new/README.md").read_text()
