"""Every program: its help, its version, how it reads the names of options; and the page of train.py's options."""

import dataclasses
import importlib
import re
import sys

import click
import pytest

import genvs
import train
from dnnlib.command import Command, run_command
from genvs.errors import InputError
from genvs.programs import Parser, name_list, whole
from genvs.settings import flat, set_by_path
from tests.conftest import ROOT
from training.config import TRAIN_PRESETS

PROGRAMS = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for folder in ("genvs", "inference", "benchmarks", "examples", "experiments", ".")
    for file in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py")
    if file.name != "requirements.py"  # dnnlib/environment.sh runs it
    and re.search(r'^if __name__ == "__main__":$|^@(common\.)?benchmark$', file.read_text(), re.MULTILINE)
)


def printed(program: str, option: str, capsys, monkeypatch) -> str:
    """What a program prints for an option with which it ends."""
    monkeypatch.setattr(sys, "argv", [program, option])
    monkeypatch.setenv("COLUMNS", "200")  # a wide terminal
    package = importlib.util.find_spec(program)
    assert package is not None
    main = importlib.import_module(f"{program}.__main__" if package.submodule_search_locations else program).main
    with pytest.raises(SystemExit) as end:
        if isinstance(main, click.Command):
            assert isinstance(main, Command)
            run_command(main, [option])
        main()
    assert end.value.code == 0
    return capsys.readouterr().out


def test_all_programs_are_found() -> None:
    assert {"train", "inference.evaluate", "genvs.doctor", "genvs.data.mesh", "benchmarks.sample"} <= {*PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_grouped_and_fits_80_columns(program: str, capsys, monkeypatch) -> None:
    text = printed(program, "--help", capsys, monkeypatch)
    assert max(map(len, text.splitlines())) <= 80, text
    sections = dict(re.findall(r"^([A-Za-z ]+):\n((?:  .*\n|\n(?=  ))+)", text, re.MULTILINE))
    general = sections.pop("Other" if "Other" in sections else "options")
    assert set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", general, re.MULTILINE)) == {"--help", "--version"}
    for title, section in sections.items():
        entries = re.split(r"\n(?=  \S)", section.rstrip("\n"))
        for entry in entries:
            assert re.search(r"  \S.*(  |\n +)\S", entry), f"{program}, {title}: {entry} has no help"
            assert "[BOOL]" not in entry or re.search(r"\[default:\s+(true|false|\(.*\))\]", entry), entry


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_without_docstrings(program: str, capsys, monkeypatch) -> None:
    """PYTHONOPTIMIZE=2 removes them."""
    monkeypatch.setattr(importlib.import_module(program), "__doc__", None)
    assert "--version" in printed(program, "--help", capsys, monkeypatch)


def test_the_version_is_that_of_the_package(capsys, monkeypatch) -> None:
    for program in ("train", "inference.inference", "genvs.data.validate"):
        assert printed(program, "--version", capsys, monkeypatch) == f"{genvs.__version__}\n"


def parser() -> Parser:
    made = Parser("program", "")
    group = made.add_argument_group("group")
    group.add_argument("--test-views", type=whole(1, 9), default=3)
    group.add_argument("--out-names", type=name_list, default="a,b")
    return made


def test_hyphens_and_underscores_are_alike() -> None:
    for name in ("--test-views", "--test_views", "--test_v"):
        for words in ([name, "4"], [f"{name}=4"]):
            assert parser().parse_args(words).test_views == 4
    assert parser().parse_args(["--out-names", "x_y,z"]).out_names == ["x_y", "z"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--test-veiws=4"], "no such option: --test-veiws: did you mean --test-views?"),
        (["--something"], "no such option: --something (--help"),
        (["--test-views", "0"], "give a whole number from 1 to 9"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: list[str], line: str) -> None:
    with pytest.raises(InputError) as refused:
        parser().parse_args(words)
    assert line in str(refused.value) and "\n" not in str(refused.value)


# The docs

COMMAND = re.compile(r"(?:python -m ([\w.]+)|\b(train|inference|evaluate|viewer)\.sh)((?: +[^\s`|#]+)*)")
PASS_ON = {"benchmarks.e2e", "benchmarks.quality", "experiments.few_steps"}  # options of other programs


def test_the_docs_name_options_that_there_are(capsys, monkeypatch) -> None:
    found = set()
    for page in (*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")):
        for module, script, words in COMMAND.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            program = module or ("train" if script == "train" else f"inference.{script}")
            options = {(program, option) for option in re.findall(r" (--[\w-]+)", words)}
            found |= options if program in {*PROGRAMS} - PASS_ON else set()
    assert len(found) > 50
    for program in sorted({program for program, _ in found}):
        known = {
            name.replace("_", "-") for name in re.findall(r"--[\w-]+", printed(program, "--help", capsys, monkeypatch))
        }
        assert {option.replace("_", "-") for name, option in found if name == program} <= known, program


# docs/options.md


PAGE = (ROOT / "docs" / "options.md").read_text()
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
