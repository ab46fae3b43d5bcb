"""Which objects and views an evaluation draws, what its options mean, and what its table says."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from docs.own_dataset import NpzScenes
from genvs.data.scenes import Splits
from genvs.data.splits import dataset_class, open_splits
from genvs.data.types import Views
from genvs.errors import InputError
from genvs.metrics import psnr
from inference import evaluate, measures, protocol, report
from inference.job import Job
from inference.protocol import LIST_VIEWS, Protocol, Source, choose_views, evenly, parse_seeds, read_views
from tests.small_model import some_cameras
from tests.unit.srn_folder import write_split
from tests.unit.transforms_folder import write_capture

CHOSEN = Protocol(
    "a.pkl",
    "00",
    "cars_test",
    "11",
    "opencv",
    False,
    1,
    "baseline_mean",
    "all",
    128,
    "heun",
    25,
    1.0,
    "fixed",
    0.0,
    False,
    None,
)


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


@pytest.mark.parametrize(("view", "said"), [(64, "an input view"), (251, "not among the views 0 to 250")])
def test_views_that_cannot_be_drawn(view, said):
    with pytest.raises(InputError, match=f"--views: {view} is {said}"):
        choose_views(251, 1, [0, view])


def test_a_file_of_views(tmp_path):
    file = tmp_path / "views.txt"
    file.write_text("0, 24\n49;24\t 250\n")
    assert read_views(str(file)) == [0, 24, 49, 250]
    assert read_views("all") == "all" and read_views("list") == "list"
    for content in ("", "one two", "-3", "1.5"):
        file.write_text(content)
        with pytest.raises(InputError, match="write the numbers of views into it"):
            read_views(str(file))
    with pytest.raises(InputError, match="every: neither all nor list, nor a file"):
        read_views("every")


def test_seeds():
    def parse(text: str) -> list[int]:
        return parse_seeds(None, None, text)

    assert parse("0") == [0] and parse("3, 0-2,1") == [3, 0, 1, 2] and parse("7-7") == [7]
    for wrong in ("", "a", "-1", "2-1", "0-99999", "1,,2", "1.5"):
        with pytest.raises(click.BadParameter, match="0-9 or 0,3,5"):
            parse(wrong)


def test_splits_are_found(tmp_path):
    for split in ("train", "val", "test"):
        write_split(tmp_path / f"cars_{split}", num_scenes=1, num_views=2, seed=ord(split[-1]))
    for data in ("cars", "cars_train"):
        assert Source(tmp_path / data).find("test") == tmp_path / "cars_test"
    for split in ("train", "val", "test"):
        assert Source(tmp_path / "cars").find(split) == tmp_path / f"cars_{split}"
        assert Source(tmp_path / "cars").name_of(split) == split
    for itself in ("cars_test", "cars_val"):
        assert Source(tmp_path / itself).find("test") == tmp_path / itself
    alone = write_split(tmp_path / "alone" / "cars_test", num_scenes=1, num_views=2)
    found = Source(tmp_path / "alone" / "cars")
    assert found.find("test") == alone and found.name_of("test") == "test"
    write_split(tmp_path / "other" / "cars_train", num_scenes=1, num_views=2)
    for split in ("val", "test"):
        with pytest.raises(InputError, match=f"has no {split} split: give --split train$"):
            Source(tmp_path / "other" / "cars").find(split)


def test_splits_in_folders_of_scenes_are_found(tmp_path):
    for seed, split in enumerate(("train", "test")):
        write_capture(tmp_path / f"things_{split}" / "a", 2, seed=seed)
    for data in ("things", "things_train"):
        source = Source(tmp_path / data)
        assert source.find("test") == tmp_path / "things_test" / "transforms.json" and source.name_of("test") == "test"


def test_the_names_of_splits_may_have_dots(tmp_path):
    nested = write_split(tmp_path / "chairs_train" / "chairs_2.0_train", num_scenes=1, num_views=2)
    with pytest.raises(InputError, match=r"has no test split: give --split train$"):
        Source(nested).find("test")
    for seed, split in enumerate(("val", "test"), start=1):
        write_split(tmp_path / f"chairs_{split}", num_scenes=1, num_views=2, seed=seed)
    for data in ("chairs", "chairs_train", "chairs_train/chairs_2.0_train"):
        source = Source(tmp_path / data)
        assert [source.name_of(split) for split in ("train", "val", "test")] == ["train", "val", "test"]
        assert source.find("train") == nested and source.find("test") == tmp_path / "chairs_test"
    alone = Source(write_split(tmp_path / "set2.0_val", num_scenes=1, num_views=2))
    assert alone.find("val") == alone.path and alone.name_of("test") == "val"


def test_a_training_split_of_captures_is_not_measured_as_the_test_split(tmp_path):
    write_capture(tmp_path / "toy2_train" / "a", 2)
    source = Source(tmp_path / "toy2_train")
    with pytest.raises(InputError, match="has no test split: give --split train$"):
        source.find("test")
    assert source.name_of("train") == "train"


def test_a_folder_is_the_same_from_within(tmp_path, monkeypatch):
    for seed, split in enumerate(("train", "test")):
        write_split(tmp_path / f"cars_{split}", num_scenes=1, num_views=2, seed=seed)
        write_capture(tmp_path / f"things_{split}" / "a", 2, seed=seed)
    for data, there in (("cars_train", "."), ("cars_train/car1", ".."), ("things_train", "transforms.json")):
        monkeypatch.chdir(tmp_path / data)
        expected = Source(Path(os.path.abspath(there)))
        for split in ("train", "test"):
            assert Source(Path(there)).find(split) == expected.find(split)
    monkeypatch.chdir(tmp_path / "things_train" / "a")
    split = open_splits(".").train
    assert dataset_class(split)(split, resolution=32).scene_names == ["a"]


def test_scenes_without_splits_can_only_be_measured_all_together(tmp_path):
    source = Source(write_split(tmp_path / "objects", num_scenes=3, num_views=2))
    assert source.find("test") == tmp_path / "objects" and source.name_of("test") is None
    for split in ("train", "val"):
        with pytest.raises(InputError, match=f"has no {split} split: give --split test$"):
            source.find(split)
    for name in ("cars_test", "cars_val"):
        held_out = Source(write_split(tmp_path / name, num_scenes=1, num_views=2, seed=ord(name[-1])))
        split = name.removeprefix("cars_")
        assert held_out.find(split) == tmp_path / name and held_out.name_of("test") == held_out.name_of(split) == split


class Split(NpzScenes):
    @classmethod
    def find_splits(cls, path):
        return Splits(path / "train", test=path / "held_out")


def test_a_class_of_ones_own_says_what_its_splits_are(tmp_path):
    named, whole = Source(tmp_path, own_class=Split), Source(tmp_path / "npz_train", own_class=NpzScenes)
    assert named.find("test") == tmp_path / "held_out" and named.name_of("test") == "test"
    assert named.name_of("train") == "train" and whole.name_of("test") is None
    with pytest.raises(InputError, match="has no val split: give --split train or test$"):
        named.find("val")
    assert whole.find("test") == whole.find("train") == tmp_path / "npz_train"


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
    srn = Dataset(tmp_path / "cars_test", [f"{number:032x}" for number in range(704)])
    assert protocol.departures(srn, CHOSEN, 704, "test") == []
    others = {
        "name": Dataset(tmp_path / "chairs_test", srn.scene_names),
        "names of objects": Dataset(tmp_path / "cars_test", [f"{number:06d}" for number in range(704)]),
        "number of objects": Dataset(tmp_path / "cars_test", srn.scene_names[:10]),
        "number of views": Dataset(tmp_path / "cars_test", srn.scene_names, num_views=50),
    }
    for what, dataset in others.items():
        found = protocol.departures(dataset, CHOSEN, len(dataset), "test")
        assert len(found) == 1 and "not the ShapeNet-SRN cars" in found[0], what
    other = dataclasses.replace(CHOSEN, num_inputs=2, views="list", resolution=64)
    found = protocol.departures(srn, other, 10, None)
    assert len(found) == 5
    for word in ("no split by name", "10 of 704", "2 input views", "some of the views", "64 pixels"):
        assert any(word in line for line in found)
    srn.enlarged_from = (32, 48)
    assert protocol.departures(srn, CHOSEN, 704, "test") == ["images of 32x48 pixels, enlarged to 128x128"]
    srn.enlarged_from = None
    of_train = ["this is the train split, so training may have seen these objects"]
    assert protocol.departures(srn, CHOSEN, 704, "train") == of_train


def test_a_folder_belongs_to_one_protocol(tmp_path):
    file = tmp_path / "protocol.json"
    CHOSEN.check(file)
    CHOSEN.write(file)
    CHOSEN.check(file)
    dataclasses.replace(CHOSEN, snapshot="elsewhere/a.pkl").check(file)
    with pytest.raises(InputError, match="num_steps 25, not 12: choose another --out_dir"):
        dataclasses.replace(CHOSEN, num_steps=12).check(file)
    file.write_text("{}")
    with pytest.raises(InputError, match="protocol.json: cannot be read"):
        CHOSEN.check(file)


def test_the_mean_training_image_is_drawn_anew(tmp_path):
    """The train split may be another one by now; whatever else is there already stays."""
    dataset = Dataset(tmp_path / "cars_test", ["car"], num_views=2)
    views = Views(torch.zeros(1, 3, 4, 4).byte(), some_cameras(1))
    for level in (-1.0, 1.0):
        views.images.fill_(127.5 + 127.5 * level)
        mean, baselines = torch.full((3, 4, 4), level), ["nearest", "mean"]
        job = Job(None, None, dataset, None, CHOSEN, 1, [0], baselines, mean, {}, tmp_path)
        for baseline in job.baselines:
            job.draw(0, baseline, (views, views), None, batch_size=1)
    assert job.drawn(0, "mean", [1]).unique().tolist() == [255]
    assert job.drawn(0, "nearest", [1]).unique().tolist() == [0]


def scores(of_psnr: float, **others: float) -> dict:
    return {"psnr": {"mean": of_psnr}, **{name: {"mean": value} for name, value in others.items()}}


def test_the_table_stands_beside_the_published_figures():
    objects = {"a": scores(20.0, ssim=0.5, lpips_vgg=0.25), "b": scores(24.0, ssim=0.75, lpips_vgg=0.75)}
    summary = report.summarize(objects, {"fid": {"mean": 31.0}})
    assert summary["psnr"] == {"mean": 22.0, "standard_error": pytest.approx(2.0)}
    table = report.markdown("title", ["a fact"], [], summary, num_samples=1, baselines={})
    assert "| **GeNVS, this snapshot** | 22.00 | 0.625 | 0.500 | 31.00 |" in table
    assert "| pixelNeRF | 23.17 | 0.900 | 0.146 | 59.24 |" in table
    assert "| 3DiM | 21.01 | 0.570 | - | 8.99 |" in table
    assert "omparable" not in table and "* a fact" in table
    assert "| PSNR (dB), larger is better | 22.00 | 2.00 |" in table
    assert "| FID, smaller is better | 31.00 | - |" in table
    other = report.markdown("title", [], ["other data", "other size"], summary, num_samples=1, baselines={})
    assert "**Not comparable with the published figures:** other data; other size." in other
    assert "| **GeNVS, this snapshot** (not comparable) | 22.00 |" in other


def test_several_samples_have_a_row_each():
    figures = {"mean": 20.0, "best": 21.0, "mean_image": 22.0}
    summary = report.summarize({"a": {"psnr": figures, "ssim": figures}}, {"kid": {"mean": 0.5}})
    table = report.markdown("title", [], [], summary, num_samples=3, baselines={})
    for kind, value in (("mean of 3", "20.00"), ("best of 3", "21.00"), ("mean image of 3", "22.00")):
        assert f"| **GeNVS, this snapshot, {kind}** | {value} |" in table
    assert "| PSNR (dB), larger is better | 20.00 | 21.00 | 22.00 | - |" in table
    assert "| KID, smaller is better | 0.5000 | - | - | - |" in table


def test_best_median_and_worst():
    objects = {name: scores(value) for name, value in zip("abcde", [3.0, 9.0, 1.0, 5.0, 4.0], strict=True)}
    assert list(report.best_median_worst(objects).items()) == [("best", "b"), ("median", "e"), ("worst", "c")]
    assert report.best_median_worst({"a": scores(3.0), "b": scores(9.0)}) == {"best": "b", "worst": "a"}
    assert report.best_median_worst({"a": scores(3.0)}) == {"best": "a"}


def test_errors_are_dark_on_white():
    target = np.full((2, 2, 3), 100, dtype=np.uint8)
    sample = target.copy()
    sample[0, 0], sample[0, 1] = 110, 255
    assert report.error_picture(sample, target)[..., 0].tolist() == [[235, 0], [255, 255]]


@pytest.mark.parametrize(("count", "limit"), [(1, 11), (5, 11), (11, 11), (250, 11), (250, 8)])
def test_evenly(count, limit):
    places = evenly(count, limit)
    assert len(set(places)) == len(places) == min(count, limit)
    assert places[0] == 0 and places[-1] == count - 1 and min(np.diff(places), default=1) >= 1
    assert set(np.diff(places, 2)) <= {-1, 0, 1}


def test_the_page_names_every_option():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    named = set(re.findall(r"--[A-Za-z][\w-]*", page))
    options = {name for parameter in evaluate.main.params for name in parameter.opts if name.startswith("--")}
    assert options - {"--dry-run"} <= named and "-n" in page
    assert all(f"`{name}`" in page for name in measures.MEASURES if name not in measures.ALWAYS)


# Measures of several samples


def test_means_and_bests():
    generator = torch.Generator().manual_seed(0)

    def images(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (*shape, 3, 16, 16), generator=generator).byte()

    samples, targets = images(3, 70), Views(images(70), some_cameras(70))
    result = measures.Measures([], torch.device("cpu")).of_object(samples, Views(images(1), some_cameras(1)), targets)
    assert result.keys() == {"psnr", "ssim"}
    floats, wanted = (part.double() / 127.5 - 1 for part in (samples, targets.images))
    each = psnr(floats, wanted)
    assert result["psnr"]["mean"] == pytest.approx(each.mean().item(), abs=1e-5)
    assert result["psnr"]["best"] == pytest.approx(each.amax(0).mean().item(), abs=1e-5)
    assert result["psnr"]["mean_image"] == pytest.approx(psnr(floats.mean(0), wanted).mean().item(), abs=1e-5)
    assert result["psnr"]["mean_image"] > result["psnr"]["best"] > result["psnr"]["mean"]


def test_the_best_of_distances_is_the_smallest():
    values = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    assert measures.aggregates(values, larger_is_better=False) == {"mean": 2.5, "best": 1.5}
    assert measures.aggregates(values, larger_is_better=True) == {"mean": 2.5, "best": 3.5}
    assert measures.aggregates(values[:1], larger_is_better=True) == {"mean": 2.5}
    smaller = {name for name, measure in measures.MEASURES.items() if not measure.larger_is_better}
    assert smaller == {"lpips_vgg", "lpips_alex", "dists", "fid", "kid"}
