"""Methods of self-supervision, one folder each, chosen by `ssl.method` (decision 0045; docs/training.md)."""
