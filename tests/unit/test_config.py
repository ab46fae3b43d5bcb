"""Configs: through JSON and back, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from genvs.config import PRESETS, DenoiserConfig, EncoderConfig, GeNVSConfig, RendererConfig, from_dict, scaled_to
from genvs.data.synthetic.__main__ import main as make_dataset
from genvs.errors import InputError
from training.config import TRAIN_PRESETS, TrainConfig, resumed
from training.loss import LossConfig


def through_json(config) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def refusal(function, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_models_configs_survive_json(preset):
    assert from_dict(GeNVSConfig, through_json(PRESETS[preset])) == PRESETS[preset]


@pytest.mark.parametrize("preset", list(TRAIN_PRESETS))
def test_training_configs_survive_json(preset):
    config = dataclasses.replace(
        TRAIN_PRESETS[preset], data="some/where", near=0.7, batch_gpu=4, loss=LossConfig(P_mean=-0.3), xflip=True
    )
    back = from_dict(TrainConfig, through_json(config))
    assert back == config
    assert isinstance(back.net.denoiser.channel_mult, tuple), "hashable, as configs are"
    assert back.net == PRESETS[preset] and back.preset == preset


def test_every_preset_of_the_model_has_a_recipe():
    assert PRESETS.keys() == TRAIN_PRESETS.keys()
    for config in TRAIN_PRESETS.values():
        assert config.net.resolution <= config.embedded.resolution
        assert config.rounds(world_size=1) == config.rounds(world_size=2) == 1


def test_srn128_is_the_paper():
    config = TRAIN_PRESETS["srn128"]
    net = config.net
    assert (net.encoder.volume_channels, net.encoder.volume_depth, net.encoder.volume_width) == (16, 64, 128)
    assert (net.renderer.num_samples, net.renderer.render_width, net.renderer.hidden_channels) == (64, 64, 64)
    assert net.denoiser.channel_mult == (1, 1, 2, 2, 2) and net.denoiser.model_channels == 128
    assert (config.loss.P_mean, config.loss.P_std, net.denoiser.sigma_data) == (-1.0, 1.4, 0.5)
    assert (config.loss.conditioning_dropout, config.loss.input_noise_probability) == (0.1, 0.5)
    assert (config.min_inputs, config.max_inputs, config.batch_size) == (1, 3, 96)


def test_the_readme_makes_the_dataset_that_srn128_trains_on():
    page = (Path(__file__).parents[2] / "README.md").read_text()
    command = next(line for line in page.splitlines() if "python -m genvs.data.synthetic" in line)
    made, embedded = make_dataset.make_context("", shlex.split(command)[3:]).params, TRAIN_PRESETS["srn128"].embedded
    assert str(made["out"]) == embedded.path and dataclasses.asdict(embedded).items() <= made.items()


@pytest.mark.parametrize("place", [(), ("encoder",), ("scene",)])
def test_unknown_settings_are_refused(place):
    data = through_json(PRESETS["srn128"])
    inner = data
    for name in place:
        inner = inner[name]
    inner["colour"] = 1
    assert "'colour'" in refusal(from_dict, GeNVSConfig, data)


def test_missing_settings_take_their_defaults():
    data = through_json(PRESETS["srn128"])
    del data["encoder"]["volume_depth"], data["renderer"]
    assert from_dict(GeNVSConfig, data) == PRESETS["srn128"]


@pytest.mark.parametrize("resolution", [0, -32, 16, 31, 33, 40, 272, 512])
def test_bad_resolutions_are_refused(resolution):
    assert f"--resolution={resolution}" in refusal(scaled_to, PRESETS["srn128"], resolution)


def test_a_unet_too_deep_for_the_resolution_is_refused():
    denoiser = DenoiserConfig(channel_mult=(1,) * 8)
    assert "multiple of 128" in refusal(dataclasses.replace, scaled_to(PRESETS["srn128"], 64), denoiser=denoiser)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ({"encoder": EncoderConfig(volume_width=100)}, "volume_width=100"),
        ({"renderer": RendererConfig(render_width=63)}, "render_width=63"),
        ({"denoiser": DenoiserConfig(model_channels=30)}, "--cbase=30"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(part, name):
    assert name in refusal(GeNVSConfig, **part)


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ({"duration_kimg": 0.0}, "--duration=0"),
        ({"duration_kimg": float("nan")}, "--duration=nan"),
        ({"duration_kimg": float("inf")}, "--duration=inf"),
        ({"batch_size": 0}, "--batch=0"),
        ({"batch_gpu": -4}, "--batch-gpu=-4"),
        ({"lr": -1e-4}, "--lr=-0.0001"),
        ({"kimg_per_tick": 0.0}, "--tick=0"),
        ({"snapshot_ticks": 0}, "--snap=0"),
        ({"state_ticks": -1}, "--dump=-1"),
        ({"log_kimg": 0.0}, "--log_freq=0"),
        ({"num_targets": 0}, "--targets=0"),
        ({"loss_scale": 0.0}, "--ls=0"),
        ({"min_inputs": 0}, "--views=0-3"),
        ({"min_inputs": 3, "max_inputs": 2}, "--views=3-2"),
        ({"workers": -1}, "--workers=-1"),
        ({"seed": -1}, "--seed=-1"),
        ({"near": 2.0, "far": 1.0}, "--near=2"),
        ({"near": -1.0, "far": 1.0}, "--near=-1"),
        ({"net": GeNVSConfig(denoiser=DenoiserConfig(dropout=1.0))}, "--dropout=1"),
        ({"net": GeNVSConfig(denoiser=DenoiserConfig(dropout=float("nan")))}, "--dropout=nan"),
    ],
)
def test_numbers_out_of_range_are_refused(setting, option):
    assert option in refusal(TrainConfig, **setting)


def test_a_batch_that_does_not_divide_comes_with_one_that_does():
    with pytest.raises(InputError, match="--batch=15 must be divisible by 2 processes: give 14"):
        TrainConfig(batch_size=15).rounds(world_size=2)
    with pytest.raises(InputError, match="--batch=3 must be divisible by 2 processes x --batch-gpu=4: give 8"):
        TrainConfig(batch_size=3, batch_gpu=4).rounds(world_size=2)


@pytest.mark.parametrize(
    ("duration_kimg", "batch_size", "total"),
    [(60.0, 32, 60000), (0.1, 32, 128), (0.128, 32, 128), (0.001, 96, 96), (4000.0, 96, 4000032), (1.0, 1, 1000)],
)
def test_the_total_is_rounded_up_to_whole_updates(duration_kimg, batch_size, total):
    assert TrainConfig(duration_kimg=duration_kimg, batch_size=batch_size).total_nimg == total


def test_a_whole_number_of_updates_is_met_exactly():
    """However the options' decimals round on their way from millions to images: 0.000072 * 1000 * 1000 > 72."""
    for updates in range(1, 1000):
        duration = float(f"{updates * 8 / 1e6:.6f}")
        assert TrainConfig(duration_kimg=duration * 1000, batch_size=8).total_nimg == updates * 8


@pytest.mark.parametrize(
    ("batch_size", "batch_gpu", "world_size", "rounds"),
    [(32, None, 1, 1), (32, None, 2, 1), (32, 8, 1, 4), (32, 8, 4, 1), (32, 4, 2, 4), (32, 32, 1, 1)],
)
def test_rounds(batch_size, batch_gpu, world_size, rounds):
    assert TrainConfig(batch_size=batch_size, batch_gpu=batch_gpu).rounds(world_size) == rounds


@pytest.mark.parametrize(
    ("batch_size", "batch_gpu", "world_size", "num_targets", "named"),
    [
        (32, None, 3, 1, ["--batch=32", "3 processes"]),
        (32, 5, 1, 1, ["--batch=32", "--batch-gpu=5"]),
        (32, 32, 2, 1, ["--batch=32", "2 processes", "--batch-gpu=32"]),
        (4, None, 8, 1, ["--batch=4", "8 processes"]),
        (30, None, 1, 4, ["--batch-gpu=30", "--targets=4"]),
        (32, 2, 1, 4, ["--batch-gpu=2", "--targets=4"]),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(batch_size, batch_gpu, world_size, num_targets, named):
    config = TrainConfig(batch_size=batch_size, batch_gpu=batch_gpu, num_targets=num_targets)
    message = refusal(config.rounds, world_size)
    assert all(name in message for name in named), message


def test_resuming_may_change_the_length_but_not_the_path():
    saved = TrainConfig(seed=3)
    changed = resumed(saved, {"duration_kimg": 9.0, "workers": 0, "batch_gpu": 8, "seed": 3})
    assert changed == dataclasses.replace(saved, duration_kimg=9.0, workers=0, batch_gpu=8)
    others = {"seed": 4, "lr": 1e-3, "batch_size": 48, "num_targets": 2, "data": "elsewhere"}
    for name, value in {**others, "grad_compression": "bf16"}.items():
        message = refusal(resumed, saved, {name: value})
        assert "--resume" in message and f"{name} {getattr(saved, name)} -> {value}" in message
    smaller = dataclasses.replace(saved.net, denoiser=dataclasses.replace(saved.net.denoiser, dropout=0.2))
    assert "(net.denoiser.dropout 0.13 -> 0.2)" in refusal(resumed, saved, {"net": smaller})
