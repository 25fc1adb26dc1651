"""TPAVI, AVSBench's baseline (Zhou et al., ECCV 2022; "with Semantics", 2023)."""
