"""Fused kernels compile for a GPU that is absent: every one, because the interpreter accepts more than the compiler
does; and ahead of their use.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton", reason="needs Triton: pip install -e .[test]")


def output(tmp_path: Path, *command: str) -> str:
    """What a module prints, outside Triton's interpreter, and with an empty cache, so that everything is compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


def test_every_kernel_compiles_without_a_gpu(tmp_path):
    compiled = output(tmp_path, "tests.compile_kernels", "90")
    sources = [file.read_text() for file in (ROOT / "genvs/ops/triton_kernels").glob("*.py")]
    names = {part.split("(")[0] for source in sources for part in source.split("\ndef ")[1:]}
    assert set(compiled.split()) == {name for name in names if name.endswith("_kernel")}


def test_kernels_are_compiled_ahead(tmp_path):
    output(tmp_path, "tests.compile_ahead")
