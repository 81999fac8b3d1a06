"""DINO with iBOT's hidden patches and the KoLeo regulariser, as DINOv2 combines them (Oquab et al., 2023)."""
