"""Networks trained in the reimplementation of GeNVS at the University of Arizona: their files, and their numerics."""

from genvs.compat.reader import is_pickle, is_training_state, load_snapshot, load_training_state
from genvs.compat.unofficial import UnofficialGeNVS

__all__ = ["UnofficialGeNVS", "is_pickle", "is_training_state", "load_snapshot", "load_training_state"]
