"""The gate: metrics, predictions and a policy in, one decision out (docs/gate.md)."""
