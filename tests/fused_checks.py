"""Compares fused kernels with plain torch, and provides inputs. On a GPU where there is one."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genvs import ops
from genvs.geometry import frustum_matrix, generate_rays, interval_lengths, stratified_depths
from genvs.ops import FieldLayers, Known, RaySamples
from tests.small_model import some_cameras

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


WIDTH = 1024  # numbers before and after a tensor


def surrounded(x: Tensor, fill: float) -> tuple[Tensor, Tensor]:
    """An uninitialised tensor like `x`, and the memory in the middle of which it lies, full of `fill`."""
    memory = torch.full((x.numel() + 2 * WIDTH,), fill, dtype=x.dtype, device=x.device)
    return memory.as_strided(x.shape, x.stride(), WIDTH), memory


def among_nans(x: Tensor) -> Tensor:
    """A copy between NaNs, which appear in results if a kernel reads beyond its ends."""
    return surrounded(x, math.nan)[0].copy_(x)


class Surroundings(TorchDispatchMode):
    """Inside, new tensors are full of NaNs, which stay where nothing is written, and lie between large numbers.

    `check` fails if a kernel wrote beyond the ends of a tensor.
    """

    ZEROS = torch.ops.aten.zeros.default
    ALLOCATE = {
        torch.ops.aten.empty.memory_format,
        torch.ops.aten.empty_like.default,
        torch.ops.aten.new_empty.default,
        ZEROS,
    }
    LARGE = 2.0**15  # in float16 too

    def __init__(self) -> None:
        super().__init__()
        self.memories: list[Tensor] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function not in self.ALLOCATE or not result.is_floating_point():
            return result
        own, memory = surrounded(result, self.LARGE)
        self.memories.append(memory)
        return own.fill_(0.0 if function is self.ZEROS else math.nan)

    def check(self) -> None:
        for memory in self.memories:
            assert (memory[:WIDTH] == self.LARGE).all() and (memory[-WIDTH:] == self.LARGE).all()


def errors(function: Callable, *inputs: Tensor) -> list[tuple[torch.dtype, float]]:
    """Errors of `function`'s results and of their gradients for all inputs, against plain torch in float64.

    Returns the dtype and the relative error (in the norm) of each.
    """

    def outcome(inputs: list[Tensor], upstream: list[Tensor]) -> list[Tensor]:
        """Results and gradients. `upstream`: gradients of the results; if empty, it is filled with random ones."""
        results = function(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        if not upstream:
            noise = (normal(*result.shape, seed=100 + number) for number, result in enumerate(results))
            upstream += [among_nans(torch.empty_like(x).copy_(y)) for x, y in zip(results, noise, strict=True)]
        # In this thread, because dispatch modes are thread-local.
        with torch.autograd.set_multithreading_enabled(False):
            received = [gradient.to(x.dtype) for gradient, x in zip(upstream, results, strict=True)]
            return [x.detach() for x in (*results, *torch.autograd.grad(results, inputs, received))]

    surroundings, upstream = Surroundings(), []
    placed = [among_nans(x).requires_grad_() for x in inputs]
    with surroundings:
        ours = outcome(placed, upstream)
    surroundings.check()
    with ops.reference_only():
        exact = outcome([x.detach().double().requires_grad_() for x in placed], upstream)
    assert [x.shape for x in ours] == [x.shape for x in exact]
    return [(x.dtype, float((x - y).norm() / y.norm())) for x, y in zip(ours, exact, strict=True)]


def check(function: Callable, *inputs: Tensor) -> None:
    """`function` computes in float32 and rounds once to the precision of each result and gradient."""
    # Sums in another order, and a GPU's own exp; half of bfloat16's last place is 2^-9 to 2^-8 of a number.
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2**-8}
    found = errors(function, *inputs)
    assert all(error <= tolerance[dtype] for dtype, error in found), found


def normal(*shape: int, seed: int = 0, precision: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, precision)


def image(*shape: int, seed: int = 0, precision: torch.dtype = torch.float32) -> Tensor:
    """`[N, C, H, W]`, channels last."""
    return normal(*shape, seed=seed, precision=precision).contiguous(memory_format=torch.channels_last)


# Rendering


def some_rays(views: int, rays: int, samples: int = 3) -> list[Tensor]:
    """frusta, view_weights, origins, directions, depths and lengths, of 2 scenes and 2 targets: see `ops.render`.

    The rays go from the targets' cameras through the scene and far beyond it, past and behind the input views'. The
    first target of the first scene has no use for the first view.
    """
    generator = torch.Generator().manual_seed(views)
    inputs, targets = some_cameras(2, views), some_cameras(2, 2, seed=1)
    side = max(10, math.ceil(math.sqrt(rays)))
    origins, directions = (part.flatten(2, 3)[:, :, :rays] for part in generate_rays(targets, side, side))
    near, far = torch.full((2, 2, rays), 0.2), torch.full((2, 2, rays), 4.2)
    depths = stratified_depths(near, far, samples, torch.rand(2, 2, rays, samples, generator=generator))
    lengths = interval_lengths(depths, near, far) * directions.norm(dim=-1, keepdim=True)
    weights = torch.rand(2, 2, views, generator=generator)
    weights[0, 0, 0] = 0
    parts = (frustum_matrix(inputs), weights, origins, directions, depths, lengths)
    return [among_nans(part.contiguous().to(DEVICE)) for part in parts]


def some_volume(views: int, channels: int, precision: torch.dtype = torch.float32, size=(6, 7, 4)) -> Tensor:
    """`[B, V, C, D, H, W]`, H, W and D of `size`; in memory as the encoder leaves it: channels last."""
    return normal(2, views, *size, channels, precision=precision).permute(0, 1, 5, 4, 2, 3)


def some_places(number: int, depth: int, height: int, width: int) -> Tensor:
    """(u, v, w) `[N, D, H, W, 3]` in and around a volume, some on its very borders; in memory (N, H, W, D, 3)."""
    places = 1.4 * torch.rand(number, height, width, depth, 3, generator=torch.Generator().manual_seed(0)) - 0.2
    places[0, 0, 0, 0], places[-1, -1, -1, -1] = 0.0, 1.0
    return among_nans(places.to(DEVICE)).permute(0, 3, 1, 2, 4)


def some_field(channels: int, hidden: int, density: float = 0.0) -> list[Tensor]:
    """Weights and biases; `density` is the raw density's bias."""
    sizes = [(hidden, channels), (hidden,), (hidden, hidden), (hidden,), (1 + channels, hidden), (1 + channels,)]
    field = [normal(*size, seed=seed) / math.sqrt(size[-1]) for seed, size in enumerate(sizes)]
    field[-1][0] = density
    return field


def render(inputs: list[Tensor], volume: Tensor, *field: Tensor, **options) -> Tensor:
    """`ops.render`, at 10 * softplus(raw density - 2.5) as in the model. options: `elevations` and `known`."""
    frusta, view_weights, *rays = inputs
    return ops.render(volume, frusta, view_weights, RaySamples(*rays), FieldLayers(field, 10.0, -2.5), **options)


def some_known(first: int, rays: list[Tensor], count: int = 1) -> Known:
    """Values for channels, at the samples of `some_rays`."""
    return Known(first, among_nans(normal(*rays[-1].shape, count, seed=7)))
