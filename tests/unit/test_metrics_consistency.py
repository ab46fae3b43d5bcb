"""The consistency score: near 1 for exact renders, clearly lower for what no object can look like."""

import pytest
import torch

from genvs.data.stored import StoredScenes
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.data.types import Views
from genvs.metrics import background_level, hull_agreement, silhouettes
from tests.small_model import some_cameras

VIEWS = 11


@pytest.fixture(scope="module")
def cars(tmp_path_factory) -> list[Views]:
    """Exact renders of four cars, eleven views each from SRN's spiral."""
    path = tmp_path_factory.mktemp("datasets") / "cars"
    ensure_dataset(path, scenes=0, views=1, resolution=48, test_scenes=4, test_views=VIEWS, workers=1)
    dataset = StoredScenes(path.with_name("cars_test"), resolution=48)
    return [dataset.load(scene, range(VIEWS)).to("cpu") for scene in range(4)]


def agreement(views: Views, order: list[int] | None = None) -> float:
    return hull_agreement(views.images if order is None else views.images[order], views.cameras)


def test_exact_renders_agree_and_shuffled_views_do_not(cars):
    order = torch.randperm(VIEWS, generator=torch.Generator().manual_seed(0)).tolist()
    assert min(agreement(car) for car in cars) > 0.97
    assert max(agreement(car, order) for car in cars) < 0.75


def test_the_score_is_the_part_of_the_silhouettes_that_the_hull_fills(cars):
    """By carving voxels instead: another way to the same hull."""
    car, order = cars[0], [1, 0, *range(2, VIEWS)]
    images, side = car.images[order], 96
    grid = (torch.arange(side) + 0.5) / side - 0.5
    points = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij"), dim=-1).reshape(-1, 3)
    shown = silhouettes(images)
    places = []
    for view in range(VIEWS):
        w2c, intrinsics = car.cameras.w2c[view], car.cameras.intrinsics[view]
        image = (points @ w2c[:3, :3].T + w2c[:3, 3]) @ intrinsics.T
        places.append((image[:, :2] / image[:, 2:] * 48).floor().long().clamp(0, 47))
    inside = torch.stack([shown[view][v, u] for view, (u, v) in enumerate(p.unbind(1) for p in places)]).all(0)
    filled = []
    for view in range(VIEWS):
        u, v = places[view][inside].unbind(1)
        filled.append(len((48 * v + u).unique()) / int(shown[view].sum()))
    assert agreement(car, order) == pytest.approx(sum(filled) / VIEWS, abs=0.06)


def test_what_has_no_silhouette_counts_nothing(cars):
    car = cars[0]
    white = torch.ones_like(car.images)
    noise = torch.rand(car.images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for images in (white, 0 * white, -white, noise):
        assert hull_agreement(images, car.cameras) == 0
    one_blank = torch.cat([car.images[:1], white[1:2], car.images[2:]])
    assert hull_agreement(one_blank, car.cameras) == 0, "no object is unseen from one side"


def test_a_drawn_background_is_not_quite_white(cars):
    """Noise of a few levels leaves the score about what it is, and does not fill the images."""
    generator = torch.Generator().manual_seed(0)
    for car in cars[::2]:  # the second car is white: its roof is within the noise of the background
        noisy = (car.images - 0.1 * torch.rand(car.images.shape, generator=generator)).clamp(-1, 1)
        assert background_level(noisy).min() > 0.03 > background_level(car.images).max()
        assert silhouettes(noisy).float().mean() < 1.2 * silhouettes(car.images).float().mean()
        assert hull_agreement(noisy, car.cameras) == pytest.approx(agreement(car), abs=0.05)


def test_views_elsewhere_do_not_carve(cars):
    car = cars[0]
    away = some_cameras(1)
    away.c2w[:, :3, 3] += 100
    views = Views.cat([car, Views(car.images[:1], away)])
    expected = agreement(car) * VIEWS / (VIEWS + 1)
    assert expected - 0.01 < hull_agreement(views.images, views.cameras) <= expected + 1 / (VIEWS + 1)
