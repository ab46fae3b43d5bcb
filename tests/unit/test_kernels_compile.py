"""Every fused kernel compiles for the GPUs it is made for: the interpreter takes more than the compiler does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton", reason="needs Triton: pip install -e .[test]")


def test_every_kernel_compiles_without_a_gpu(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.compile_kernels", "90"]
    # In a cache of its own, where nothing is compiled yet.
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    sources = [file.read_text() for file in (ROOT / "genvs/ops/triton_kernels").glob("*.py")]
    names = {part.split("(")[0] for source in sources for part in source.split("\ndef ")[1:]}
    assert set(done.stdout.split()) == {name for name in names if name.endswith("_kernel")}
