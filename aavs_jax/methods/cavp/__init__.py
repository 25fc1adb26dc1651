"""CAVP, contrastive audio-visual pairing (Chen et al., CVPR 2024)."""
