"""How fast everything is, measured. `python -m benchmarks.NAME --help`; nothing imports this package."""
