"""The embedded dataset: procedural cars, ray-cast into the SRN layout (`python -m genvs.data.synthetic`)."""
