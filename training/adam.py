"""The optimizer."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980) by torch's fused kernel.

    torch.optim.Adam computes the same, but imports the compiler, which takes a second of every start and 140 MB.
    moments: for each parameter, the averages of its gradients and of their squares, and the number of its steps,
    float32 `[]`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.moments = [
            {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for p in self.parameters
        ]

    def step(self, lr: float, grad_scale: Tensor, skip: Tensor) -> None:
        """Divide gradients by `grad_scale`, update the weights, and forget the gradients.

        skip: float32 `[]`; if it is 1, nothing is updated and the step does not count. The host does not wait for it.
        """
        learning = [(p, p.grad, m) for p, m in zip(self.parameters, self.moments, strict=True) if p.grad is not None]
        if not learning:  # Muon updates all
            return
        parameters, gradients, moments = zip(*learning, strict=True)
        first, second, steps = ([each[name] for each in moments] for name in ("exp_avg", "exp_avg_sq", "step"))
        options: dict[str, Any] = {"amsgrad": False, "weight_decay": 0.0, "maximize": False, "fused": True}
        options |= {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "grad_scale": grad_scale, "found_inf": skip}
        with torch.no_grad():
            adam(list(parameters), list(gradients), first, second, [], steps, **options)
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"state": dict(enumerate(self.moments))}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Copies the moments, which on a CPU and a GPU lie in memory in different orders."""
        for number, moment in enumerate(self.moments):
            for name, tensor in moment.items():
                tensor.copy_(content["state"][number][name])
