"""Python programs as forks of a process that has imported what they need (docs/decisions/0020-warm-steps.md)."""
