"""Cameras, rays and trajectories. OpenCV axes, world z up, normalised intrinsics (docs/conventions.md)."""

from genvs.geometry.cameras import Cameras, frustum_matrix, project, to_opencv, unproject
from genvs.geometry.rays import generate_rays, interval_lengths, pixel_centers, stratified_depths

__all__ = [
    "Cameras",
    "frustum_matrix",
    "generate_rays",
    "interval_lengths",
    "pixel_centers",
    "project",
    "stratified_depths",
    "to_opencv",
    "unproject",
]
