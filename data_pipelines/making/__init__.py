"""Data sets that are composed here: Audible Shapes, Audible Stamps, VPO."""
