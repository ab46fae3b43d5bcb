"""Muon: steps of the same size in all directions of a weight matrix."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genvs.models.precision import has_native_bf16
from training.adam import Adam

MOMENTUM = 0.95
ADAMS_SIZE = 0.2  # root mean square of the elements of an update of Adam's with the same learning rate
SMALLEST_SIDE = 16  # of a matrix; Adam updates smaller ones
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@dataclass
class Group:
    """Matrices that are updated at once, with zeros beside the narrower ones, so that a GPU starts fewer kernels.

    averages: of the gradients, `[N, rows, columns]`. sizes: of updates, `[N, 1, 1]`.
    """

    weights: list[nn.Parameter]
    averages: Tensor
    sizes: Tensor


class Muon(Adam):
    """Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) for weight matrices, Adam for all other parameters.

    A convolution's matrix has a row for each output channel. An update is as large as Adam's (Moonlight, arXiv
    2502.16982, section 2.2), so both take the same learning rate.
    moments: of a matrix, its gradients' average alone, in the form of `as_matrix`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, parameter in enumerate(self.parameters):
            if parameter.ndim > 1 and min(as_matrix(parameter).shape) >= SMALLEST_SIDE:
                rows, columns = as_matrix(parameter).shape
                alike[rows, 2 ** math.ceil(math.log2(columns))].append(number)
        self.groups = []
        for sides, numbers in alike.items():
            weights = [self.parameters[number] for number in numbers]
            device, widths = weights[0].device, [as_matrix(weight).shape[1] for weight in weights]
            averages = torch.zeros(len(numbers), *sides, device=device)
            sizes = ADAMS_SIZE * torch.tensor(widths, device=device)[:, None, None].sqrt()
            for number, average, width in zip(numbers, averages, widths, strict=True):
                self.moments[number] = {"average": average[:, :width]}
            self.groups.append(Group(weights, averages, sizes))

    @torch.no_grad()
    def step(self, lr: float, grad_scale: Tensor, skip: Tensor) -> None:
        """See `Adam.step`."""
        for group in self.groups:
            given = [(n, w, as_matrix(w.grad)) for n, w in enumerate(group.weights) if w.grad is not None]
            if not given:
                continue
            gradients = torch.zeros_like(group.averages)
            torch._foreach_copy_([gradients[n, :, : m.shape[1]] for n, _, m in given], [m for _, _, m in given])
            gradients /= grad_scale
            averages = group.averages.lerp(gradients, 1 - MOMENTUM)
            updates = lr * group.sizes * orthogonalized(gradients.lerp(averages, MOMENTUM))  # Nesterov's momentum
            # A gradient that is not finite must not reach what is kept, not even times 0.
            group.averages.copy_(torch.where(skip > 0, group.averages, averages))
            updates = torch.where(skip > 0, 0, updates)
            torch._foreach_sub_([w for _, w, _ in given], [as_weight(updates[n], w.shape) for n, w, _ in given])
            for weight in group.weights:
                weight.grad = None
        super().step(lr, grad_scale, skip)


def as_matrix(weight: Tensor) -> Tensor:
    """A weight `[out, in, ...]` as a matrix that is at least as wide as high, in the order in which GPUs store it."""
    matrix = weight.movedim(1, -1).flatten(1)
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def as_weight(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """The weight of this shape whose `as_matrix` are the first columns of `matrix`."""
    rows, columns = shape[0], math.prod(shape[1:])
    matrix = matrix[:, : max(rows, columns)]
    matrix = matrix if rows <= columns else matrix.mT
    return matrix.unflatten(1, (*shape[2:], shape[1])).movedim(-1, 1)


def orthogonalized(matrices: Tensor) -> Tensor:
    """U V^T of the singular value decompositions U S V^T of matrices `[N, rows, columns]`, nearly: by Newton-Schulz
    iterations, which leave most singular values between 0.7 and 1.2. They need the fewest operations for wide matrices.
    In bf16 where a GPU has it.
    """
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = x.bfloat16() if has_native_bf16(x.device) else x
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.float()
