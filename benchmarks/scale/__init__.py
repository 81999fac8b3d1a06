"""How one batch grows through the adaptation pipeline: `coda benchmark scale` (docs/benchmark.md)."""
