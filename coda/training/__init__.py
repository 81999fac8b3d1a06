"""Self-supervised training with cross-batch pairs, the head, tokens and labels (paper section 4)."""
