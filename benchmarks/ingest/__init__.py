"""How fast plates come in, beside the codecs alone and scikit-image (docs/plates.md)."""
