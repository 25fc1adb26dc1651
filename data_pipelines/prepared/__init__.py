"""Prepared data sets: how they are stored and opened."""
