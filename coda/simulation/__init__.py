"""Simulated Cell Painting plates: plausible, seeded, delivered as a laboratory would (docs/simulation.md)."""

from coda.simulation.broken import KINDS, break_batch
from coda.simulation.delivery import rendering_pool, simulate_batch
from coda.simulation.design import Compound, Design, Experiment, WellPlan, plan_experiment, write_labels
from coda.simulation.laboratories import LABORATORIES, Laboratory, find_laboratory
from coda.simulation.mechanisms import MECHANISMS
from coda.simulation.traits import TRAITS, Trait

__all__ = [
    "KINDS", "LABORATORIES", "MECHANISMS", "TRAITS", "Compound", "Design", "Experiment", "Laboratory", "Trait",
    "WellPlan", "break_batch", "find_laboratory", "plan_experiment", "rendering_pool", "simulate_batch",
    "write_labels",
]  # fmt: skip
