"""DINO on pairs of images or on single ones: CODA and ODA (paper sections 3 and 4)."""
