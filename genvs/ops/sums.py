"""Sums over rows, of which the gradients of many parameters consist: one by one, or all at the end of a backward pass.

A GPU takes longer to start a small sum than to compute it, and a step has a thousand of them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# Sums that are still to be made: by its address the memory that stands for one, and the rows. Not a ContextVar, because
# on a GPU autograd runs a backward pass in a thread of its own.
_pending: dict[int, tuple[Tensor, Tensor]] | None = None


def sum_rows(rows: Tensor, parameter: Tensor) -> Tensor:
    """The gradient `[C]` of a parameter from its parts `[R, C]`. Within `sum_together` it is filled only at the end."""
    if _pending is None or not parameter.is_leaf or parameter.dtype != rows.dtype:
        return rows.sum(dim=0).to(parameter.dtype)
    place = rows.new_empty(rows.shape[1])
    _pending[place.data_ptr()] = place, rows
    return place


def sum_together(backward: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
    """The gradients that `backward` returns, those from `sum_rows` by one sum for each number of rows.

    A backward pass must return such a gradient as it is: of a parameter that it uses once.
    """
    global _pending
    pending: dict[int, tuple[Tensor, Tensor]] = {}
    _pending = pending
    try:
        gradients = list(backward())
    finally:
        _pending = None
    assert pending.keys() <= {gradient.data_ptr() for gradient in gradients}, "the backward pass works with an open sum"
    for count in {len(rows) for _, rows in pending.values()}:
        addresses, parts = zip(*((at, rows) for at, (_, rows) in pending.items() if len(rows) == count), strict=True)
        results = torch.cat(parts, dim=1).sum(dim=0).split([rows.shape[1] for rows in parts])
        by_address = dict(zip(addresses, results, strict=True))
        gradients = [by_address.get(gradient.data_ptr(), gradient) for gradient in gradients]
    return gradients
