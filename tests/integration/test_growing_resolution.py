"""Runs whose first part is at half the resolution."""

import dataclasses

import pytest
import torch

import genvs
from genvs.errors import InputError
from genvs.settings import set_by_path
from genvs.snapshot import build_net
from tests.small_model import randomize, small_config, some_cameras
from tests.small_training import kimg, opened, records, resume, small_run, train, unequal
from training.config import TrainConfig
from training.data import at_resolution

pytestmark = pytest.mark.filterwarnings("ignore:.*enlarged")


def growing(cars, updates: int) -> TrainConfig:
    """A run at 64 pixels whose first two updates are at 32."""
    return set_by_path(small_run(cars, updates), {"net.resolution": "64", "low_resolution_kimg": kimg(2)})


@pytest.mark.parametrize("numerics", ["genvs", "unofficial"])
def test_a_network_at_other_sizes_is_one_built_for_them_with_the_same_weights(numerics):
    large = set_by_path(small_config(), {"resolution": "96", "numerics": numerics})
    large = dataclasses.replace(large, encoder=dataclasses.replace(large.encoder, aspp_rates=(3,)))
    small = dataclasses.replace(set_by_path(large, {"resolution": 48}), scene=large.scene)
    changed = build_net(large).eval()
    randomize(changed)
    for config in (small, large):
        changed.set_sizes(config)
        built = build_net(config).eval()
        built.load_state_dict(changed.state_dict())
        size, cameras = config.resolution, some_cameras(1, 2)
        images = torch.rand(1, 2, 3, size, size) * 2 - 1
        drawn = []
        for net in (changed, built):
            shown = net.render(net.encode(images, cameras), cameras, cameras)[0]
            drawn.append(net.denoise(images[0], torch.tensor(1.0), shown))
        assert torch.equal(*drawn) and drawn[0].shape[-1] == size


def test_data_of_another_size_share_all_but_images(cars):
    data = opened(small_run(cars), held_out=True)
    assert at_resolution(data, 32, cache=False) is data
    smaller = at_resolution(data, 16, cache=False)
    assert smaller.facts() == data.facts() and data.train.resolution == 32
    for half, whole in ((smaller.train, data.train), (smaller.held_out, data.held_out)):
        ours, theirs = (dataset.load(1, range(3)).to("cpu") for dataset in (half, whole))
        assert ours.cameras.intrinsics.equal(theirs.cameras.intrinsics) and ours.cameras.c2w.equal(theirs.cameras.c2w)
        means = torch.nn.functional.avg_pool2d(theirs.images, 2)
        torch.testing.assert_close(ours.images, means, rtol=0, atol=2.01 / 255)  # a level


def test_a_run_grows_once_and_resumes_bit_for_bit_before_and_after(cars, tmp_path, monkeypatch):
    monkeypatch.setattr("training.evaluation.MAX_SCENES", 1)
    whole = train(growing(cars, 3), tmp_path / "whole", held_out=True)
    stopped = {updates: train(growing(cars, updates), tmp_path / str(updates)) for updates in (1, 2)}
    assert unequal(stopped[2], train(small_run(cars, 2), tmp_path / "small")) == [], "so far a run at 32 pixels"
    for updates in stopped:
        for file in (tmp_path / str(updates)).glob("*-000000.p?*"):
            assert genvs.load_snapshot(file).config.resolution == 32
        assert unequal(resume(tmp_path / str(updates), duration_kimg=kimg(3)), whole) == []
    assert genvs.load_snapshot(tmp_path / "whole" / "network-snapshot-000000.pkl").config.resolution == 64
    evaluated = [record["nimg"] for record in records(tmp_path / "whole") if "PSNR/1_input" in record]
    assert evaluated == [kimg(2) * 1000, kimg(3) * 1000], "before it grows, and at the end"


def test_a_network_too_small_for_half_its_resolution_is_refused(cars):
    with pytest.raises(InputError, match="^`low_resolution_kimg`=1: half of `resolution`=32 does not suit"):
        small_run(cars, low_resolution_kimg=1.0)
