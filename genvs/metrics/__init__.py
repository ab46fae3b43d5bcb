"""How good images are. What needs pretrained networks is in `genvs.metrics.perceptual`."""

from genvs.metrics.consistency import SILHOUETTE_THRESHOLD, background_level, hull_agreement, overlap, silhouettes
from genvs.metrics.pixels import psnr, ssim

__all__ = ["SILHOUETTE_THRESHOLD", "background_level", "hull_agreement", "overlap", "psnr", "silhouettes", "ssim"]
