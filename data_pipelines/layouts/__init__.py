"""A data folder, whatever its layout, is read into one table of clips."""
