"""Scenes: what is read, how views are chosen, and the embedded dataset."""
