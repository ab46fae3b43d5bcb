"""Fixtures and helpers for the tests on a GPU."""

import os
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.multiprocessing

from tests.ranks import free_port
from torch_utils import distributed


@pytest.fixture(scope="module", autouse=True)
def exact_products() -> Iterator[None]:
    """Float32 products are exact, so that only the order of sums differs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def on_ranks(function: Callable[[int, torch.device], None], world_size: int) -> None:
    """Calls function(rank, device) in a process for each of `world_size` GPUs; a failed assertion fails the test."""
    torch.multiprocessing.spawn(_on_rank, args=(function, world_size, free_port()), nprocs=world_size)


def _on_rank(rank: int, function: Callable[[int, torch.device], None], world_size: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.backends.cudnn.allow_tf32 = False
    device = distributed.init("cuda")
    function(rank, device)
    distributed.shutdown()
