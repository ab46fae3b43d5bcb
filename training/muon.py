"""Muon: steps of the same size in all directions of a weight matrix."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from genvs.models.precision import has_native_bf16
from genvs.sampling.cuda_graphs import CUDAGraphed
from training.adam import Adam

MOMENTUM = 0.95
ADAMS_SIZE = 0.2  # root mean square of Adam's usual updates, divided by the learning rate
SMALLEST_SIDE = 16  # of a matrix; Adam updates smaller ones
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Adam):
    """Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) for weight matrices, Adam for all other parameters.

    A convolution's matrix has a row for each output channel; its columns are in the order of memory. An update is as
    large as Adam's (Moonlight, arXiv 2502.16982, section 2.2), so both take the same learning rate.
    moments: of a matrix, its gradients' average alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, parameter in enumerate(self.parameters):
            rows = len(parameter) if parameter.ndim > 1 else 1
            columns = parameter.numel() // rows
            if min(rows, columns) >= SMALLEST_SIDE:
                alike[rows, columns].append(number)
        # All matrices lie in one tensor, those of one shape in a row, so that a GPU starts few kernels.
        self.shapes = [(len(group), *shape) for shape, group in alike.items()]
        device = self.parameters[0].device
        self.averages, self.updates = torch.zeros(2, sum(map(math.prod, self.shapes)), device=device)
        self.update_of: dict[nn.Parameter, Tensor] = {}  # views of `updates`
        start = 0
        for number in itertools.chain(*alike.values()):
            weight = self.parameters[number]
            average, self.update_of[weight] = (
                matrices[start:].as_strided(weight.shape, weight.stride()) for matrices in (self.averages, self.updates)
            )
            self.moments[number] = {"average": average}
            start += weight.numel()
        self._directions = CUDAGraphed(self.directions, device)

    @torch.no_grad()
    def step(self, lr: float, grad_scale: Tensor, skip: Tensor) -> None:
        """See `Adam.step`."""
        given = [(weight, weight.grad, update) for weight, update in self.update_of.items() if weight.grad is not None]
        if not given:
            return super().step(lr, grad_scale, skip)
        weights, gradients, updates = map(list, zip(*given, strict=True))
        self.updates.zero_()
        torch._foreach_copy_(updates, gradients)
        self.updates /= grad_scale
        averages = self.averages.lerp(self.updates, 1 - MOMENTUM)
        directions = self._directions(self.updates.lerp(averages, MOMENTUM))  # Nesterov's momentum
        # A gradient that is not finite must not reach what is kept, not even times 0.
        self.averages.copy_(torch.where(skip > 0, self.averages, averages))
        self.updates.copy_(torch.where(skip > 0, 0, lr * directions))
        torch._foreach_sub_(weights, updates)
        for weight in weights:
            weight.grad = None
        return super().step(lr, grad_scale, skip)

    def directions(self, gradients: Tensor) -> Tensor:
        """Updates at a learning rate of 1, from averaged gradients; both have all matrices in one tensor."""
        found = []
        for part, shape in zip(gradients.split([math.prod(shape) for shape in self.shapes]), self.shapes, strict=True):
            matrices, size = part.view(shape), ADAMS_SIZE * max(shape[1:]) ** 0.5
            wide = shape[1] <= shape[2]
            update = size * orthogonalized(matrices if wide else matrices.mT)
            found.append((update if wide else update.mT).flatten())
        return torch.cat(found)


OPTIMIZERS: dict[str, type[Adam]] = {"adam": Adam, "muon": Muon}


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
