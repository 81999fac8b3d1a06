"""How fast the engine trains, beside a plain loop and the machine (docs/speed.md)."""
