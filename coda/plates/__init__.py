"""From the raw images of a plate to its store: reading, illumination, compression, the store, and the way back in."""
