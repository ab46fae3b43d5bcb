"""Snapshots of the unofficial implementation of GeNVS (University of Arizona), and its numerics."""

from genvs.compat.reader import is_pickle, is_training_state, load_network
from genvs.compat.unofficial import UnofficialGeNVS

__all__ = ["UnofficialGeNVS", "is_pickle", "is_training_state", "load_network"]
