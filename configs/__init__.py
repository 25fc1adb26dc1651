"""What to run: `base.py` holds every key once; the others say what differs."""
