"""The embedded dataset: procedural cars and things, ray-cast into the SRN layout (`python -m genvs.data.synthetic`)."""

KINDS = ("cars", "things", "mixed")  # of datasets; mixed: half of each
