"""How fast plates come in, beside the codecs alone and scikit-image (decision 0048)."""
