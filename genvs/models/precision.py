"""The precision that networks run in: bf16 or fp16 where a GPU has them, for training and sampling alike."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


@functools.cache
def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is fast on `device`; CPUs and old GPUs would emulate it."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, dtype: torch.dtype | None, *, cache_enabled: bool = True) -> torch.autocast:
    """Autocast to `dtype` on `device`, or, for None, no autocast, whatever the caller's own context is."""
    enabled = dtype is not None
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


def cast_weights(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, by name, in the `dtype` to which autocast casts them at each use.

    For `torch.func.functional_call`: the network then computes the same without these casts. Biases and norms, which
    fused operations may want in float32, are not among them.
    """
    products = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, products)]
    return {f"{name}.weight": layer.weight.detach().to(dtype) for name, layer in layers}
