"""The networks of the method: extractor, head, DINO head; how they start, and how they are kept and verified."""
