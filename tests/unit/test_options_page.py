"""docs/options.md names every option that there is, and train.py takes every option that the reference's does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import click

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
