"""The fused kernels against plain torch: values, gradients, writes within their own memory; and which of both runs.

On a GPU the kernels are compiled; elsewhere they run in Triton's interpreter, which tests/conftest.py switches on.
"""

import importlib
import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from genvs import ops
from genvs.ops import NormSettings
from genvs.ops.sums import sum_together
from tests.fused_checks import DEVICE, check, image, normal, render, some_field, some_places, some_rays, some_volume

ON_GPU = DEVICE.type == "cuda"
# The interpreter of older releases fails with numpy >= 2.4.
pytest.importorskip("triton", minversion="3.6" if ON_GPU else "3.7", reason="needs Triton: pip install -e .[test]")
group_norm = importlib.import_module("genvs.ops.triton_kernels.group_norm")
epilogue = importlib.import_module("genvs.ops.triton_kernels.epilogue")

pytestmark = pytest.mark.usefixtures("kernels")
precisions = pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


# Normalisation

# Samples, channels, groups, height, width, and whether one program takes a group.
SIZES = [
    (2, 16, 4, 5, 5, True),
    (2, 48, 12, 8, 6, True),
    (1, 384, 32, 3, 3, True),  # groups of 12
    (2, 384, 1, 7, 7, False),  # several blocks of channels
    (2, 120, 5, 23, 23, False),  # more groups than a program takes, which are 4 of 24 channels
]
# Whether there is a shift, a SiLU, dropout; and whether a shortcut uses the input.
ALL, NOTHING = (True, True, 0.3, True), (False, False, 0.0, False)
SOME = [(True, False, 0.0, True), (False, True, 0.7, False), (True, True, 0.0, False), (False, False, 0.3, True)]


def check_norm(size: tuple, precision: torch.dtype, shift: bool, silu: bool, dropout: float, passed: bool) -> None:
    samples, channels, groups, height, width, one_program = size
    x = image(samples, channels, height, width, precision=precision) * 2 + 5
    assert group_norm._fits_one_program(x, groups) == one_program
    inputs = [x, normal(channels, seed=1), normal(channels, seed=2)]
    if shift:
        inputs.append(normal(samples, channels, seed=3, precision=precision))
    keys = torch.tensor([123456789012345, -987654321098765], device=DEVICE)[:samples]
    settings = NormSettings(groups, 1e-6, silu, dropout)

    def norm(x, weight, bias, shift=None):
        results = ops.group_norm_silu(x, weight, bias, settings, shift, keys)
        return results if passed else results[0]

    check(norm, *inputs)


@precisions
@pytest.mark.parametrize(
    ("size", "options"),
    [*itertools.product(SIZES, [ALL, NOTHING]), *itertools.product([SIZES[0], SIZES[3]], SOME)],
    ids=str,
)
def test_norm(size, options, precision):
    check_norm(size, precision, *options)


def test_norm_in_programs_that_sum_several_tiles(monkeypatch):
    """As with large images; the last program has fewer tiles."""
    monkeypatch.setattr(group_norm, "PROGRAMS", 8)
    check_norm(SIZES[4], torch.float32, *ALL)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # numpy's, in the interpreter
@pytest.mark.parametrize("size", [SIZES[0], SIZES[4]], ids=str)
def test_norm_where_the_exponential_of_its_results_overflows(size):
    samples, channels, groups, height, width, _ = size
    inputs = [image(samples, channels, height, width), 300 * normal(channels, seed=1), normal(channels, seed=2)]
    check(lambda x, weight, bias: ops.group_norm_silu(x, weight, bias, NormSettings(groups, 1e-6))[0], *inputs)


def test_gradients_pass_where_the_norm_is_not_used():
    x, weight, bias = image(2, 16, 4, 5).requires_grad_(), normal(16, seed=1), normal(16, seed=2)
    _, passed = ops.group_norm_silu(x, weight.requires_grad_(), bias.requires_grad_(), NormSettings(4, 1e-6))
    (gradient,) = torch.autograd.grad(passed.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))


# What follows a convolution, resampling, joining


@precisions
@pytest.mark.parametrize("channels", [16, 48, 384])
@pytest.mark.parametrize(
    ("residual", "scale", "relu"), [(False, 1.0, True), (True, 1.0, True), (True, 0.7, False), (True, 0.7, True)]
)
def test_epilogue(channels, residual, scale, relu, precision):
    x, other = (image(2, channels, 5, 7, seed=seed, precision=precision) for seed in (0, 1))
    inputs = [x, normal(channels, seed=2), *([other] if residual else [])]
    check(lambda x, bias, r=None: ops.conv_epilogue(x, bias, residual=r, scale=scale, relu=relu), *inputs)
    if residual:
        options = {"scale": scale, "relu": relu}
        biases = (inputs[1], normal(channels, seed=3))
        check(lambda x, r, *b: ops.conv_epilogue(x, b[0], residual=r, residual_bias=b[1], **options), x, other, *biases)


def test_epilogue_in_programs_that_sum_several_tiles(monkeypatch):
    monkeypatch.setattr(epilogue, "PROGRAMS", 4)
    x, bias = image(2, 48, 15, 17), normal(48, seed=1)
    check(lambda x, bias: ops.conv_epilogue(x, bias, relu=True), x, bias)


def test_epilogue_does_not_hide_what_is_not_a_number():
    x = image(1, 16, 2, 2)
    x[0, 3, 1, 0] = math.nan
    assert ops.conv_epilogue(x, normal(16), relu=True).isnan().nonzero().tolist() == [[0, 3, 1, 0]]


def test_gradients_of_many_parameters_are_summed_together():
    """Of norms and of biases, two of them of one layer. A sum with which the backward pass would work is refused."""
    x, other = image(2, 48, 15, 17).requires_grad_(), image(2, 48, 5, 3, seed=1).requires_grad_()
    weight, bias, *biases = (normal(48, seed=seed).requires_grad_() for seed in range(2, 7))
    settings = NormSettings(4, 1e-6)

    def gradients(shared: bool = False) -> list[Tensor]:
        y = ops.conv_epilogue(x, biases[0], residual=x, residual_bias=biases[1], relu=True)
        normed = ops.group_norm_silu(y, weight, bias, settings)[0]
        small = ops.conv_epilogue(other, biases[0] if shared else biases[2] * 2, scale=0.5)
        total = normed.square().sum() + (small * other).sum()
        return list(torch.autograd.grad(total, [x, other, weight, bias, *biases[: 2 if shared else 3]]))

    separate, together = gradients(), sum_together(gradients)
    assert len({gradient.data_ptr() for gradient in together}) == len(together) - 1, "two biases share one"
    for ours, expected in zip(together, separate, strict=True):
        assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(AssertionError, match="open sum"):
        sum_together(lambda: gradients(shared=True))
    assert_close(gradients(), separate, rtol=0, atol=0)


@precisions
@pytest.mark.parametrize("resample", [ops.upsample, ops.downsample])
@pytest.mark.parametrize("size", [(2, 16, 6, 10), (1, 48, 2, 14), (3, 200, 4, 2)], ids=str)
def test_resampling(size, resample, precision):
    check(resample, image(*size, precision=precision))


@precisions
@pytest.mark.parametrize("sizes", [(24, 40), (3, 5), (7, 1, 130)], ids=str)
def test_joining(sizes, precision):
    for height, width in ((5, 7), (1, 1)):
        check(ops.concat, *(image(2, size, height, width, seed=size, precision=precision) for size in sizes))


@pytest.mark.parametrize("most_in_group", [group_norm.MOST_IN_GROUP, 0], ids=["one program", "tiled"])
def test_inputs_of_any_layout(monkeypatch, most_in_group):
    """Channels first, a part of a larger tensor, and one expanded over all samples."""
    monkeypatch.setattr(group_norm, "MOST_IN_GROUP", most_in_group)
    first, part = normal(2, 12, 6, 8), image(2, 12, 9, 8, seed=1)[:, :, 1:7]
    repeated = normal(1, 12, 6, 8, seed=2).expand(2, -1, -1, -1)
    weight, bias = normal(12, seed=3), normal(12, seed=4)
    shifts = [normal(12, 2, seed=5).T, normal(2, 30, seed=6)[:, 7:19], normal(1, 12, seed=7).expand(2, -1)]

    def operations(x: Tensor, residual: Tensor) -> list[Tensor]:
        return [
            *(ops.group_norm_silu(x, weight, bias, NormSettings(3, 1e-6), shift)[0] for shift in shifts),
            ops.conv_epilogue(x, bias, residual=residual),
            ops.downsample(x),
            ops.upsample(x),
            ops.concat(x, residual),
        ]

    for x, residual in ((first, part), (part, repeated), (repeated, first)):
        ours = operations(x, residual)
        with ops.reference_only():
            assert_close(ours, operations(x, residual), rtol=1e-5, atol=1e-5)


# Volumes at other places


@precisions
@pytest.mark.parametrize(("channels", "size"), [(16, (6, 7, 4)), (32, (3, 5, 9)), (16, (1, 1, 1))])
def test_volumes_at_other_places(channels, size, precision):
    height, width, depth = size
    volume, places = some_volume(1, channels, precision, size)[:, 0], some_places(2, depth, height, width)
    check(lambda volume: ops.resample_volume(volume, places), volume)
    in_memory = ops.resample_volume(volume, places).permute(0, 3, 4, 2, 1)
    assert in_memory.is_contiguous() and in_memory.dtype == precision


def test_volumes_and_gradients_of_any_layout_at_places_of_any_layout():
    """Channels first; and places of one volume, expanded over all."""
    volume, places = (
        some_volume(1, 16)[:, 0].contiguous(),
        some_places(1, 4, 6, 7).contiguous().expand(2, -1, -1, -1, -1),
    )
    check(lambda volume: 2 * ops.resample_volume(volume, places).contiguous(), volume)


# Which of the two runs


def test_within_reference_only_plain_torch_runs(calls):
    x, ones, field = image(1, 4, 2, 2), torch.ones(4, device=DEVICE), some_field(16, 32)

    def all_operations() -> None:
        render(some_rays(1, 4), some_volume(1, 16), *field)
        ops.group_norm_silu(x, ones, ones, NormSettings(1, 1e-6))
        ops.conv_epilogue(x, ones)
        ops.downsample(x), ops.upsample(x), ops.concat(x, x)
        ops.resample_volume(some_volume(1, 16)[:, 0], some_places(2, 4, 6, 7))

    all_operations()
    assert calls == []
    with ops.reference_only():
        all_operations()
    assert calls == [
        "render",
        "group_norm_silu",
        "conv_epilogue",
        "downsample",
        "upsample",
        "concat",
        "resample_volume",
    ]


def test_numbers_of_channels_that_the_kernel_does_not_support_are_resampled_by_plain_torch(calls):
    ops.resample_volume(some_volume(1, 12)[:, 0], some_places(2, 4, 6, 7))
    assert calls == ["resample_volume"]


def test_where_places_need_gradients_plain_torch_resamples(calls):
    places = some_places(2, 4, 6, 7).requires_grad_()
    resampled = ops.resample_volume(some_volume(1, 16)[:, 0], places)
    assert calls == ["resample_volume"] and torch.autograd.grad(resampled.sum(), places)[0].abs().max() > 0
