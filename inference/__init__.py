"""Novel views and videos from a folder of posed images: `python inference/inference.py --help`."""
