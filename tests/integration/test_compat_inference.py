"""Snapshots of the unofficial implementation in inference, conversion and training."""

import dataclasses
import functools
import json
from pathlib import Path

import pytest
import torch

import genvs
from genvs.compat import UnofficialGeNVS
from genvs.config import PRESETS, UNOFFICIAL, GeNVSConfig
from genvs.data.types import Views
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.sampling.synthesis import synthesize_views
from genvs.snapshot import build_net, main
from tests.host_waits import host_waits
from tests.programs import exit_code_of
from tests.published import published_config, published_weights, write_snapshot
from tests.small_model import SIZE, some_batch, some_cameras
from tests.small_training import fresh_state, small_run, train
from train import main as train_program
from training.loss import GeNVSLoss, LossConfig
from training.run_folder import find_resume_state


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_snapshot(tmp_path_factory.mktemp("theirs") / "network-snapshot-004000.pkl", published_weights())


convert = functools.partial(exit_code_of, functools.partial(main, halve=False))


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "network-snapshot-004000.pkl"
    assert convert(published, path) == 0
    return path


def some_views() -> tuple[Views, Cameras]:
    """Two input views and three targets."""
    images = torch.rand(1, 2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return Views(images, some_cameras(1, 2)), some_cameras(1, 3, seed=5)


def test_views_are_drawn_with_its_numerics(published):
    """They equal those of the model's parts, and differ from those of our numerics with the same weights."""
    net, (inputs, targets) = genvs.load_snapshot(published), some_views()
    drawn, *_ = synthesize_views(net, inputs, targets, num_steps=1, progress=False)
    ours = GeNVS(dataclasses.replace(net.config, numerics="genvs")).eval()
    ours.load_state_dict(net.state_dict())
    with torch.no_grad():
        noise = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        shown = (each.render(each.encode(inputs.images), inputs.cameras, targets) for each in (net, ours))
        features, of_ours = (images[0, :1] for images in shown)
        image = net.denoise(80 * noise, torch.tensor(80.0), features).clamp(-1, 1)[0]
    torch.testing.assert_close(drawn[0], image)
    torch.testing.assert_close(drawn[1], features[0])
    assert (of_ours - features).norm() > 0.1 * features.norm() > 0


def test_guidance_leads_away_from_one_noise_of_the_seed(published):
    """In training too, such noise replaces feature images that are dropped."""
    net, views = genvs.load_snapshot(published), some_views()

    def unconditioned(**options) -> torch.Tensor:
        seen = []
        hook = net.denoisers["rgb"].register_forward_hook(lambda _, given, __: seen.append(given[2]))
        list(synthesize_views(net, *views, num_steps=2, guidance=2.0, progress=False, **options))
        hook.remove()
        return torch.cat(seen[::2])

    noise = unconditioned()
    assert noise.shape[1:] == (net.config.encoder.volume_channels, SIZE, SIZE) and (noise == noise[0]).all()
    assert abs(noise[0].mean()) < 0.05 and abs(noise[0].std() - 1) < 0.05
    assert (unconditioned(batch_size=1) == noise[0]).all()
    assert abs((unconditioned(seed=1)[0] * noise[0]).mean()) < 0.05


@pytest.mark.parametrize("numerics", ["genvs", UNOFFICIAL])
def test_training_leaves_conditioning_out_as_guidance_does(numerics):
    net = build_net(dataclasses.replace(published_config(), numerics=numerics))
    seen = []
    net.denoisers["rgb"].register_forward_hook(lambda _, given, __: seen.append(given[2]))
    features = torch.randn(2, 2, net.config.encoder.volume_channels, SIZE, SIZE)
    noisy, keys = torch.zeros(2, 2, 3, SIZE, SIZE), torch.arange(4).view(2, 2)
    keep = torch.tensor([[True, False], [False, True]])
    net.denoise_targets(features, noisy, torch.ones(2, 2, 1, 1, 1), keep, keys)
    shown, without = seen[0].view_as(features), net.without_conditioning(features, keys)
    assert torch.equal(shown[keep], features[keep]) and torch.equal(shown[~keep], without[~keep])
    deviation = float(numerics == UNOFFICIAL)
    assert all(abs(one.std() - deviation) < 0.05 for one in without.flatten(0, 1))
    assert torch.equal(without[0, 1], without[1, 0]) == (deviation == 0), "each sample has its own"


def test_a_converted_snapshot_is_one_of_ours_with_the_same_numbers(published, converted, tmp_path, capsys):
    content = torch.load(converted, weights_only=True)
    assert content["format"] == "GeNVS snapshot" and content["notes"] == {"converted_from": published.name}
    theirs, ours = genvs.load_snapshot(published), genvs.load_snapshot(converted)
    assert type(ours) is UnofficialGeNVS and ours.config == theirs.config == published_config()
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in theirs.state_dict().items())
    assert convert(published, tmp_path / "net.pkl", "--near", 2.5, "--far", 5.5) == 0
    assert convert(published, tmp_path / "net.pkl") == 2 and "exists" in capsys.readouterr().err
    scene = genvs.load_snapshot(tmp_path / "net.pkl").config.scene
    assert (scene.near, scene.far) == (2.5, 5.5)


def test_training_starts_from_it(published, cars, tmp_path, monkeypatch, capsys):
    """The run's network has the file's numerics and sizes."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--preset", "cpu-demo", "--data", cars, "--targets", 2, "--transfer", published, "--dry-run"]
    assert exit_code_of(train_program, *arguments) == 0
    output, _ = capsys.readouterr()
    options = json.loads(output[: output.rindex("}") + 1])
    assert options["net"] == json.loads(json.dumps(dataclasses.asdict(published_config())))
    assert options["loss"]["rgb_weight"] == 0, "its feature images hold no colours"
    assert options["ema_rampup_ratio"] is None, "the unofficial EMA has no ramp-up"


def test_training_goes_on_from_it_and_resumes(converted, cars, tmp_path):
    config = small_run(cars, 2, net=published_config(), transfer=str(converted), min_inputs=2, max_inputs=2)
    start, source = fresh_state(config), genvs.load_snapshot(converted).state_dict()
    assert type(start.net) is type(start.ema) is UnofficialGeNVS
    assert all(torch.equal(tensor, source[name]) for name, tensor in start.net.state_dict().items())
    content = train(config, tmp_path)
    changed = {name for name, tensor in content["net"].items() if not torch.equal(tensor, source[name])}
    assert {name.partition(".")[0] for name in changed} == {"encoders", "renderer", "denoisers"}
    frozen = {name for name, parameter in start.net.named_parameters() if not parameter.requires_grad}
    assert frozen.isdisjoint(changed) and not content["net"]["encoders.rgb.to_volume.weight"][:, -3:].any()
    resumed = find_resume_state(str(tmp_path), "")[1]["config"]
    longer = dataclasses.replace(resumed, duration_kimg=0.024, transfer=None)
    assert train(longer, tmp_path / "on", content)["cur_nimg"] == 24
    (snapshot,) = (tmp_path / "on").glob("network-snapshot-*.pkl")
    assert type(genvs.load_snapshot(snapshot)) is UnofficialGeNVS


def test_45_biases_are_not_trained_at_the_published_size():
    with torch.device("meta"):
        net = UnofficialGeNVS(dataclasses.replace(PRESETS["srn128"], numerics=UNOFFICIAL))
    assert sum(not parameter.requires_grad for parameter in net.parameters()) == 45


def test_samples_along_rays_are_jittered_in_training_alone(published):
    renderer, cameras = genvs.load_snapshot(published).renderer, some_cameras(1, 1)
    still, moved = renderer.depths(cameras, 16, None), renderer.depths(cameras, 16, torch.tensor([[7]]))
    assert torch.equal(still[0, 0, 0, [0, -1]], torch.cat([cameras.near[0], cameras.far[0]]))
    assert torch.equal(moved[..., [0, -1]], still[..., [0, -1]])
    assert ((moved - still).abs() <= still.diff(dim=-1)[..., :1] / 2).all() and not torch.equal(moved, still)


def test_a_training_step_reads_nothing_back(published):
    """Otherwise CUDA graphs could not record it."""
    net = genvs.load_snapshot(published).requires_grad_(True)
    loss_fn = GeNVSLoss(LossConfig(rgb_weight=0.0), GeNVSConfig(), 0)
    batch = some_batch(2)
    with host_waits() as found:
        loss_fn(net, batch).total.backward()
    assert found == []
