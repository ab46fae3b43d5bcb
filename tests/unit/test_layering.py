"""Who may import whom: walks every import of the project, those inside functions too, and fails on a wrong one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What each part of the project may import besides itself; a part covers what lies under it. A module outside all parts
# has no place yet, which is an error too: give it one here. The first part that covers a module counts.
_BASE = {"genvs.errors", "genvs.machine", "genvs.programs", "genvs.random", "genvs.files", "genvs.modalities"}
_VALUES = _BASE | {"genvs.config", "genvs.settings"}
_NETWORK = _VALUES | {"genvs.geometry", "genvs.ops", "genvs.diffusion"}
_SCRIPTS = {"genvs", "torch_utils", "dnnlib"}
MAY_IMPORT: dict[str, set[str]] = {
    "genvs.errors": set(),
    "genvs.random": set(),
    "genvs.machine": {"genvs.errors"},
    "genvs.requirements": set(),
    "genvs.programs": {"genvs.errors", "genvs.__version__"},
    "genvs.doctor": {"genvs"},
    "genvs.modalities": {"genvs.errors"},
    "genvs.files": {"genvs.errors"},
    "dnnlib": {"genvs.errors", "genvs.__version__"},
    "torch_utils": _BASE | {"dnnlib"},
    "genvs.settings": {"genvs.errors"},
    "genvs.config": _BASE | {"genvs.settings"},
    "genvs.geometry": _BASE,
    "genvs.ops": _BASE,
    "genvs.diffusion": _BASE,
    "genvs.visualize": _BASE,
    "genvs.metrics": _VALUES | {"genvs.geometry"},
    "genvs.data.validate": _VALUES | {"genvs.data", "genvs.visualize"},
    "genvs.data": _VALUES | {"genvs.geometry"},
    "genvs.models": _NETWORK,
    "genvs.compat": _NETWORK | {"genvs.models", "genvs.snapshot"},
    # A snapshot of the other implementation is recognised here, so that every program that takes one takes that too.
    "genvs.snapshot": _VALUES | {"genvs.models", "genvs.compat"},
    "genvs.hub": {"genvs.errors", "genvs.models", "genvs.snapshot"},
    "genvs.export": _VALUES | {"genvs.models", "genvs.snapshot", "genvs.hub"},
    "genvs.hub_model": {"genvs.models", "genvs.snapshot", "genvs.hub", "genvs.export"},
    "genvs.sampling": _NETWORK | {"genvs.data", "genvs.models", "genvs.snapshot", "genvs.visualize"},
    "training": _SCRIPTS,
    "inference": _SCRIPTS,
    "train": _SCRIPTS | {"training"},
    "benchmarks": _SCRIPTS | {"training", "inference"},
    "experiments": _SCRIPTS | {"training", "inference", "benchmarks"},
}
# `genvs/__init__.py` gathers the public names; unlike the parts it does not cover what lies under it.
GATHERS = {"genvs": {"genvs"}}
FIRST_PARTY = {name.partition(".")[0] for name in MAY_IMPORT} | {"tests"}


def covers(part: str, module: str) -> bool:
    return module == part or module.startswith(f"{part}.")


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that `source` imports; `from a import b` counts as `a.b`. None is relative."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, ast.unparse(node)
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def violations(source: str, module: str) -> list[str]:
    """One line for each import in `source`, the text of `module`, that the table does not allow."""
    part = next((part for part in MAY_IMPORT if covers(part, module)), None)
    if part is None and module not in GATHERS:
        return [f"{module} has no place in the table of who may import whom"]
    allowed = MAY_IMPORT[part] | {part} if part else GATHERS[module]
    return [
        f"{module}, line {line}: may not import {target}"
        for line, target in imports(source)
        if target.partition(".")[0] in FIRST_PARTY and not any(covers(other, target) for other in allowed)
    ]


def project_modules() -> dict[str, Path]:
    """Every module of the project but the tests: dotted name -> file."""
    packages = [init.parent for init in ROOT.glob("*/__init__.py")]
    files = [*ROOT.glob("*.py"), *(file for package in packages for file in package.rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def test_the_project_keeps_to_its_layers() -> None:
    modules = project_modules()
    assert {"dnnlib", "torch_utils", "genvs", "genvs.geometry"} <= modules.keys(), "the walk found too little"
    found = []
    for module, file in modules.items():
        found += violations(file.read_text(encoding="utf-8"), module)
    assert not found, "\n".join(found)


def test_the_library_knows_no_command_line() -> None:
    for module, file in project_modules().items():
        if covers("genvs", module):
            names = {target.partition(".")[0] for _, target in imports(file.read_text(encoding="utf-8"))}
            assert not names & {"click", "dnnlib", "torch_utils", "training", "inference"}, module


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("genvs.data.srn", "import numpy, genvs.models.unet as unet", "genvs.models.unet"),
        ("genvs.data.srn", "def late():\n    if True:\n        from genvs.models import GeNVS", "genvs.models.GeNVS"),
        ("training.loss", "from inference import writers", "inference.writers"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, target: str) -> None:
    line = source.count("\n") + 1
    assert violations(source, module) == [f"{module}, line {line}: may not import {target}"]
    assert violations("", "genvs.newcomer"), "it has no place"
