"""`train.py`, whose time limit is LIMIT seconds after some updates, in which a GPU's kernels are compiled."""

import threading
from datetime import timedelta

import torch
from torch.distributed.distributed_c10d import _set_pg_timeout

from dnnlib.command import run_command
from tests.small_training import BATCH
from torch_utils import distributed
from train import main
from training import training_loop

LIMIT, UPDATES = (10.0, 40) if torch.cuda.is_available() else (5.0, 2)
update_weights, watches = training_loop.update_weights, []


class Watch(distributed.StallWatch):
    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        watches.append(self)


def update_and_hurry(state, *args) -> None:
    update_weights(state, *args)
    if state.cur_nimg == UPDATES * BATCH:
        for watch in watches:
            watch._seconds = LIMIT
            watch.moved_on()
            threading.Thread(target=watch._watch, daemon=True).start()
        if not watches:  # gloo has none
            _set_pg_timeout(timedelta(seconds=LIMIT))


if __name__ == "__main__":
    distributed.StallWatch, training_loop.update_weights = Watch, update_and_hurry
    run_command(main)
