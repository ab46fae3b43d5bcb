"""The precision of networks, in training and sampling: bf16 or fp16 on GPUs that have them."""

import functools

import torch
from torch import Tensor, nn


@functools.cache
def has_native_bf16(device: torch.device) -> bool:
    """Whether `device` is a GPU that has bf16. False for all CPUs, so that results do not depend on the kind of CPU."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, dtype: torch.dtype | None, *, cache_enabled: bool = True) -> torch.autocast:
    """Autocast to `dtype` on `device`. For None autocast is off, also inside another autocast."""
    enabled = dtype is not None
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


def cast_weights(network: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers, by name, in `dtype`, as autocast casts them at each use.

    With these in `torch.func.functional_call` a network computes the same without the casts. Biases and norms stay in
    float32 for the fused operations.
    """
    products = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, products)]
    return {f"{name}.weight": layer.weight.detach().to(dtype) for name, layer in layers}
