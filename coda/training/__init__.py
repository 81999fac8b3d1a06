"""Self-supervised training with cross-batch pairs, the head, tokens and labels (method sections 2, 3 and 5)."""
