"""Which views of a scene a sample uses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SampleRequest(NamedTuple):
    """What a sampler asks a dataset for.

    scene: index of the scene. sample_index: how many scenes were drawn before, over all ranks, since training began;
    it seeds everything random about the sample. num_inputs, num_targets: how many views of each kind.
    """

    scene: int
    sample_index: int
    num_inputs: int
    num_targets: int


def choose_views(
    num_views: int, num_inputs: int, num_targets: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of input views `[num_inputs]` and of target views `[num_targets]`, no view twice.

    The numbers asked for do not change which random numbers are used: more views only extend the choice.
    Raises ValueError where the scene has too few views.
    """
    if num_views < num_inputs + num_targets:
        raise ValueError(f"{num_inputs} inputs and {num_targets} targets cannot be chosen from {num_views} views")
    order = rng.permutation(num_views)
    return order[:num_inputs], order[num_inputs : num_inputs + num_targets]
