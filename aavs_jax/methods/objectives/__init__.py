"""Losses, and how a network's output is read."""
