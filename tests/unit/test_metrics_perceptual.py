"""LPIPS, DISTS, FID and KID, where their packages and weights are there; and what is said where they are not.

LPIPS and DISTS need VGG16's and AlexNet's weights in torch.hub's folder and the package torchmetrics, which is not
imported; FID and KID need torchmetrics, torch-fidelity and a torchvision that fits torch.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from genvs.errors import InputError
from genvs.metrics import perceptual
from genvs.metrics.distributions import SetMetrics
from genvs.metrics.perceptual import IMAGE_METRICS, NETWORKS, image_metric

# Of `pair()`, by torchmetrics 1.9.0 with torchvision's weights.
EXPECTED = {"lpips_vgg": 0.129160, "lpips_alex": 0.012067, "dists": 0.170402}
HUB = Path(torch.hub.get_dir()) / "checkpoints"
VGG_IS_THERE = (HUB / NETWORKS["vgg"]).is_file()
LPIPS_IS_THERE = VGG_IS_THERE and (HUB / NETWORKS["alex"]).is_file() and importlib.util.find_spec("torchmetrics")


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A pattern of 64x64 pixels and one that has another mixed in, in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    first = torch.stack([(7 * x + 3 * y + 40 * channel) % 256 for channel in range(3)]) / 127.5 - 1
    second = ((x * y) % 256 / 127.5 - 1).expand(3, -1, -1)
    return first[None], (0.9 * first + 0.1 * second)[None]


@pytest.mark.skipif(not LPIPS_IS_THERE, reason="VGG16's and AlexNet's weights or torchmetrics are not there")
@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_distances_are_those_of_torchmetrics_without_torchvision(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    measure = image_metric(name, "cpu")
    first, second = pair()
    assert measure(first, second).item() == pytest.approx(EXPECTED[name], abs=2e-5)
    values = measure(torch.cat([first, second, 3 * first]).double(), torch.cat([first, first, first.sign()]).double())
    assert values.shape == (3,) and values[0].abs() < 1e-6
    assert values[1].item() == pytest.approx(EXPECTED[name], abs=2e-5), "it is symmetric"
    alone = measure((3 * first).clamp(-1, 1), first.sign()).item()
    assert values[2].item() == pytest.approx(alone, abs=1e-5), "images are clamped, and each has its own value"


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_what_is_missing_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="`metrics`.*torchmetrics.*pip install"):
        image_metric(name, "cpu")
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(InputError, match="`metrics`: FID.*pip install"):
        SetMetrics(["fid"], ["samples"], "cpu", 4)
    monkeypatch.setattr(perceptual, "_weights_of_metric", lambda name: {})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "URL", (tmp_path / "nowhere").as_uri() + "/")
    file = NETWORKS["alex" if name == "lpips_alex" else "vgg"]
    path = tmp_path / "hub" / "checkpoints" / file
    with pytest.raises(InputError, match=f"{path}: is missing and cannot be downloaded"):
        image_metric(name, "cpu")
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=f"{path}: does not hold"):
        image_metric(name, "cpu")


@pytest.fixture
def sets(monkeypatch) -> SetMetrics:
    """With torch-fidelity's Inception, of random weights: its own are a download."""
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as module
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torch-fidelity cannot be used here: {error}")
    pytest.importorskip("torchmetrics")
    with monkeypatch.context() as during:
        during.setattr(module, "load_state_dict_from_url", lambda *args, **kwargs: {})
        during.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        metrics = SetMetrics(["fid", "kid"], ["samples", "nearest"], "cpu", 4)
    torch.manual_seed(0)
    for layer in metrics._inception.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return metrics


def test_images_are_resized_as_by_the_first_implementation(sets):
    """TensorFlow 1's bilinear interpolation: output pixel i lies at i * side / 299 of the input, no half pixels."""
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    seen = []
    sets._inception.Conv2d_1a_3x3.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    sets.add(images)
    place = torch.arange(299) * 64 / 299
    low = place.long()
    high, part = (low + 1).clamp(max=63), place - low
    rows = torch.lerp(images[:, :, low].float(), images[:, :, high].float(), part[:, None])
    expected = torch.lerp(rows[..., low], rows[..., high], part)
    torch.testing.assert_close(seen[0], (expected - 128) / 128, rtol=0, atol=1e-4)


def test_sets_of_images_are_compared_each_by_itself(sets):
    generator = torch.Generator().manual_seed(0)
    real, other = (torch.randint(0, high, (4, 3, 32, 32), generator=generator).byte() for high in (256, 128))
    calls = []
    sets._inception.register_forward_hook(lambda *_: calls.append(1))
    sets.add(real)
    sets.add(real, "samples")
    sets.add(other, "nearest")
    assert len(calls) == 3, "images are seen once for all sets and metrics"
    before = torch.get_rng_state()
    same, different = sets.compute("samples", 4), sets.compute("nearest", 4)
    assert same["fid"] == pytest.approx(0, abs=1e-3) and different["fid"] > same["fid"] + 1e-3
    assert different["kid"] > same["kid"] and sets.compute("nearest", 4) == different, "subsets are always the same"
    assert torch.equal(torch.get_rng_state(), before)
