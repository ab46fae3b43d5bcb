"""The order of training data, when gradients are synchronised, and whether ranks still agree."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from genvs.random import Stream, numpy_generator
from torch_utils import distributed


class InfiniteSampler(torch.utils.data.Sampler[tuple[int, int]]):
    """Endless pairs (item, position): positions count up from start_idx, items are in [0, num_items).

    The item at a position is a function of (seed, position) alone. Every `num_items` positions are a new permutation.
    """

    def __init__(self, num_items: int, *, seed: int, start_idx: int = 0) -> None:
        self.num_items, self.seed, self.start_idx = num_items, seed, start_idx

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, offset = divmod(self.start_idx, self.num_items)
        while True:
            order = numpy_generator(Stream.SCENE_ORDER, self.seed, epoch).permutation(self.num_items)
            for index in range(offset, self.num_items):
                yield int(order[index]), epoch * self.num_items + index
            epoch, offset = epoch + 1, 0


@contextlib.contextmanager
def ddp_sync(module: torch.nn.Module, sync: bool) -> Iterator[None]:
    """Sums gradients of a DDP module over ranks only if `sync`, in the last of several accumulated rounds.

    Put the forward pass inside too, because DDP decides there.
    """
    if sync or not isinstance(module, DistributedDataParallel):
        yield
    else:
        with module.no_sync():
            yield


def check_ddp_consistency(module: torch.nn.Module) -> None:
    """Compares every parameter and buffer with rank 0's, through a checksum. All ranks must call it.

    Raises RuntimeError on every rank if any rank differs, naming the first tensor that does.
    """
    if not distributed.is_initialized():
        return
    tensors = [*module.named_parameters(), *module.named_buffers()]
    own = torch.stack([_checksum(tensor) for _, tensor in tensors])
    of_rank0 = own.clone()
    torch.distributed.broadcast(of_rank0, src=0)
    differs = (own != of_rank0).to(torch.int32)
    distributed.all_reduce_sum(differs)
    if differs.any():
        name = tensors[int(differs.nonzero()[0])][0]
        raise RuntimeError(f"{name} is not the same on all ranks: they have drifted apart")


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """An int64 on the tensor's device that changes with the bits of `tensor` and with their order."""
    data = tensor.detach().flatten().view(torch.uint8).to(torch.int64)
    # Each byte has its own odd factor, so that a change of one byte always shows.
    factors = torch.arange(data.numel(), device=data.device) * 2654435762 + 1
    return (data * factors).sum()
