"""The embedded things: every family builds whole, connected objects; all sensors draw them; datasets mix them."""

import itertools
import json
import math

import numpy as np
import pytest

from genvs.config import SceneConfig
from genvs.data.synthetic.dataset import ensure_dataset, split_cameras
from genvs.data.synthetic.parts import assemble
from genvs.data.synthetic.sensors import SENSORS, draw
from genvs.data.synthetic.shading import render
from genvs.data.synthetic.things.build import THEMES, build_thing
from genvs.errors import InputError
from tests.unit.test_synthetic import contents

CARS = SceneConfig()
FAMILIES = {name: build for theme in THEMES.values() for name, build in theme.items()}


def groups(low: np.ndarray, high: np.ndarray, gap: float) -> int:
    """How many sets boxes `[N, 3]` form that no chain of boxes at most `gap` apart joins."""
    near = ((low[:, None] <= high + gap) & (low <= high[:, None] + gap)).all(-1)
    label = np.arange(len(low))
    for _ in label:
        label = np.where(near, label, len(low)).min(1)
    return len(set(label))


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_builds_whole_objects_of_one_piece_that_differ(kind):
    c2w, images = split_cameras("test", 3, np.random.default_rng(0))[:1], []
    for seed in range(3):
        parts = FAMILIES[kind](np.random.default_rng(seed))
        ends = np.array([(part.vertices.min(0), part.vertices.max(0)) for part in parts])
        assert groups(ends[:, 0], ends[:, 1], 0.005 * np.linalg.norm(np.ptp(ends, axis=(0, 1)))) == 1
        for part in parts:
            corners = part.vertices[part.faces] - part.vertices.mean(0)
            assert np.isfinite(corners).all()
            assert np.linalg.det(corners).sum() > 0  # six times the enclosed volume: its faces face outwards
        model = assemble(parts)
        low, high = model.bounds.astype(np.float64)
        np.testing.assert_allclose(low, -high, atol=1e-6)  # as all cars: centred in a sphere of diameter 1
        assert math.isclose(np.linalg.norm(high - low), 1, rel_tol=1e-5)
        images.append(next(render(model, c2w, CARS.focal * 24, 24))[0].astype(float))
    for one, two in itertools.combinations(images, 2):
        assert np.abs(one - two)[(one < 255) | (two < 255)].mean() > 5  # of 255, where either shows something


@pytest.mark.parametrize("kind", ["chair", "teapot", "tree"])
def test_all_sensors_see_a_thing(kind):
    model, info = build_thing(np.random.default_rng(2), kind)
    assert info["class"] == kind and kind in THEMES[info["theme"]]
    c2w = split_cameras("test", 2, np.random.default_rng(0))
    for image, depth in render(model, c2w, CARS.focal * 32, 32):
        assert 20 < (depth > 0).sum() < 900 and (image[depth > 0] < 250).any(-1).mean() > 0.9
        assert CARS.near < depth[depth > 0].min() and depth.max() < CARS.far
    for name in SENSORS:
        for picture in draw(name, model, c2w, 32, (0,)):
            assert 20 < (picture > 0).sum() < 900


def test_a_mixed_dataset_has_scenes_of_both_kinds_whatever_the_workers(tmp_path):
    sizes = dict(scenes=6, views=1, resolution=16, seed=1, modalities=("rgb", "sar"))
    for name, kind, workers in (("one", "mixed", 1), ("two", "mixed", 2), ("cars", "cars", 2), ("things", "things", 2)):
        ensure_dataset(tmp_path / name, kind=kind, workers=workers, **sizes)
    one, two, cars, things = (contents(tmp_path / f"{name}_train") for name in ("one", "two", "cars", "things"))
    assert one == two
    record = json.loads(one["dataset.json"])
    assert record["kind"] == "mixed" and record["thing_generator"] and "kind" not in json.loads(cars["dataset.json"])
    scenes = {name: data for name, data in one.items() if name != "dataset.json"}
    of_cars = {name for name, data in scenes.items() if data == cars[name] != things[name]}
    of_things = {name for name, data in scenes.items() if data == things[name] != cars[name]}
    assert {name for name in scenes if name.endswith("scene.json")} <= of_cars | of_things
    assert of_cars and of_things
    for made, asked in (("things", "cars"), ("cars", "mixed")):
        with pytest.raises(InputError, match=f"made with kind {made}, not {asked}"):
            ensure_dataset(tmp_path / made, kind=asked, **sizes)
    with pytest.raises(InputError, match="`kind`=boats: choose one of cars, things, mixed"):
        ensure_dataset(tmp_path / "boats", kind="boats", **sizes)
