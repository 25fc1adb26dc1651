"""Folders on a disk -> a table of clips."""
