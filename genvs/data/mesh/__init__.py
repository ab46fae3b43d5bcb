"""Meshes of other people's, drawn into SRN's layout: `python -m genvs.data.mesh --out DIR MESH...`."""
