"""Which objects and views an evaluation draws, what its options mean, and what its table says."""

import re
from pathlib import Path

import click
import pytest
import torch

from docs.own_dataset import NpzScenes
from genvs.data.scenes import Splits
from genvs.errors import InputError
from inference import evaluate, protocol, report
from inference.options import parse_numbers
from inference.protocol import LIST_VIEWS, choose_views, find_split, read_views
from tests.unit.srn_folder import write_split
from tests.unit.transforms_folder import write_capture

CHOSEN = {"snapshot": "a.pkl", "num_inputs": 1, "views": "all", "resolution": 128, "num_steps": 25}


def test_srn_views():
    inputs, targets = choose_views(251, 1, "all")
    assert inputs == [64] and len(targets) == 250 and 64 not in targets and targets[-1] == 250
    assert choose_views(251, 2, "all")[0] == [64, 104] and len(choose_views(251, 2, "all")[1]) == 249
    assert choose_views(251, 3, "list")[0] == [64, 104, 84]
    eleven = [0, 24, 49, 74, 99, 124, 149, 174, 199, 224, 249]
    assert choose_views(251, 1, "list") == ([64], eleven) and list(LIST_VIEWS) == eleven
    assert choose_views(251, 3, "list")[1] == eleven, "no input is among them"
    assert choose_views(251, 1, [250, 3]) == ([64], [250, 3])


@pytest.mark.parametrize("num_views", [2, 3, 4, 5, 24, 50, 300])
def test_of_other_numbers_of_views_the_corresponding_ones(num_views):
    for num_inputs in range(1, min(4, num_views)):
        inputs, targets = choose_views(num_views, num_inputs, "all")
        assert sorted(inputs + targets) == list(range(num_views)) and len(set(inputs)) == num_inputs
        some = choose_views(num_views, num_inputs, "list")[1]
        assert set(some) <= set(targets) and len(set(some)) == len(some)
        for place, view in zip(inputs, protocol.INPUT_VIEWS, strict=False):
            if num_views > 20:
                assert abs(place / (num_views - 1) - view / 250) <= 0.5 / (num_views - 1)


def test_a_file_of_views(tmp_path):
    file = tmp_path / "views.txt"
    file.write_text("0, 24\n49;24\t 250\n")
    assert read_views(str(file)) == [0, 24, 49, 250]
    for content in ("", "one two", "1.5"):
        file.write_text(content)
        with pytest.raises(InputError, match="--views=.*numbers of views"):
            read_views(str(file))
    for view, wrong in ((64, "an input view"), (251, "not among"), (-3, "not among")):
        with pytest.raises(InputError, match=f"--views: {view} is {wrong}"):
            choose_views(251, 1, [0, view])


def test_seeds():
    assert parse_numbers(None, None, "3, 0-2,1") == [3, 0, 1, 2] and parse_numbers(None, None, "7-7") == [7]
    for wrong in ("", "a", "-1", "2-1", "0-99999", "1,,2", "1.5"):
        with pytest.raises(click.BadParameter):
            parse_numbers(None, None, wrong)


def make_splits(folder: Path, *names: str) -> None:
    """SRN's layout for cars, a `transforms.json` for things; no two with the same images."""
    for seed, name in enumerate(names):
        if name.startswith("cars"):
            write_split(folder / name, num_scenes=1, num_views=2, seed=seed)
        else:
            write_capture(folder / name / "a", 2, seed=seed)


@pytest.mark.parametrize(
    ("there", "data", "split", "found", "called"),
    [
        (["cars_train", "cars_val", "cars_test"], "cars", "test", "cars_test", "test"),
        (["cars_train", "cars_val", "cars_test"], "cars_train", "val", "cars_val", "val"),
        (["cars_train", "cars_val"], "cars_val", "test", "cars_val", "val"),
        (["cars_test"], "cars", "test", "cars_test", "test"),
        (["cars_2.0_val"], "cars_2.0_val", "val", "cars_2.0_val", "val"),
        (["things_train", "things_test"], "things", "test", "things_test/transforms.json", "test"),
        (["cars"], "cars", "test", "cars", None),
        (["cars_train", "cars_val"], "cars_train", "test", None, "train or val"),
        (["cars"], "cars", "val", None, "test"),
    ],
)
def test_splits_are_found_or_others_are_offered(tmp_path, there, data, split, found, called):
    make_splits(tmp_path, *there)
    if found:
        assert find_split(tmp_path / data, split) == (tmp_path / found, called)
    else:
        with pytest.raises(InputError, match=f"has no {split} split: give --split {called}$"):
            find_split(tmp_path / data, split)


class Split(NpzScenes):
    @classmethod
    def find_splits(cls, path):
        return Splits(path / "train", test=path / "held_out")


def test_a_class_of_your_own_says_what_its_splits_are(tmp_path):
    assert find_split(tmp_path, "test", Split) == (tmp_path / "held_out", "test")
    with pytest.raises(InputError, match="has no val split: give --split train or test$"):
        find_split(tmp_path, "val", Split)
    assert find_split(tmp_path / "npz_train", "test", NpzScenes) == (tmp_path / "npz_train", None)


class Dataset:
    """What `departures` asks of a dataset."""

    enlarged_from = None

    def __init__(self, path, names: list[str], num_views: int = 251) -> None:
        self.path, self.scene_names, self._num_views = path, names, num_views

    def __len__(self) -> int:
        return len(self.scene_names)

    def num_views(self, scene: int) -> int:
        return self._num_views


def test_only_the_published_protocol_is_comparable(tmp_path):
    def found(dataset: Dataset, chosen: dict, num_objects: int, split: str | None) -> list[str]:
        return protocol.departures(dataset, {**chosen, "num_objects": num_objects, "split": split})

    srn = Dataset(tmp_path / "cars_test", [f"{number:032x}" for number in range(704)])
    assert found(srn, CHOSEN, 704, "test") == []
    for other in (
        Dataset(tmp_path / "chairs_test", srn.scene_names),
        Dataset(tmp_path / "cars_test", [f"{number:06d}" for number in range(704)]),
        Dataset(tmp_path / "cars_test", srn.scene_names[:10]),
        Dataset(tmp_path / "cars_test", srn.scene_names, num_views=50),
    ):
        (departure,) = found(other, CHOSEN, len(other), "test")
        assert "not the ShapeNet-SRN cars" in departure
    lines = found(srn, {**CHOSEN, "num_inputs": 2, "views": "list", "resolution": 64}, 10, None)
    words = ("no named splits", "10 of 704", "2 input views", "some of the views", "64 pixels")
    assert len(lines) == 5 and all(any(word in line for line in lines) for word in words)
    assert "train split" in found(srn, CHOSEN, 704, "train")[0]
    srn.enlarged_from = (32, 48)
    assert "32x48 pixels, enlarged to 128x128" in found(srn, CHOSEN, 704, "test")[0]


def scores(of_psnr: float, **others: float) -> dict:
    return {"psnr": {"mean": of_psnr}, **{name: {"mean": value} for name, value in others.items()}}


def test_the_table_stands_beside_the_published_figures():
    """Their SSIM has the uniform window, and so has the figure beside them."""
    objects = {"a": scores(20.0, ssim=0.1, ssim_uniform=0.5, lpips_vgg=0.25)}
    objects["b"] = scores(24.0, ssim=0.1, ssim_uniform=0.75, lpips_vgg=0.75)
    summary = report.summarize(objects, {"fid": {"mean": 31.0}})
    assert summary["psnr"] == {"mean": 22.0, "standard_error": pytest.approx(2.0)}
    table = report.markdown("title", ["a fact"], [], {"samples": summary, "nearest": {"psnr": {"mean": 18.0}}}, 1)
    assert "PSNR (dB) ↑ | SSIM, gaussian window ↑ | SSIM, 7x7 window ↑ | LPIPS (VGG) ↓ | FID ↓ |" in table
    assert "| **this snapshot** | 22.00 ± 2.00 | 0.100 ± 0.000 | 0.625 ± 0.125 | 0.500 ± 0.250 | 31.00 |" in table
    assert "| nearest input view | 18.00 | - | - | - | - |" in table
    assert "| pixelNeRF | 23.17 | - | 0.900 | 0.146 | 59.24 |" in table
    assert "| 3DiM | 21.01 | - | 0.570 | - | 8.99 |" in table
    assert "omparable" not in table and "* a fact" in table
    other = report.markdown("title", [], ["other data", "other size"], {"samples": summary}, 1)
    assert "other data; other size" in other and "(not comparable) | 22.00 " in other


def test_best_median_and_worst():
    objects = {name: scores(value) for name, value in zip("abcde", [3.0, 9.0, 1.0, 5.0, 4.0], strict=True)}
    assert list(report.best_median_worst(objects).items()) == [("best", "b"), ("median", "e"), ("worst", "c")]
    assert report.best_median_worst({"a": scores(3.0), "b": scores(9.0)}) == {"best": "b", "worst": "a"}


def test_the_page_names_every_option():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    named = set(re.findall(r"--[A-Za-z][\w-]*", page))
    options = {name for parameter in evaluate.main.params for name in parameter.opts if name.startswith("--")}
    assert options - {"--dry-run", "--version"} <= named and "-n" in page
    assert all(f"`{name}`" in page for name in report.MEASURES if name not in ("psnr", "ssim", "ssim_uniform"))


def test_the_best_of_distances_is_the_smallest():
    values = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    assert report.aggregates(values, larger_is_better=False) == {"mean": 2.5, "best": 1.5}
    assert report.aggregates(values[:1], larger_is_better=True) == {"mean": 2.5}
