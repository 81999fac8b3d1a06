"""What a batch looks like once it is predicted, without labels: predictions, metrics, and the gate that reads them."""
