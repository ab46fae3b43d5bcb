"""How images are sampled: guidance, fixed or fresh noise, churn; as an algorithm, and as options of the commands."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genvs.data.types import Views
from genvs.diffusion.samplers import sample_heun
from genvs.errors import InputError
from genvs.geometry import Cameras
from genvs.models import GeNVS
from genvs.sampling.fast_denoiser import FastDenoiser
from genvs.sampling.synthesis import synthesize_views
from inference.inference import main
from inference.options import described, load_guide, settle
from tests.small_model import SIZE, saved, small_net, some_cameras


@pytest.fixture(scope="module")
def inputs() -> Views:
    images = torch.rand(1, 2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Views(images, some_cameras(1, 2))


TARGETS = some_cameras(1, 3, seed=1)
TWICE = Cameras.cat([TARGETS, TARGETS], dim=1)


def draw(net: GeNVS, inputs: Views, targets: Cameras = TARGETS, **options) -> Tensor:
    views = synthesize_views(net, inputs, targets, **{"num_steps": 2, "progress": False, **options})
    return torch.stack([image for image, _ in views])


def test_the_steps_have_a_short_name():
    assert main.make_context("inference.py", ["--steps", "3"]).params["num_steps"] == 3


def test_fresh_noise_differs_between_views(net, inputs):
    fixed, fresh = (draw(net, inputs, TWICE, noise=noise) for noise in ("fixed", "fresh"))
    torch.testing.assert_close(fixed[:3], fixed[3:], rtol=1e-3, atol=1e-3)
    assert (fresh[:3] - fresh[3:]).abs().amax(dim=(1, 2, 3)).min() > 0.01
    in_pairs = draw(net, inputs, TWICE, noise="fresh", batch_size=2)
    torch.testing.assert_close(fresh, in_pairs, rtol=1e-3, atol=5e-3)
    assert (draw(net, inputs, TWICE, noise="fresh", seed=1) - fresh).abs().max() > 0.01
    in_turn = draw(net, inputs, noise="fresh", cond_method="autoreg")
    torch.testing.assert_close(in_turn[0], fresh[0], rtol=1e-3, atol=5e-3)
    with pytest.raises(InputError, match="`noise`=new.*fixed, fresh"):
        draw(net, inputs, noise="new")


def test_guidance_of_one_costs_nothing(net, inputs):
    calls = []
    hook = net.denoisers["rgb"].register_forward_hook(lambda _, args, __: calls.append(len(args[0])))
    plain, off = draw(net, inputs), draw(net, inputs, guidance=1.0)
    assert torch.equal(plain, off) and len(calls) == 2 * 2
    draw(net, inputs, guidance=2.0)
    hook.remove()
    assert len(calls) == 2 * 2 + 2 * 2, "twice as many"


@pytest.mark.parametrize(
    ("guidance", "guided", "cond_method"),
    [(0.0, False, "normal"), (3.0, False, "normal"), (2.0, True, "normal"), (2.0, True, "autoreg")],
)
def test_guidance_leads_away_from_the_worse_image(net, inputs, guidance, guided, cond_method):
    """That of a worse network, or of the network itself without conditioning."""
    worse = small_net(seed=1).requires_grad_(False) if guided else net
    guide = FastDenoiser(worse, bf16=False) if guided else None
    drawn = draw(net, inputs, num_steps=1, cond_method=cond_method, guidance=guidance, guide=guide)
    assert (drawn - draw(net, inputs, num_steps=1, cond_method=cond_method)).abs().max() > 0.01
    known, sigma = inputs, torch.tensor(net.config.denoiser.sigma_max)
    noise = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for index in range(2):
        camera = TARGETS[:, index : index + 1]
        says = []
        for one in (worse, net):
            feature_image = one.render(one.encode(known.images), known.cameras, camera)[0]
            shown = feature_image if guided or says else 0 * feature_image
            says.append(one.denoise(noise * sigma, sigma, shown))
        expected = (says[0] + guidance * (says[1] - says[0])).clamp(-1, 1)
        torch.testing.assert_close(drawn[index], expected[0], rtol=2e-3, atol=2e-3)
        if cond_method == "autoreg":
            known = Views.cat([known, Views(expected[None], camera)], dim=1)


def test_a_guide_of_another_size_is_refused(net, tmp_path):
    renderer = dataclasses.replace(net.config.renderer, render_width=16)
    config = dataclasses.replace(net.config, resolution=64, renderer=renderer)
    options = {"guide": saved(tmp_path / "other.pkl", GeNVS(config)), "bf16": True, "view_weighting": None}
    with pytest.raises(InputError, match="`guide`=.*other.pkl: draws 64 pixels a side, not 32"):
        load_guide(options, net, torch.device("cpu"), None)


def test_churn_is_that_of_the_stochastic_sampler(net, inputs):
    churned = {"sampler": "heun", "num_steps": 3, "seed": 4, "churn": 2.0}
    drawn = draw(net, inputs, **churned)
    assert torch.equal(drawn, draw(net, inputs, **churned))
    assert (drawn - draw(net, inputs, **churned | {"churn": 0.0})).abs().max() > 0.01
    shown = net.render(net.encode(inputs.images), inputs.cameras, TARGETS)[0]
    denoise = functools.partial(net.denoise, feature_image=shown)
    noise = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4)).expand(3, -1, -1, -1)
    rng = torch.Generator().manual_seed(4)
    expected = sample_heun(denoise, noise, num_steps=3, S_churn=2.0, rng=rng).clamp(-1, 1)
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-3)


USUAL = {"sampler": None, "num_steps": None, "guidance": 1.0, "noise": "fixed", "churn": 0.0, "guide": None}


def test_options_settle_and_name_results(net):
    assert settle({**USUAL, "seed": 3}, net) == {**USUAL, "sampler": "unipc", "num_steps": 12, "seed": 3}
    assert described(settle(USUAL, net)) == "steps=12"
    changed = {"sampler": "heun", "num_steps": 9, "guidance": 1.5, "noise": "fresh"}
    assert described(settle({**USUAL, **changed}, net)) == "steps=9_sampler=heun_guidance=1.5_noise=fresh"
    guided = settle({**USUAL, "guidance": 2.0, "guide": Path("run/network-snapshot-000007.pkl")}, net)
    assert described(guided) == "steps=12_guidance=2_guide=000007"


@pytest.mark.parametrize(("sampler", "num_steps", "noisy"), [("heun", 1, 0), ("heun", 4, 1), ("unipc", 2, 0)])
def test_steps_that_leave_noise_are_warned_of(net, capsys, sampler, num_steps, noisy):
    assert settle({**USUAL, "sampler": sampler, "num_steps": num_steps}, net)["num_steps"] == num_steps
    assert capsys.readouterr().err.count(f"Warning: --denoising_steps={num_steps}: ") == noisy
