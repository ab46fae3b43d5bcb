"""A run from a snapshot: what it takes from the snapshot, what from the data, and what a user's options change."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import genvs
from genvs.config import PRESETS
from genvs.errors import InputError
from genvs.settings import set_by_path
from tests.small_model import small_net
from tests.small_training import fresh_state, records, train
from tests.unit.srn_folder import some_c2w
from tests.unit.transforms_folder import write_capture
from training.config import TRAIN_PRESETS, TrainConfig
from training.data import open_data
from training.fine_tuning import as_in_training, fine_tuning, start_from

SCENE = {"scene.near": 0.7, "scene.far": 1.9, "scene.background": (0, 0, 0), "scene.fit": "pad"}


@pytest.fixture
def trained(tmp_path) -> Path:
    """A snapshot of a network that no preset has."""
    net = small_net()
    config = set_by_path(net.config, SCENE)
    genvs.save_snapshot(tmp_path / "net.pkl", config, net.state_dict())
    return tmp_path / "net.pkl"


def run_on(data: Path, snapshot: Path, **given) -> TrainConfig:
    config = start_from(str(snapshot))
    config = dataclasses.replace(config, transfer=str(snapshot), data=str(data), **given)
    return as_in_training(config, given)


def elsewhere(folder: Path) -> Path:
    """A capture five times as large, away from the origin."""
    c2w = some_c2w(8)
    c2w[:, :3, 3] = 5 * c2w[:, :3, 3] + (30, -20, 10)
    return write_capture(folder / "capture", 8, c2w=c2w)


def test_the_network_is_the_snapshots_and_the_recipe_short(trained):
    config, net = start_from(str(trained)), genvs.load_snapshot(trained)
    assert config.net == net.config and config.preset == "cpu-demo", "the preset with the same resolution"
    short = fine_tuning(config, {}, "cpu")
    assert short.duration_kimg < 1 and short.lr < config.lr and short.net == config.net and short.loss == config.loss
    assert fine_tuning(config, {}, "cuda").duration_kimg > 10 * short.duration_kimg
    longer = fine_tuning(config, {"duration_kimg": "60", "lr": "0.5"}, "cpu")
    assert (longer.duration_kimg, longer.kimg_per_tick, longer.lr) == (60.0, 3.0, 0.5)
    weights, state = net.state_dict(), fresh_state(run_on(elsewhere(trained.parent), trained))
    assert all(np.array_equal(weights[name], tensor) for name, tensor in state.ema.state_dict().items())
    preset = start_from(str(trained), TRAIN_PRESETS["srn64"])
    assert dataclasses.replace(preset.net, scene=PRESETS["srn64"].scene) == PRESETS["srn64"]


def test_a_scene_elsewhere_comes_to_where_the_network_expects_it(trained, tmp_path):
    config = run_on(elsewhere(tmp_path), trained)
    assert (config.near, config.far, config.normalize, config.fit) == (0.7, 1.9, True, "pad")
    data = open_data(config)
    assert data.scene.radius == pytest.approx(1.3, abs=0.1) and data.scene.background == (0, 0, 0)
    placement = data.train.placement(0)
    assert placement is not None and placement.scale == pytest.approx(0.2, rel=0.1)
    far = dataclasses.replace(config, radius=2.6)
    assert open_data(far).scene.radius == pytest.approx(2 * data.scene.radius, rel=1e-6)


def test_a_scene_in_its_place_stays_there(trained, cars):
    config = run_on(cars, trained)
    assert (config.near, config.far, config.normalize) == (0.7, 1.9, False)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"near": 3.0, "far": 9.0}, (3.0, 9.0, False)),
        ({"near": 3.0}, (3.0, None, False)),
        ({"normalize": False}, (None, None, False)),
        ({"normalize": True, "near": 0.5}, (0.5, 1.9, True)),
    ],
)
def test_what_a_user_states_stays(trained, tmp_path, given, found):
    config = run_on(elsewhere(tmp_path), trained, fit="crop", **given)
    assert (config.near, config.far, config.normalize) == found and config.fit == "crop"
    open_data(config)


def test_cameras_that_look_at_no_point_need_their_planes(trained, tmp_path):
    """As without a snapshot, whose planes would say nothing about them."""
    c2w = np.tile(np.eye(4), (8, 1, 1))
    c2w[:, 0, 3] = np.arange(8)
    config = run_on(write_capture(tmp_path / "wall", 8, c2w=c2w), trained)
    assert not config.normalize and config.near is None
    with pytest.raises(InputError, match="`near` and `far`"):
        open_data(config)


def test_a_network_with_depth_planes_of_each_camera_takes_the_datas(trained, tmp_path):
    net = genvs.load_snapshot(trained)
    own = set_by_path(net.config, {"scene.own_depths": True})
    genvs.save_snapshot(tmp_path / "own.pkl", own, net.state_dict())
    config = run_on(elsewhere(tmp_path), tmp_path / "own.pkl")
    assert (config.near, config.far, config.normalize) == (None, None, True)


def test_a_run_measures_the_snapshot_before_it_changes(trained, tmp_path):
    config = run_on(elsewhere(tmp_path), trained, min_inputs=1, max_inputs=2, workers=0, logger=None)
    config = fine_tuning(config, {"duration_kimg": 0.016, "cache": False}, "cpu")
    train(config, tmp_path / "run", held_out=True)
    measured = [record["nimg"] for record in records(tmp_path / "run") if "PSNR/1_input" in record]
    assert (measured[0], measured[-1]) == (0, 16) and (tmp_path / "run" / "samples-000000.png").exists()
