"""From a config to the loaders of a stage."""
