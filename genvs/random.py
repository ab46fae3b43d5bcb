"""Random numbers that are a pure function of a key: the same on every device, in every batch, on every rank.

A counter-based generator (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) over the SplitMix64
mixer (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014). Each training sample has a key made of
(seed, sample index), so that its noise, dropout and jitter do not depend on how samples are grouped into batches.
`keys` are such random seeds, int64, one per sample. `fold` derives a key for each use in the table `Stream`.
"""

import enum
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


@enum.unique
class Stream(enum.IntEnum):
    """All uses of random numbers, each with its own number. Changing one changes the results of every seed."""

    # On the host, with `numpy_generator`.
    EVALUATED_VIEWS = 0  # which views of a held-out scene are measured
    SCENE_ORDER = 1  # in an epoch
    NUM_INPUTS = 2  # input views of an update
    VIEWS = 3  # which views of a scene a sample takes, and whether they are mirrored
    MODALITIES = 19  # of the input views of some samples in a row
    # Keys of a sample's parts, from the sample's key.
    TARGET = 4
    INPUT = 5
    # From a target's key.
    SIGMA = 6
    NOISE = 7
    KEEP_CONDITIONING = 8
    KEEP_CLASS = 9
    AUGMENT_STEPS = 10  # which steps of augmentation are done
    AUGMENT_VALUES = 11  # and with which values
    NETWORK = 12
    # From an input view's key.
    ADD_NOISE = 13  # whether
    INPUT_SCALE = 14
    INPUT_NOISE = 15
    # From a target's NETWORK key.
    JITTER = 16  # of the samples along rays
    DROPOUT = 17  # index: the U-Net's block
    UNCONDITIONED = 18  # noise instead of a feature image
    FIRST_STEP = 20  # noise in which a few-step network draws
    SECOND_STEP = 21  # noise that is added before its second step
    CRITIC_SIGMA = 22  # the noise level at which its images are judged
    CRITIC_NOISE = 23


def numpy_generator(stream: Stream, *numbers: int) -> np.random.Generator:
    """numpy's generator for one use, seeded by `stream` and `numbers` (>= 0), such as a seed and an index."""
    return np.random.default_rng((int(stream), *numbers))


# SplitMix64's constants, as int64 with the same bits.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64


def _mix(x: Any) -> Any:
    """SplitMix64's finalizer on int64, of torch or numpy, with wrapping products and logical shifts."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * MIX_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * MIX_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def fold(keys: Tensor, stream: int, index: int | Tensor = 0) -> Tensor:
    """New int64 keys, independent of `keys` `[...]` and of the keys of every other stream and index.

    index: distinguishes keys of one stream; below 2^31, a number or an int64 tensor that broadcasts with `keys`.
    """
    number: Any = stream + index * 2**32
    if isinstance(number, Tensor):
        return _mix(keys ^ _mix(number * GOLDEN_GAMMA + 1))
    # On the host: on a GPU every step would be a kernel.
    (mixed,) = _mix(np.array([number]) * GOLDEN_GAMMA + 1).tolist()
    return _mix(keys ^ mixed)


def sample_keys(seed: int, sample_index: Tensor) -> Tensor:
    """A key, int64 `[...]`, for each sample, by its place in the training run: `sample_index`, int64 `[...]`."""
    return _mix(fold(sample_index, seed) + GOLDEN_GAMMA)


def bits(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """64 random bits per element: keys int64 `[...]` to int64 `[..., *shape]`."""
    counter = torch.arange(1, math.prod(shape) + 1, device=keys.device, dtype=torch.int64) * GOLDEN_GAMMA
    return _mix(keys[..., None] + counter).unflatten(-1, shape) if shape else _mix(keys + GOLDEN_GAMMA)


def uniform(keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Uniform in [0, 1), float32: keys `[...]` to `[..., *shape]`."""
    return ((bits(keys, shape) >> 40) & ((1 << 24) - 1)).to(torch.float32) * 2.0**-24


def normal(keys: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal, float32 (Box-Muller, from the two halves of each 64 bits): keys `[...]` to `[..., *shape]`."""
    random = bits(keys, shape)
    first = (((random >> 40) & ((1 << 24) - 1)).to(torch.float32) + 1) * 2.0**-24
    second = ((random >> 8) & ((1 << 24) - 1)).to(torch.float32) * (2 * math.pi * 2.0**-24)
    return (-2 * first.log()).sqrt() * second.cos()


def keep_mask(keys: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    """The elements that dropout of probability `p` keeps: keys int64 `[N]` to bool `[N, *shape]`.

    It uses 32 bits per element, for speed: a multiplicative hash (after Murmur3's finalizer) of the element's index and
    one half of the key, mixed with the other half. The kernels compute the same.
    """

    def multiply(x: Tensor, constant: int) -> Tensor:
        return (x * constant) & 0xFFFFFFFF

    low, high = keys[:, None] & 0xFFFFFFFF, (keys[:, None] >> 32) & 0xFFFFFFFF
    x = (multiply(torch.arange(math.prod(shape), device=keys.device), 0x9E3779B9) + low) & 0xFFFFFFFF
    x = multiply(x ^ (x >> 16), 0x85EBCA6B)
    x = multiply(x ^ (x >> 13) ^ high, 0xC2B2AE35)
    return (x >= round(p * 2**32)).unflatten(1, shape)


def dropout(x: Tensor, p: float, keys: Tensor) -> Tensor:
    """Inverted dropout of `x` `[N, ...]` with probability `p`, by each sample's own key `[N]`."""
    return x * keep_mask(keys, tuple(x.shape[1:]), p) / (1 - p)
