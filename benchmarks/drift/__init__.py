"""How often the drift rules are wrong and how late they are right, beside plain limits and well-known detectors.

Simulated histories alone: nothing here reads a batch. `coda benchmark drift` runs it, decision 0042 has what
came of it.
"""
