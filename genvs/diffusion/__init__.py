"""Noise levels and samplers of EDM (Karras et al., arXiv 2206.00364). Knows nothing of models."""
