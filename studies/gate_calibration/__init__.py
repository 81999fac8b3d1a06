"""How well label-free metrics rank true accuracy, and what a gate makes of it (docs/calibration.md)."""
