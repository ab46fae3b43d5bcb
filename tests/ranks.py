"""Ranks that a test starts, without a launcher."""

import contextlib
import os
import secrets
import socket
from collections.abc import Callable

import torch


def free_port() -> int:
    """Below those that systems hand out to others, which may take one before the ranks do."""
    while True:
        address = "127.0.0.1", 10_000 + secrets.randbelow(6000)
        with contextlib.suppress(OSError), socket.create_server(address):
            return address[1]


def _on_rank(rank: int, function: Callable, world_size: int, port: int, arguments: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    function(rank, *arguments)


def on_ranks(function: Callable, *arguments, world_size: int = 2, join: bool = True):
    """Calls function(rank, *arguments) in each of `world_size` processes. What fails in one of them fails here.

    They are forked, because a new process would import torch for two seconds, except beside CUDA, which forbids that.
    """
    return torch.multiprocessing.start_processes(
        _on_rank,
        args=(function, world_size, free_port(), arguments),
        nprocs=world_size,
        join=join,
        start_method="spawn" if torch.cuda.is_initialized() else "fork",
    )
