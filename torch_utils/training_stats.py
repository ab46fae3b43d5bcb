"""Means and deviations of what training reports, over steps and ranks, without a device sync at each report."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed

from torch_utils import distributed


class Stat(NamedTuple):
    """Of all elements reported under one name since the last update: how many, their mean and population deviation."""

    num: int
    mean: float
    std: float


class Collector:
    """Accumulates scalars by name.

    collector = Collector(device)
    collector.report("Loss/loss", loss)      # each step: a number or a tensor of any shape, every element counts
    stats = collector.update()               # each tick, on every rank: {"Loss/loss": Stat(num, mean, std)}
    """

    def __init__(self, device: torch.device) -> None:
        """`device` is where this rank communicates: what `distributed.init` returned."""
        self._device = device
        self._moments: dict[tuple[str, torch.device], torch.Tensor] = {}

    @torch.no_grad()
    def report(self, name: str, value: torch.Tensor | float, mask: torch.Tensor | None = None) -> None:
        """Adds the elements of `value` (those where `mask`, of its shape, is true) to the statistics of `name`.

        Nothing waits for the device. Values that are not finite are counted like others, so that the mean shows them.
        """
        elements = torch.as_tensor(value).detach().to(torch.float64)
        included = torch.ones_like(elements) if mask is None else mask.to(elements)
        count = included.sum()
        if mask is not None:
            elements = torch.where(mask, elements, 0.0)
        moments = torch.stack([count, elements.sum(), elements.square().sum()])
        key = (name, elements.device)
        self._moments[key] = self._moments[key] + moments if key in self._moments else moments

    def update(self) -> dict[str, Stat]:
        """The statistics of everything reported since the last update, by name in order, equal on every rank.

        Every rank must call it; a name may be reported on some ranks only. Begins anew afterwards.
        """
        names = self._names_of_all_ranks()
        totals = torch.zeros(len(names), 3, dtype=torch.float64, device=self._device)
        for (name, _), moments in self._moments.items():
            totals[names.index(name)] += moments.to(self._device)
        self._moments.clear()
        distributed.all_reduce_sum(totals)
        stats = {}
        for name, (num, total, squares) in zip(names, totals.tolist(), strict=True):
            if num > 0:
                mean = total / num
                stats[name] = Stat(int(num), mean, max(squares / num - mean**2, 0.0) ** 0.5)
        return stats

    def _names_of_all_ranks(self) -> list[str]:
        names = [name for name, _ in self._moments]
        if distributed.is_initialized():
            of_ranks: list[list[str]] = [[] for _ in range(distributed.get_world_size())]
            torch.distributed.all_gather_object(of_ranks, names)
            names = [name for of_rank in of_ranks for name in of_rank]
        return sorted(set(names))
