"""The masked autoencoder: Dual-model-MAE and ODA-MAE (paper section 4)."""
