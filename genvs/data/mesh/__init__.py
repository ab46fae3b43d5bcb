"""Meshes from other sources, drawn into SRN's layout: `python -m genvs.data.mesh --out DIR MESH...`."""
