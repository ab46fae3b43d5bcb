"""Files written in a thread while training goes on."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only


class BackgroundWriter:
    """Writes files in a thread, one at a time, while the caller goes on.

    files = BackgroundWriter()
    files.submit(save_atomic, content, path)     # returns when the tensors in `content` are copied
    files.close()                                # returns when the last file is written

    The next method call raises an error of the thread. A process that ends early, but is not killed, still completes
    the write, because the interpreter waits for such threads.
    """

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._write: concurrent.futures.Future[None] | None = None

    def submit(self, save: Callable[..., None], *args: Any) -> None:
        """Waits for the last write and calls `save(*args)` in the thread, with copies of the tensors in `args`.

        They are copied on the device if it has room for them, which takes milliseconds, else to the host's memory.
        """
        self.wait()
        stream, on_device = None, True
        if torch.cuda.is_initialized():
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.is_cuda]
            on_device = sum(tensor.nbytes for tensor in tensors) < torch.cuda.mem_get_info()[0]
            stream = torch.cuda.Stream()  # so that copying to the host does not hold up what is queued next
        copies = tree_map_only(Tensor, lambda x: x.detach().to(x.device if on_device else "cpu", copy=True), args)
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream())
        self._write = self._thread.submit(_call_with_host_copies, save, [copies], stream)

    def check(self) -> None:
        """Raises the error of a failed write, without waiting."""
        if self._write is not None and self._write.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the current write."""
        if self._write is not None:
            concurrent.futures.wait([self._write])  # after an interrupt here, the next call can still raise the error
            done, self._write = self._write, None
            done.result()

    def close(self) -> None:
        """Waits, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def _call_with_host_copies(save: Callable[..., None], box: list[tuple], stream: torch.cuda.Stream | None) -> None:
    with torch.cuda.stream(stream):  # None changes nothing
        # `pop`, so that the copies on the device are freed before the file is written. Moved by torch.save, storages
        # would hold Python's lock on their way to the host; tensors do not.
        args = tree_map_only(Tensor, Tensor.cpu, box.pop())
    save(*args)
