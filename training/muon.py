"""Muon: steps of the same size in all directions of a weight matrix."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from training.adam import Adam

MOMENTUM = 0.95
ADAMS_SIZE = 0.2  # root mean square of the elements of an update of Adam's with the same learning rate
SMALLEST_SIDE = 16  # of a matrix; Adam updates smaller ones
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Adam):
    """Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) for weight matrices, Adam for all other parameters.

    A convolution's matrix has a row for each output channel. An update is as large as Adam's (Moonlight, arXiv
    2502.16982, section 2.2), so both take the same learning rate.
    moments: of a matrix, its gradients' average alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters)
        self._matrices: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, parameter in enumerate(self.parameters):
            if parameter.ndim > 1 and min(shape := (len(parameter), parameter[0].numel())) >= SMALLEST_SIDE:
                self._matrices[shape].append(number)
                self.moments[number] = {"average": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self, lr: float, grad_scale: Tensor, skip: Tensor) -> None:
        """See `Adam.step`."""
        for shape, numbers in self._matrices.items():
            all_of_shape = [(self.parameters[number], self.moments[number]["average"]) for number in numbers]
            learning = [(weight, average, weight.grad) for weight, average in all_of_shape if weight.grad is not None]
            if not learning:
                continue
            before = torch.stack([average.flatten(1) for _, average, _ in learning])
            gradients = torch.stack([gradient.flatten(1) for _, _, gradient in learning]) / grad_scale
            # A gradient that is not finite must not reach what is kept, not even times 0.
            after = torch.where(skip > 0, before, before.lerp(gradients, 1 - MOMENTUM))
            direction = orthogonalized(gradients.lerp(after, MOMENTUM))  # Nesterov's
            updates = torch.where(skip > 0, 0, lr * ADAMS_SIZE * max(shape) ** 0.5 * direction)
            for (weight, average, _), update, new in zip(learning, updates, after, strict=True):
                weight.sub_(update.view_as(weight))
                average.copy_(new.view_as(average))
                weight.grad = None
        super().step(lr, grad_scale, skip)


def orthogonalized(matrices: Tensor) -> Tensor:
    """U V^T of the singular value decompositions U S V^T of matrices `[N, rows, columns]`, nearly: by Newton-Schulz
    iterations, which leave singular values between 0.7 and 1.2. On a GPU in bf16.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalized(matrices.mT).mT
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    x = x.bfloat16() if x.is_cuda else x
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.float()
