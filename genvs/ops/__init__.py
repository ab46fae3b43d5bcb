"""The operations of volume rendering. Models import them from here and never know which implementation runs."""

from genvs.ops.reference import composite, sample_depths_by_weight, sample_volume

__all__ = ["composite", "sample_depths_by_weight", "sample_volume"]
