"""The TFDS builder of prepared data sets, whatever the layout they came in."""
