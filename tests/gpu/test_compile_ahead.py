"""Before a recording, all kernels are compiled by a call in which none runs."""

import pytest
import torch.multiprocessing

from genvs import ops
from genvs.ops import NormSettings
from genvs.sampling.cuda_graphs import WARM_UP, Recorder
from tests.fused_checks import DEVICE, image, normal

pytestmark = pytest.mark.gpu


def record(rank: int) -> None:
    """Runs in a new process, which has compiled nothing."""
    import triton

    compiled, before_calls = [], []
    triton.knobs.compilation.listener = lambda *, src, **given: compiled.append(src.name)
    x, weight, bias = image(2, 64, 16, 16), normal(64), normal(64)
    leaves = [part.requires_grad_() for part in (x, weight, bias)]

    def step() -> list[torch.Tensor]:
        before_calls.append(len(compiled))
        y, _ = ops.group_norm_silu(x, weight, bias, NormSettings(groups=8, eps=1e-5))
        y = ops.conv_epilogue(ops.downsample(y), bias, scale=0.7)
        return [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))]

    recorder = Recorder(DEVICE)
    recorder.warm_up(step)
    results, graph = recorder.record(step)
    graph.replay()
    first, *others = before_calls
    assert first == 0 and others == [len(compiled)] * (WARM_UP + 1) and "downsample_kernel" in compiled
    torch.testing.assert_close(results, step())


def test_the_calls_after_it_compile_nothing_and_give_the_same_values(monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    torch.multiprocessing.spawn(record)
