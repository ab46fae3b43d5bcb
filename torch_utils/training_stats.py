"""Means of what training reports, over steps and ranks, without a device sync at each report."""

from __future__ import annotations

import torch

from torch_utils import distributed


class Collector:
    """Averages scalars by name.

    collector = Collector(device)
    collector.report("Loss/loss", loss)      # each step: a number or a tensor of any shape, every element counts
    means = collector.update()               # each tick, on every rank: {"Loss/loss": mean}
    """

    def __init__(self, device: torch.device) -> None:
        """device: what `distributed.init` returned."""
        self._device = device
        self._sums: dict[tuple[str, torch.device], torch.Tensor] = {}

    @torch.no_grad()
    def report(self, name: str, value: torch.Tensor | float, mask: torch.Tensor | None = None) -> None:
        """Adds the elements of `value` (where `mask`, of its shape, is true) to the mean of `name`, without waiting.

        Values that are not finite count like others, so that the mean shows them.
        """
        elements = torch.as_tensor(value).detach().to(torch.float64)
        included = torch.ones_like(elements) if mask is None else mask.to(elements)
        if mask is not None:
            elements = torch.where(mask, elements, 0.0)
        sums = torch.stack([included.sum(), elements.sum()])
        key = (name, elements.device)
        self._sums[key] = self._sums[key] + sums if key in self._sums else sums

    def update(self) -> dict[str, float]:
        """The means since the last update, sorted by name and equal on every rank. Every rank must call it.

        A name may be reported on some ranks only.
        """
        reported = distributed.gather_objects([name for name, _ in self._sums])
        names = sorted({name for of_rank in reported for name in of_rank})
        totals = torch.zeros(len(names), 2, dtype=torch.float64, device=self._device)
        for (name, _), sums in self._sums.items():
            totals[names.index(name)] += sums.to(self._device)
        self._sums.clear()
        counts_and_sums = distributed.all_reduce_sum(totals).tolist()
        return {name: total / count for name, (count, total) in zip(names, counts_and_sums, strict=True) if count > 0}
