"""The networks. Read `aavs.py` first: it says how the parts join."""
