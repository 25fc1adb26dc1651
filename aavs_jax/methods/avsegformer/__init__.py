"""AVSegFormer: audio-visual segmentation with transformers (AAAI 2024)."""
