"""Every fused kernel compiles for a GPU, because the interpreter accepts more than the compiler does."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton", reason="needs Triton: pip install -e .[test]")


def test_every_kernel_compiles_without_a_gpu(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.compile_kernels", "90"]
    # An empty cache, so that everything is compiled.
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    sources = [file.read_text() for file in (ROOT / "genvs/ops/triton_kernels").glob("*.py")]
    names = {part.split("(")[0] for source in sources for part in source.split("\ndef ")[1:]}
    assert set(done.stdout.split()) == {name for name in names if name.endswith("_kernel")}
