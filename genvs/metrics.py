"""Image metrics."""

from __future__ import annotations

from torch import Tensor


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, per image: `[..., C, H, W]` in [-1, 1] (clamped) to `[...]`."""
    error = (images.clamp(-1, 1) - targets.clamp(-1, 1)) / 2
    return -10 * error.square().mean(dim=(-3, -2, -1)).clamp_min(1e-10).log10()
