"""docs/options.md names every option and lists every setting; train.py takes all options of the unofficial one."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import click
import pytest

from genvs.settings import set_by_path, types_of_settings
from training.config import TRAIN_PRESETS, TrainConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "options.md").read_text()
UNOFFICIAL = """
outdir data cond arch precond duration batch batch-gpu cbase cres lr ema dropout augment xflip fp16 ls bench cache
workers log_freq desc nosubdir tick snap dump seed transfer resume dry-run notensorboard cam_weighting_method
only_train_cam_weighter
""".split()


def options_of(script: str) -> set[str]:
    command: click.Command = runpy.run_path(str(ROOT / script))["main"]
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def test_every_option_is_taken_and_named():
    named = set(re.findall(r"--[A-Za-z][\w-]*", PAGE))
    assert {f"--{name}" for name in UNOFFICIAL} <= options_of("train.py") <= named


def test_the_page_lists_every_setting_with_its_value_in_srn128():
    listed = dict(
        re.findall(r"(?<=\s)([\w.]+)=([\w.,-]+)(?=\s)", PAGE[PAGE.index("    net.") : PAGE.index("`none` is no")])
    )
    follow = re.compile(r"preset|net\.scene\..*|net\.denoiser\.augment_labels")
    assert listed.keys() == {path for path in types_of_settings(TrainConfig) if not follow.fullmatch(path)}
    made = set_by_path(TRAIN_PRESETS["cpu-demo"], listed)
    assert dataclasses.replace(made, preset="srn128") == TRAIN_PRESETS["srn128"]


@pytest.mark.parametrize("script", ["train.py", "inference/inference.py", "inference/evaluate.py"])
def test_help_shows_ranges_that_are_there(script):
    command: click.Command = runpy.run_path(str(ROOT / script))["main"]
    assert "None" not in command.get_help(click.Context(command))
