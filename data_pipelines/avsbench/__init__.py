"""AVSBench: its layout on disk and the TFDS builder that reads it."""
