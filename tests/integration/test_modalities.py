"""Networks of several modalities: each picture meets its own encoder, batches are dealt evenly, and runs repeat."""

import dataclasses
import itertools
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import genvs
import train as program
from genvs.data.framing import Framing
from genvs.data.stored import StoredScenes
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.errors import InputError
from genvs.modalities import BY_NAME, MODALITIES, Modality, depth_decoded
from genvs.models import GeNVS
from genvs.settings import set_by_path
from tests.small_model import SIZE, randomize, saved, small_config, small_net, some_cameras
from tests.small_training import opened, records, resume, small_run, train, unequal
from tests.unit.srn_folder import DEPTH_SCALE, add_sensors, refused, write_split
from training.config import TRAIN_PRESETS
from training.data import batch_schedule, load_batches
from training.loss import GeNVSLoss
from training.state import create_state

ALL = tuple(MODALITIES)


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Path:
    """Five scenes with all sensors but for one of the second and the third; the fourth has no photos."""
    path = write_split(tmp_path_factory.mktemp("sensors") / "cars_train", num_scenes=5)
    missing = {2: ("lidar_depth", "sar"), 3: ("raysar", "sonar")}
    for number in range(1, 6):
        add_sensors(path / f"car{number}", missing.get(number, ("depth", "sar", "sonar")), seed=number)
    for image in (path / "car4" / "rgb").iterdir():
        image.unlink()
    (path / "car4" / "rgb").rmdir()
    return path


def run_of(split: Path, updates: int = 3, **changes):
    return small_run(split, updates, net=small_config(modalities=ALL), batch_size=8, **changes)


# Data


def test_pictures_of_every_modality_with_and_without_packs(split, tmp_path):
    plain, packed = (StoredScenes(split, resolution=32, modalities=ALL, near=0.8, far=1.8) for _ in range(2))
    assert [plain.modalities_of(scene) for scene in range(5)] == [
        list(ALL), ["rgb", "depth", "sar"], ["rgb", "sar", "sonar"], ["depth", "sar", "sonar"], list(ALL)
    ]  # fmt: skip
    assert len(packed.make_packs(workers=0)) == 4
    scenes, views, kinds = np.array([[0], [2], [4]]), np.array([[0, 3, 5, 1]] * 3), np.array([[0, 2, 3, 2]] * 3)
    kinds[0, 1] = kinds[2, 0] = MODALITIES["depth"].index
    first, second = (dataset.load(scenes, views, kinds) for dataset in (plain, packed))
    assert torch.equal(first.modality, torch.from_numpy(kinds)) and torch.equal(second.modality, first.modality)
    assert torch.equal(first.images, second.images) and torch.equal(first.cameras.c2w, second.cameras.c2w)
    sonar = np.asarray(Image.open(split / "car3" / "sonar" / "6.png"))
    assert (first.images[1, 2].numpy() == sonar).all()
    depth = np.asarray(Image.open(split / "car1" / "depth" / "4.png")) * DEPTH_SCALE
    shown = first.images[0, 1, 0].double().numpy()
    assert (shown[:, ::2] == 0).all() and (shown[:, 1::2] >= 1).all()
    assert abs(depth_decoded(shown, 0.8, 1.8) - depth)[:, 1::2].max() < 1 / 254


def test_refusals(split, tmp_path):
    refused("modalities", lambda: small_config(modalities=("rgb", "infrared")))
    sonar = small_config(modalities=("sonar",))
    refused("volume_channels", lambda: set_by_path(sonar, {"encoder.volume_channels": 4}))
    assert "`batch_size`=16," in refused("modalities", lambda: run_of(split, num_targets=4).rounds(1))
    in_rounds = dataclasses.replace(run_of(split), batch_size=48, batch_gpu=12)
    assert "`batch_gpu`=8," in refused("modalities", lambda: in_rounds.rounds(2))
    photos = write_split(tmp_path / "cars_train", num_scenes=2)
    refused("sar/", lambda: StoredScenes(photos, resolution=32, modalities=("sar",)))
    refused("no scene has depth or sar or sonar", lambda: opened(run_of(photos)))
    (add_sensors(photos / "car1", ("sonar",)) / "sonar" / "3.png").unlink()
    dataset = StoredScenes(photos, resolution=32, modalities=("rgb", "sonar"))
    refused("car1/rgb", lambda: dataset.load(0, [0], MODALITIES["sonar"].index))
    (add_sensors(photos / "car2", ("depth",)) / "scene.json").unlink()
    dataset = StoredScenes(photos, resolution=32, modalities=("rgb", "depth"))
    refused("scene.json", lambda: dataset.load(1, [0], MODALITIES["depth"].index))
    before = dataset.digest_of_files("depth")
    (photos / "car2" / "scene.json").write_text('{"depth_scale": 1}')
    assert dataset.digest_of_files("depth") != before, "a pack is made again"


def test_a_dataset_without_photos_is_found(tmp_path):
    scene = add_sensors(write_split(tmp_path / "cars_train", num_scenes=1) / "car1", ("lidar_depth", "sonar"))
    shutil.rmtree(scene / "rgb")
    for path in (tmp_path / "cars", scene.parent, scene):
        train = StoredScenes.find_splits(path).train
        dataset = StoredScenes(train, resolution=32, modalities=("depth", "sonar"), near=0.8, far=1.8)
        assert dataset.scene_names == ["car1"] and dataset.modalities_of(0) == ["depth", "sonar"]


def test_files_that_show_something_else_are_refused(split, tmp_path):
    scene = add_sensors(write_split(tmp_path / "cars_train", num_scenes=1) / "car1")

    def opened(fit: str = "squeeze", **options) -> StoredScenes:
        return StoredScenes(scene.parent, resolution=32, modalities=ALL, framing=Framing(fit), **options)

    def read(name: str, view: int, **options):
        return refused(f"{name}/{view + 1}.png", lambda: opened(**options).load(0, [view], MODALITIES[name].index))

    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name in ("depth", "sar"):
        Image.fromarray(noise).save(scene / name / "1.png")
        assert "colour" in read(name, 0)
        Image.fromarray(noise[:16, :, 0]).save(scene / name / "2.png")
    assert "32x16" in read("sar", 1) and "32x16" in read("depth", 1, fit="crop")
    assert opened().load(0, [1], MODALITIES["depth"].index).shape == (1,)
    Image.fromarray(noise[..., 0].astype(np.uint16)).save(scene / "sonar" / "3.png")
    assert "16 bits" in read("sonar", 2)

    (scene.parent / "dataset.json").write_text('{"sar_decibels": [-25, 15], "sonar_decibels": [-30, 12]}')
    assert "sonar_decibels is [-30, 12]" in refused("dataset.json", opened)
    (scene.parent / "dataset.json").write_text('{"near": 0.8, "far": 1.8}')
    assert "0.8 and 1.8" in refused("sar", lambda: opened(near=0.7))
    assert "normalize" in refused("sar", lambda: opened(normalize=True))
    (scene.parent / "dataset.json").unlink()
    other = scene.parent.rename(tmp_path / "things")
    refused("do not state", lambda: StoredScenes(other, resolution=32, modalities=ALL))
    assert StoredScenes(other, resolution=32, modalities=ALL, near=0.8, far=1.8).modalities == ALL
    scene = other.rename(scene.parent) / "car1"
    (scene / "raysar").mkdir()
    refused("sar/ and raysar/", opened)


@pytest.mark.parametrize(("rounds", "world_size"), [(1, 1), (2, 1), (1, 2)])
def test_batches_are_dealt_evenly_for_any_number_of_ranks_and_rounds(rounds, world_size):
    config = small_run("nowhere", net=small_config(modalities=ALL), batch_size=32, batch_gpu=32 // rounds // world_size)
    scenes = [ALL, ("rgb", "sar"), ("sonar",), ALL, ("depth", "sar", "sonar")]
    ranks = [batch_schedule(config, scenes, rank=r, world_size=world_size, cur_nimg=0) for r in range(world_size)]
    seen = {}
    for _ in range(5 * rounds):
        for rank in ranks:
            requests = next(rank)
            targets = [request.target for request in requests]
            assert targets == sorted(targets) and len(set(Counter(targets).values())) == 1
            for place in range(requests[0].num_inputs):
                assert len(set(Counter(request.inputs[place] for request in requests).values())) == 1
            for request in requests:
                assert {ALL[index] for index in (*request.inputs, request.target)} <= set(scenes[request.scene])
                seen[request.sample_index] = request
    whole = batch_schedule(dataclasses.replace(config, batch_gpu=32), scenes, rank=0, world_size=1, cur_nimg=0)
    expected = [request for requests in itertools.islice(whole, 5) for request in requests]
    assert seen == {request.sample_index: request for request in expected} and len(seen) == 5 * 16


# The network


def test_each_encoder_gets_exactly_its_own_images_and_volumes_come_back_in_order():
    net = GeNVS(small_config(modalities=ALL)).eval()
    randomize(net)
    images = torch.rand(4, 3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kinds = torch.tensor([[0, 3, 1], [2, 0, 3], [1, 1, 2], [3, 2, 0]])
    cameras = dataclasses.replace(some_cameras(4, 3), modality=kinds)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in ALL}
    for name, encoder in net.encoders.items():
        encoder.register_forward_hook(lambda module, given, output, name=name: seen[name].append(given[0]))
    volumes = net.encode(images, cameras)
    for index, name in enumerate(ALL):
        assert torch.equal(torch.cat(seen[name]), images[kinds == index])
        alone = net.encode_as(name, images[kinds == index], cameras[kinds == index])
        assert_close(volumes[kinds == index], alone)
    assert_close(torch.cat(net.encode_evenly(images, cameras)), volumes)


def test_a_training_step_reaches_every_weight(split):
    config = run_of(split)
    data = opened(config)
    net = create_state(config, data.scene, torch.device("cpu")).net
    randomize(net)
    batch = next(load_batches(config, data, 0, torch.device("cpu")))
    assert batch.targets.modality.flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    terms = GeNVSLoss(config.loss, net.config, 0)(net, batch)
    terms.total.backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_at_first_feature_images_show_the_colours_of_the_inputs_in_their_own_channels():
    """A network that has not been trained back-projects: the channels of other modalities stay empty."""
    net = GeNVS(small_config(modalities=ALL))
    picture = torch.full((1, 1, 3, SIZE, SIZE), 0.5)
    for index, (name, modality) in enumerate(MODALITIES.items()):
        cameras = dataclasses.replace(some_cameras(1, 1), modality=torch.tensor([[index]]))
        volume = net.encode(picture, cameras)[0, 0, :6]
        first, last = modality.features
        middle = volume[:, 1:3, 4:-4, 4:-4]
        assert not middle[[c for c in range(6) if c not in range(first, last)]].any(), name
        assert_close(middle[first:last], torch.full_like(middle[first:last], 0.5 - (1.0 if name == "rgb" else -1.0)))


def test_an_expected_depth_is_rendered_where_rays_end():
    """With an opaque field, the depth channel of a depth target is that of the near plane."""
    net = GeNVS(small_config(modalities=("rgb", "depth"))).eval()
    with torch.no_grad():
        net.renderer.field.layers[-1].bias[0] = 1e4
    cameras = some_cameras(1, 1)
    with torch.no_grad():
        shown = net.render(torch.ones(1, 1, 8, 4, 16, 16), cameras, cameras, modality="depth")[0, 0, 3]
    near = 0.5 / net.config.renderer.num_samples
    expected = 2 * (1 + 254 * (1 - near)) / 255
    assert shown.max() <= expected + 1e-4 and shown.median().item() == pytest.approx(expected, abs=0.05)


# Training


def test_a_run_measures_every_modality_and_resumes_bit_for_bit(split, tmp_path):
    config = run_of(split, 4, workers=2)
    whole = train(config, tmp_path / "whole", held_out=True)
    shown = [record for record in records(tmp_path / "whole") if "PSNR/sonar/1_input" in record][-1]
    for name, kind in itertools.product(ALL, ("1_input", "1_input_nearest", "mean_image")):
        assert 0 < shown[f"PSNR/{name}/{kind}"] < 60
    assert 0 <= shown["Depth/1_input_error"] <= 1 and 0 <= shown["Depth/3_input_returns"] <= 1
    assert list((tmp_path / "whole").glob("samples-*.png"))
    train(dataclasses.replace(config, duration_kimg=config.duration_kimg / 2), tmp_path / "half")
    assert unequal(resume(tmp_path / "half", duration_kimg=config.duration_kimg), whole) == []


def test_without_data_the_embedded_cars_get_the_sensors_that_they_lack(tmp_path, monkeypatch):
    monkeypatch.setattr("training.config.ROOT", tmp_path)
    sizes = {"scenes": 1, "views": 2, "val_scenes": 1, "test_scenes": 1, "test_views": 1}
    config = set_by_path(TRAIN_PRESETS["cpu-demo"], {f"embedded.{name}": value for name, value in sizes.items()})
    splits = ensure_dataset(config.embedded.path, **dataclasses.asdict(config.embedded))
    files = {path: path.stat().st_mtime_ns for split in splits for path in split.folder.rglob("*.png")}
    options = {"outdir": tmp_path / "runs", "preset": "cpu-demo", "modalities": "rgb,depth,sar,sonar", "views": 1}
    options |= {"batch": 4, "targets": 1, "cbase": 8, "cres": "1,1,1", "duration": 4e-6, "workers": 0, "logger": "none"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += [f"--set=embedded.{name}={value}" for name, value in sizes.items()]
    program.main.main(arguments, standalone_mode=False)
    assert all((split.folder / "000000" / name / "000000.png").exists() for split in splits for name in ALL)
    assert files == {path: path.stat().st_mtime_ns for path in files}
    net = genvs.load_snapshot(*(tmp_path / "runs").glob("*/network-snapshot-*.pkl"))
    assert net.config.modalities == ALL and net.notes["cur_nimg"] == 4


def test_other_modalities_start_from_those_of_a_network_for_photos(split, tmp_path):
    photos = small_run(split, 1)
    with pytest.raises(InputError, match="car4"):
        opened(photos)
    net = small_net()
    config = run_of(split, transfer=str(saved(tmp_path / "photos.pkl", net)))
    state = create_state(config, opened(config).scene, torch.device("cpu"))
    own, given = state.net.state_dict(), net.state_dict()
    for name in ALL:
        assert torch.equal(own[f"denoisers.{name}.unet.conv_in.weight"], given["denoisers.rgb.unet.conv_in.weight"])
        key = "backbone.conv1.weight"
        assert torch.equal(own[f"encoders.{name}.{key}"], given[f"encoders.rgb.{key}"])
    rows = (
        own["encoders.sar.to_volume.weight"].unflatten(0, (-1, 8)),
        given["encoders.rgb.to_volume.weight"].unflatten(0, (-1, 8)),
    )
    assert torch.equal(rows[0][:, 6:], rows[1][:, 6:]) and rows[0][:, 4, -3].eq(1).all()
    back = small_run(split, transfer=str(saved(tmp_path / "all.pkl", state.net)))
    weights = create_state(back, back.net.scene, torch.device("cpu")).net.state_dict()
    assert weights.keys() == given.keys() and all(torch.equal(weights[name], given[name]) for name in weights)


def test_one_more_modality_is_one_row(tmp_path, monkeypatch):
    """As docs/modalities.md says."""
    thermal = Modality("thermal", ("infrared",), 1, "pinhole", (6, 7))
    monkeypatch.setitem(MODALITIES, "thermal", thermal)
    for name in ("thermal", "infrared"):
        monkeypatch.setitem(BY_NAME, name, "thermal")
    split = write_split(tmp_path / "cars_train", num_scenes=3)
    for number in (1, 2, 3):
        add_sensors(split / f"car{number}", ("infrared", "sonar"), seed=number)
    config = small_run(split, net=small_config(modalities=("rgb", "infrared")), batch_size=8)
    data = opened(config)
    net = create_state(config, data.scene, torch.device("cpu")).net
    batch = next(load_batches(config, data, 0, torch.device("cpu")))
    GeNVSLoss(config.loss, net.config, 0)(net, batch).total.backward()
    assert list(net.encoders) == list(net.denoisers) == ["rgb", "thermal"]
    for part in (*net.encoders.values(), net.denoisers.thermal):
        assert next(iter(part.parameters())).grad is not None
