"""LPIPS, DISTS, FID and KID: what is said where their library or weights are missing, and how it is asked.

The library itself stands in here: it is an extra, and its weights are not in the project.
"""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from genvs.errors import InputError
from genvs.metrics.perceptual import SetMetrics, image_metric

IMAGE_METRICS = ["lpips_vgg", "lpips_alex", "dists"]
SET_METRICS = ["fid", "kid"]


def build(name: str) -> object:
    return image_metric(name, "cpu") if name in IMAGE_METRICS else SetMetrics([name], "cpu")


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught:
        build(name)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize("name", [*IMAGE_METRICS, *SET_METRICS])
def test_without_the_library_its_install_is_named(name, monkeypatch):
    for module in ("torch_fidelity", "torchmetrics", "torchmetrics.image", "torchvision"):
        monkeypatch.setitem(sys.modules, module, None)
    message = refusal(name)
    assert f"--metrics {name}" in message and "pip install -c constraints.txt -e .[metrics]" in message


class Library:
    """Stands in for torchmetrics: its metrics note how they are made and what they are given."""

    def __init__(self, monkeypatch) -> None:
        self.made: list[tuple] = []
        self.given: list[tuple] = []
        self.failure: Exception | None = None
        library = self

        class Metric(nn.Module):
            def __init__(self, *args, **options) -> None:
                super().__init__()
                if library.failure:
                    raise library.failure
                library.made.append((type(self).__name__, *args, *options.items()))

            def reset(self) -> None:
                library.given.append(("reset",))

        class LearnedPerceptualImagePatchSimilarity(Metric):
            def forward(self, images, targets):
                assert images.dtype == torch.float32 and images.min() >= -1 and images.max() <= 1
                return (images - targets).abs().mean(dim=(1, 2, 3)).squeeze()

        class DISTSNetwork(Metric):
            def forward(self, images, targets):
                assert images.min() >= 0 and images.max() <= 1
                return (images - targets).abs().mean(dim=(1, 2, 3)).squeeze()

        class FrechetInceptionDistance(Metric):
            def update(self, images, real) -> None:
                assert images.dtype == torch.uint8
                library.given.append((real, len(images)))

            def compute(self):
                return torch.tensor(12.5)

        class KernelInceptionDistance(FrechetInceptionDistance):
            def compute(self):
                return torch.rand(()), torch.tensor(float(self.subset_size))

        homes = {
            "torch_fidelity": (),
            "torchvision": (),
            "torchvision.models": (),
            "torchmetrics": (),
            "torchmetrics.image": (),
            "torchmetrics.image.lpip": (LearnedPerceptualImagePatchSimilarity,),
            "torchmetrics.functional": (),
            "torchmetrics.functional.image": (),
            "torchmetrics.functional.image.dists": (DISTSNetwork,),
            "torchmetrics.image.fid": (FrechetInceptionDistance,),
            "torchmetrics.image.kid": (KernelInceptionDistance,),
        }
        for home, classes in homes.items():
            module = ModuleType(home)
            module.__path__ = []
            for one in classes:
                setattr(module, one.__name__, one)
            monkeypatch.setitem(sys.modules, home, module)


@pytest.fixture
def library(monkeypatch) -> Library:
    return Library(monkeypatch)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lpips_vgg", "vgg16-397923af.pth"),
        ("lpips_alex", "alexnet-owt-7be5be79.pth"),
        ("dists", "vgg16-397923af.pth"),
        ("fid", "weights-inception-2015-12-05-6726825d.pth"),
        ("kid", "weights-inception-2015-12-05-6726825d.pth"),
    ],
)
def test_without_weights_their_file_is_named(name, file, library, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    library.failure = OSError("<urlopen error [Errno -2] Name or service not known>\nand more")
    path = tmp_path / "checkpoints" / file
    message = refusal(name)
    assert message.startswith(f"{path}: not there") and "urlopen" in message and "TORCH_HOME" in message
    path.parent.mkdir()
    path.write_bytes(b"half of it")
    library.failure = EOFError()
    assert refusal(name).startswith(f"{path}: damaged")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("lpips_vgg", ("LearnedPerceptualImagePatchSimilarity", "vgg", ("reduction", "none"))),
        ("lpips_alex", ("LearnedPerceptualImagePatchSimilarity", "alex", ("reduction", "none"))),
        ("dists", ("DISTSNetwork",)),
    ],
)
def test_each_image_has_its_value(name, made, library):
    measure = image_metric(name, "cpu")
    assert library.made == [made]
    targets = torch.zeros(4, 3, 8, 8, dtype=torch.float64)
    error = torch.tensor([0.0, 0.2, 0.4, 3.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    scale = 2 if name == "dists" else 1  # DISTS takes images in [0, 1]
    expected = torch.tensor([0.0, 0.2, 0.4, 1.0]) / scale
    torch.testing.assert_close(measure(targets + error, targets), expected)
    torch.testing.assert_close(measure((targets + error)[1:2], targets[:1]), expected[1:2])


def test_sets_of_images(library):
    sets = SetMetrics(SET_METRICS, "cpu")
    assert [made[0] for made in library.made] == ["FrechetInceptionDistance", "KernelInceptionDistance"]
    sets.add(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), real=True)
    sets.add(torch.zeros(7, 3, 8, 8, dtype=torch.uint8), real=False)
    assert library.given == [(True, 5), (True, 5), (False, 7), (False, 7)]
    before = torch.get_rng_state()
    first, again = sets.compute(5), sets.compute(5)
    assert first == again and first["fid"] == 12.5, "KID's subsets are always the same"
    assert sets._metrics["kid"].subset_size == 5
    assert torch.equal(torch.get_rng_state(), before)
    sets.compute(10_000)
    assert sets._metrics["kid"].subset_size == 1000
    assert SetMetrics([], "cpu").compute(5) == {}
