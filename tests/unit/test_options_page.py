"""docs/options.md names every option and lists every setting; train.py takes all options of the unofficial one."""

import dataclasses
import re
from pathlib import Path

import train
from genvs.settings import flat, set_by_path
from training.config import TRAIN_PRESETS

PAGE = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
UNOFFICIAL = """
outdir data cond arch precond duration batch batch-gpu cbase cres lr ema dropout augment xflip fp16 ls bench cache
workers log_freq desc nosubdir tick snap dump seed transfer resume dry-run notensorboard cam_weighting_method
only_train_cam_weighter
""".split()


def test_every_option_is_taken_and_named():
    options = {name for parameter in train.main.params for name in parameter.opts if name.startswith("--")}
    assert {f"--{name}" for name in UNOFFICIAL} <= options <= set(re.findall(r"--[A-Za-z][\w-]*", PAGE))


def test_the_page_lists_every_setting_with_its_value_in_srn128():
    block = PAGE[PAGE.index("    net.") : PAGE.index("`none` means")]
    listed = dict(word.split("=") for word in block.split())
    srn128 = TRAIN_PRESETS["srn128"]
    settings = {path for path in flat(dataclasses.asdict(srn128)) if not f"{path}=".startswith(train.DETERMINED)}
    assert listed.keys() == settings
    assert dataclasses.replace(set_by_path(TRAIN_PRESETS["cpu-demo"], listed), preset="srn128") == srn128
