"""Augmentation: the target is flipped, turned and shifted, its feature image alike, and labels tell the network so.

The lossless steps of EDM's pipeline (arXiv 2206.00364, appendix F.2). Noise is added afterwards, so it stays white.
"""

from __future__ import annotations

from torch import Tensor

from genvs.models.labels import augment_labels
from genvs.random import Stream, fold, uniform


def draw_augmentation(keys: Tensor, probability: float) -> Tensor:
    """Labels `[..., AUGMENT_LABELS]` (see `genvs.models.labels`) for int64 keys `[...]`.

    Each of four steps is done with `probability`: flips left to right and upside down, of every second image, a turn
    by 0 to 3 quarters, and a shift along both axes by up to MAX_SHIFT of the side.
    """
    done = uniform(fold(keys, Stream.AUGMENT_STEPS), (4,)) < probability
    values = uniform(fold(keys, Stream.AUGMENT_VALUES), (5,))
    flip_x, flip_y = (done[..., :2] & (values[..., :2] < 0.5)).unbind(dim=-1)
    quarter_turns = (values[..., 2] * 4).floor() * done[..., 2]
    return augment_labels(flip_x, flip_y, quarter_turns, (2 * values[..., 3:] - 1) * done[..., 3:])
