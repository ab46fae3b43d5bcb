"""Image against image, pixel by pixel and window by window."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, per image: `[..., C, H, W]` in [-1, 1] (clamped) to `[...]`."""
    error = (images.clamp(-1, 1) - targets.clamp(-1, 1)) / 2
    return -10 * error.square().mean(dim=(-3, -2, -1)).clamp_min(1e-10).log10()


def ssim(images: Tensor, targets: Tensor, window: Literal["gaussian", "uniform"] = "gaussian") -> Tensor:
    """Structural similarity, per image: `[..., C, H, W]` in [-1, 1] (clamped) to `[...]`, 1 for equal images.

    Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, eq. 13, with K1 =
    0.01 and K2 = 0.03; the mean over channels and over all windows that lie inside the image. Computed in float64.

    window: 'gaussian', the paper's 11 x 11 with sigma 1.5 (in scikit-image: gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False); 'uniform', a 7 x 7 mean with sample covariances (scikit-image's defaults).
    """
    place, covariance_scale = torch.arange(-5, 6, dtype=torch.float64, device=images.device), 1.0
    kernel = (-place.square() / (2 * 1.5**2)).exp()
    if window == "uniform":
        kernel, covariance_scale = torch.ones_like(place[:7]), 49 / 48
    kernel = kernel / kernel.sum()
    images, targets = torch.broadcast_tensors(images, targets)

    def windowed(values: Tensor) -> Tensor:
        planes = values.reshape(-1, 1, *values.shape[-2:])
        return F.conv2d(F.conv2d(planes, kernel.reshape(1, 1, -1, 1)), kernel.reshape(1, 1, 1, -1))

    a, b = ((part.double().clamp(-1, 1) + 1) / 2 for part in (images, targets))
    mean_a, mean_b = windowed(a), windowed(b)
    variances = covariance_scale * (windowed(a.square() + b.square()) - mean_a.square() - mean_b.square())
    covariance = covariance_scale * (windowed(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    similarity = luminance * (2 * covariance + c2) / (variances + c2)
    return similarity.reshape(*images.shape[:-3], -1).mean(dim=-1)
