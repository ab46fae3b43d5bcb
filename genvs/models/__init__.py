"""The networks: image -> feature volume -> feature image -> denoised view."""

from genvs.models.genvs import GeNVS

__all__ = ["GeNVS"]
