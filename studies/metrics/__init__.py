"""Metrics that no policy reads: the calibration ranks them beside those of the gate (docs/calibration.md)."""
