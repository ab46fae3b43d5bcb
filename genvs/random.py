"""Random numbers that are a pure function of a key: the same on every device, in every batch, on every rank.

A counter-based generator (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) over the SplitMix64
mixer (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014). Each training sample has a key made of
(seed, sample index), so that its noise, dropout and jitter do not depend on how samples are grouped into batches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """A 64-bit constant as the int64 that has the same bits."""
    return value - (1 << 64) if value >= (1 << 63) else value


GOLDEN_GAMMA = _signed(0x9E3779B97F4A7C15)
MIX_1 = _signed(0xBF58476D1CE4E5B9)
MIX_2 = _signed(0x94D049BB133111EB)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer on int64, with wrapping products and logical shifts."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * MIX_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * MIX_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def fold(keys: Tensor, stream: int | Tensor) -> Tensor:
    """New keys, independent of `keys` `[...]` (int64) and of the keys of every other `stream`."""
    if not isinstance(stream, Tensor):
        # Filled in on the device: a copy from the host would wait for it.
        stream = torch.full((), stream, device=keys.device, dtype=torch.int64)
    return _mix(keys ^ _mix(stream * GOLDEN_GAMMA + 1))


def sample_keys(seed: int, sample_index: Tensor) -> Tensor:
    """One key for each sample: `sample_index` int64 `[...]`, its place in the training run. Returns int64 `[...]`."""
    return _mix(fold(sample_index, seed) + GOLDEN_GAMMA)


def bits(keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """64 random bits an element: keys int64 `[...]` to int64 `[..., *shape]`."""
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
    """Which elements dropout of probability `p` keeps: keys int64 `[N]` to bool `[N, *shape]`.

    32 bits an element instead of 64, since networks draw billions: a multiplicative hash (after Murmur3's finalizer)
    of the element's place and one half of the key, mixed with the other half. Kernels compute the same.
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
