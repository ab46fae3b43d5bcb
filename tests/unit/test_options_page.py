"""docs/options.md names every option, train.py takes all of the reference's, and help shows ranges that are there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[2]
# The reference's own list.
REFERENCE = """
outdir data cond arch precond duration batch batch-gpu cbase cres lr ema dropout augment xflip fp16 ls bench cache
workers log_freq desc nosubdir tick snap dump seed transfer resume dry-run notensorboard cam_weighting_method
only_train_cam_weighter
""".split()


def options_of(script: str) -> set[str]:
    command: click.Command = runpy.run_path(str(ROOT / script))["main"]
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")}


def test_every_option_of_the_reference_is_taken():
    assert len(REFERENCE) == 33
    assert {f"--{name}" for name in REFERENCE} <= options_of("train.py")


def test_the_page_names_every_option():
    named = set(re.findall(r"--[A-Za-z][\w-]*", (ROOT / "docs" / "options.md").read_text()))
    assert options_of("train.py") <= named
    assert {f"--{name}" for name in REFERENCE} <= named


@pytest.mark.parametrize("script", ["train.py", "inference/inference.py", "inference/evaluate.py"])
def test_help_shows_ranges_that_are_there(script):
    command: click.Command = runpy.run_path(str(ROOT / script))["main"]
    assert "None" not in command.get_help(click.Context(command))
