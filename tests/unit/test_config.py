"""Configs: through JSON and back, changed by path, what they refuse, and what a run of one can be expected to reach."""

import dataclasses
import functools
import json

import pytest

from genvs.config import (
    PRESETS,
    SIGMA_RANGES,
    DenoiserConfig,
    EncoderConfig,
    GeNVSConfig,
    RendererConfig,
    SceneConfig,
    config_of_snapshot,
)
from genvs.errors import InputError
from genvs.settings import as_text, flat, from_dict, set_by_path
from training.config import TRAIN_PRESETS, TrainConfig, resumed
from training.expected import MEASURED, expected_psnr
from training.loss import LossConfig

SRN128 = PRESETS["srn128"]


def through_json(config) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def refusal(function, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value) and "--" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_of_the_model_has_a_recipe_that_survives_json(preset):
    config = TRAIN_PRESETS[preset]
    assert config.net == PRESETS[preset] and config.net.resolution <= config.embedded.resolution
    assert config.rounds(world_size=1) == config.rounds(world_size=2) == 1
    back = from_dict(TrainConfig, through_json(config))
    assert back == config and hash(back) == hash(config)


def test_unknown_settings_in_a_file_are_refused():
    for place in ([], ["encoder"]):
        data = through_json(SRN128)
        functools.reduce(dict.__getitem__, place, data)["colour"] = 1
        assert "'colour'" in refusal(from_dict, GeNVSConfig, data)


# Invariants


@pytest.mark.parametrize(
    ("arch", "precond", "residual_encoder", "attention"),
    [("ddpmpp", "edm", True, (16,)), ("ncsnpp", "vp", True, (16,)), ("adm", "ve", False, (32, 16, 8))],
)
def test_an_architecture_and_a_preconditioning_bring_their_own_settings(arch, precond, residual_encoder, attention):
    config = DenoiserConfig(arch=arch, precond=precond)
    assert (config.residual_encoder, config.attention_resolutions) == (residual_encoder, attention)
    assert (config.sigma_min, config.sigma_max) == SIGMA_RANGES[precond]
    assert DenoiserConfig(arch=arch, attention_resolutions=(8,)).attention_resolutions == (8,)
    net = set_by_path(PRESETS["cpu-demo"], {"denoiser.arch": arch, "denoiser.precond": precond}).denoiser
    assert (net.sigma_min, net.sigma_max) == SIGMA_RANGES[precond]
    assert net.residual_encoder == (arch == "ncsnpp"), "cpu-demo is a DDPM++ without it"
    given = {"denoiser.arch": arch, "denoiser.attention_resolutions": "4"}
    assert set_by_path(SRN128, given).denoiser == DenoiserConfig(arch=arch, attention_resolutions=(4,))


REFUSED: dict[type, dict[str, list]] = {
    GeNVSConfig: {
        "encoder": [EncoderConfig(volume_width=100)],
        "renderer": [RendererConfig(render_width=63)],
        "denoiser": [DenoiserConfig(channel_mult=(1,) * 9)],
        "numerics": ["exact"],
        "view_weighting": ["nearness", "error_weighting_alpha=2"],
        "resolution": [0, -32, 16, 31, 33, 40, 272, 512],
    },
    SceneConfig: {"near": [2.0, -1.0], "focal": [float("nan")], "num_classes": [-1]},
    EncoderConfig: {"widths": [(8, 8, 0, 8)], "blocks": [(1, 1)], "volume_depth": [-1]},
    RendererConfig: {"num_samples": [0]},
    DenoiserConfig: {
        **{"model_channels": [30], "channel_mult": [()], "dropout": [1.0, float("nan")], "sigma_min": [90.0]},
        **{"arch": ["edm2"], "precond": ["iddpm"]},
    },
    LossConfig: {"conditioning_dropout": [7.0], "P_std": [-1.0], "P_mean": [float("inf")], "input_noise_max": [-0.5]},
    TrainConfig: {
        **{"max_grad_norm": [0.0], "ema_rampup_ratio": [-1.0], "duration_kimg": [float("inf"), 0.0], "batch_gpu": [-4]},
        **{"lr_rampup_kimg": [-1.0], "min_inputs": [0, 4], "workers": [-1], "seed": [2**63, -1], "near": [-1.0]},
        **{"grad_compression": ["fp8"], "convention": ["maya"], "only_train_cam_weighter": [True]},
    },
}


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in REFUSED.items() for name in names])
def test_values_out_of_range_are_refused(cls, name):
    named = {"encoder": "volume_width", "renderer": "render_width", "denoiser": "resolution"}.get(name, name)
    for value in REFUSED[cls][name]:
        assert f"`{named}`" in refusal(cls, **{name: value})


def test_settings_of_another_architecture_are_refused():
    assert "residual_encoder" in refusal(dataclasses.replace, SRN128.denoiser, arch="adm")
    assert "sigma_min" in refusal(dataclasses.replace, SRN128.denoiser, precond="ve")
    assert "`backbone`" in refusal(set_by_path, TrainConfig(), {"net.encoder.backbone": "vit"})


def test_dilation_rates_that_never_meet_the_map_are_read_but_not_trained():
    old = {**through_json(SRN128), "encoder": {**through_json(SRN128.encoder), "aspp_rates": [12, 24, 36]}}
    config = config_of_snapshot(old)
    assert config.encoder.aspp_rates == (12, 24, 36)
    assert "aspp_rates" in refusal(TrainConfig, net=config)
    TrainConfig(net=dataclasses.replace(config, numerics="unofficial"))
    for preset in PRESETS.values():
        for resolution in (32, 64, 128):
            TrainConfig(net=set_by_path(preset, {"resolution": resolution}))


@pytest.mark.parametrize(
    "path", ["renderer.importance_samples", "renderer.show_geometry", "denoiser.learned_weighting"]
)
def test_removed_settings_are_read_where_they_are_off(path):
    part, name = path.split(".")
    old = through_json(SRN128)
    old[part][name] = 0
    assert config_of_snapshot(old) == SRN128
    old[part][name] = 1
    assert f"`{name}`" in refusal(config_of_snapshot, old)


# Changes by path


def test_settings_are_changed_by_path_and_read_as_their_type():
    before = dataclasses.replace(TrainConfig(), near=0.5)
    for path, text, value in (
        ("loss.P_mean", "-5e-1", -0.5),
        ("bf16", "False", False),
        ("near", "none", None),
        ("batch_gpu", "8", 8),
        ("net.encoder.aspp_rates", "1,2", (1, 2)),
    ):
        after = flat(dataclasses.asdict(set_by_path(before, {path: text})))
        assert after == {**flat(dataclasses.asdict(before)), path: value} and type(after[path]) is type(value)
        assert set_by_path(before, {path: as_text(value)}) == set_by_path(before, {path: value})


WRONG = {
    "num_samples=96": ["num_samples", "net.renderer.num_samples"],
    "loss.P_maen=1": ["loss.P_maen", "loss.P_mean"],
    "net.renderer=96": ["net.renderer"],
    "net.renderer.num_samples=1.5": ["`net.renderer.num_samples`", "1.5", "whole number"],
    "bf16=perhaps": ["true or false"],
    "net.denoiser.channel_mult=1,x": ["channel_mult", "1,x", "1,2,2"],
    "batch_gpu=few": ["whole number", "none"],
    "lr=fast": ["`lr`", "fast", "number"],
    "lr=-1": ["`lr`", "-1"],
}


def test_wrong_paths_and_texts_are_refused():
    for setting, named in WRONG.items():
        message = refusal(set_by_path, TrainConfig(), dict([setting.split("=")]))
        assert all(name in message for name in named), message


def test_at_another_resolution_sizes_keep_their_share():
    config = set_by_path(TRAIN_PRESETS["srn128"], {"net.resolution": "64"})
    net = config.net
    assert (net.encoder.volume_width, net.renderer.render_width, net.denoiser.attention_resolutions) == (64, 32, (8,))
    assert net.encoder.aspp_rates == (1, 2, 3) and config.embedded.resolution == 64
    given = set_by_path(SRN128, {"resolution": 64, "encoder.volume_width": 32, "denoiser.arch": "adm"})
    assert given.encoder.volume_width == 32 and given.denoiser.attention_resolutions == (16, 8, 4)


# Lengths, batches and resuming


def test_the_total_is_rounded_up_to_whole_updates():
    lengths = [(60.0, 32, 60000), (0.1, 32, 128), (0.001, 96, 96), (4e-7, 96, 96), (4000.0, 96, 4000032)]
    # However decimals are rounded: 0.000072 million * 1000 * 1000 > 72.
    lengths += [(float(f"{updates * 8 / 1e6:.6f}") * 1000, 8, updates * 8) for updates in range(1, 1000)]
    for duration_kimg, batch_size, total in lengths:
        assert TrainConfig(duration_kimg=duration_kimg, batch_size=batch_size).total_nimg == total


def test_the_learning_rate_rises_and_falls():
    lengths = {"duration_kimg": 10.0, "batch_size": 100, "lr": 0.5, "lr_rampup_kimg": 2.0}
    config = TrainConfig(**lengths, lr_decay_kimg=4.0)
    found = {kimg: config.lr_at(1000 * kimg) for kimg in (0, 1, 2, 5, 6, 7, 9)}
    assert found == pytest.approx({0: 0.0, 1: 0.25, 2: 0.5, 5: 0.5, 6: 0.5, 7: 0.375, 9: 0.125})
    assert config.lr_at(9900) == pytest.approx(0.5 / 40), "of the last update"
    assert TrainConfig(**lengths).lr_at(9900) == 0.5
    short = TrainConfig(**{**lengths, "duration_kimg": 3.0}, lr_decay_kimg=4.0)
    assert max(short.lr_at(nimg) for nimg in range(0, 3000, 100)) == pytest.approx(0.25), "the lower one counts"


def test_the_parts_of_a_run_keep_their_shares_but_not_where_it_continues():
    config = TrainConfig(duration_kimg=10.0, low_resolution_kimg=6.0, lr_decay_kimg=2.0)
    for changed, parts in [
        (set_by_path(config, {"duration_kimg": 5.0}), (3.0, 1.0)),
        (set_by_path(config, {"duration_kimg": "5", "lr_decay_kimg": "2"}), (3.0, 2.0)),
        (resumed(config, {"duration_kimg": 20.0}), (6.0, 2.0)),
    ]:
        assert (changed.low_resolution_kimg, changed.lr_decay_kimg) == parts


@pytest.mark.parametrize(
    ("batch_size", "batch_gpu", "world_size", "named"),
    [
        (32, None, 3, ["`batch_size`=32", "by 3 (processes)", "give 30"]),
        (3, 4, 2, ["`batch_size`=3", "by 8 (processes x `batch_gpu`)", "give 8"]),
        (30, None, 1, ["30 images", "`batch_gpu`", "`num_targets`=4"]),
    ],
)
def test_batches_are_divided_among_processes_and_rounds(batch_size, batch_gpu, world_size, named):
    for of_gpu, processes, rounds in [(None, 1, 1), (8, 1, 4), (8, 4, 1), (4, 2, 4), (32, 1, 1)]:
        assert TrainConfig(batch_size=32, batch_gpu=of_gpu).rounds(processes) == rounds
    config = TrainConfig(batch_size=batch_size, batch_gpu=batch_gpu, num_targets=4 if batch_size == 30 else 1)
    message = refusal(config.rounds, world_size)
    assert all(name in message for name in named), message


def test_resuming_may_change_the_length_but_not_the_path():
    saved = TrainConfig(seed=3)
    new = {"duration_kimg": 9.0, "workers": 0, "batch_gpu": 8, "seed": 3, "data": "/moved/here"}
    assert resumed(saved, new) == dataclasses.replace(saved, **new)
    others = {"seed": 4, "lr": 1e-3, "batch_size": 48, "num_targets": 2, "grad_compression": "bf16"}
    for path, value in {**others, "net.denoiser.dropout": 0.2}.items():
        old = flat(dataclasses.asdict(saved))[path]
        assert f"({path} {old} -> {value})" in refusal(resumed, saved, {path: value})


def test_only_a_run_like_a_measured_one_gets_a_number():
    config = TRAIN_PRESETS["cpu-demo"]
    first, second, last = MEASURED["cpu-demo"].values()

    def expected(**changes) -> float | None:
        return expected_psnr(dataclasses.replace(config, **changes))

    assert expected() == expected(seed=3, batch_gpu=4, logger=None) == pytest.approx(last)
    assert first < expected(duration_kimg=9.0) < second
    for changes in ({"duration_kimg": 3.0}, {"duration_kimg": 20.0}, {"lr": 1e-3}, {"data": "cars"}, {"xflip": True}):
        assert expected(**changes) is None, changes
    assert expected_psnr(TRAIN_PRESETS["demo"]) == MEASURED["demo"][1650.0]
    assert expected_psnr(TRAIN_PRESETS["srn128"]) is None
