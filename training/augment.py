"""Augmentation (`--augment`): the target, and with it what the network is told of it, mirrored, turned and moved.

EDM's pipeline of lossless steps (arXiv 2206.00364, appendix F.2). The noise is added afterwards, so it stays white.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genvs import random
from genvs.models.labels import augment_labels
from genvs.random import Stream

MAX_SHIFT = 0.125  # of the image's side


def draw_augmentation(keys: Tensor, probability: float, size: int) -> Tensor:
    """Labels (see `genvs.models.labels`) for int64 keys `[...]`: `[..., AUGMENT_LABELS]`.

    Each of the four steps is drawn with `probability`; those drawn mirror every second image, turn it by 0 to 3
    quarters and move it by up to MAX_SHIFT of its side, `size` pixels, in whole pixels.
    """
    coins = random.uniform(random.fold(keys, Stream.AUGMENT_STEPS), (4,)) < probability
    values = random.uniform(random.fold(keys, Stream.AUGMENT_VALUES), (5,))
    flip_x, flip_y = (coins[..., :2] & (values[..., :2] < 0.5)).unbind(dim=-1)
    quarter_turns = (values[..., 2] * 4).floor() * coins[..., 2]
    shift = torch.round((2 * values[..., 3:] - 1) * MAX_SHIFT * size) / size * coins[..., 3:]
    return augment_labels(flip_x, flip_y, quarter_turns, shift)
