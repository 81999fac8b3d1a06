"""The demo's laboratory that works by routine: a small batch every week, in which three things go wrong.

Its lamp ages, slowly at first and then faster, as a lamp near its end does; in one week the positive control of one
plate got the solvent; and from some week on the screen follows up one mechanism, whose share of the wells grows.
"""

import math

from coda.simulation.design import NEGATIVE_CONTROL, Design, Experiment, holding, plan_experiment
from coda.simulation.laboratories import Laboratory, find_laboratory, with_lamp

NAME = "lab_d"
WEEKS = 10
PLATES = 4

STEADY_WEEKS = 4
"""Weeks in which nothing happens: the history that the others are compared with."""

FADING, FASTER = 0.035, 1.3
"""Logarithm of the light that the lamp loses in the first week after these, and its growth from week to week."""

FAILED_WEEK, FAILED_PLATE = 8, 3
"""Where the positive control is missing."""

FOLLOW_UP_WEEK = 7
"""First week of the follow-up."""

FOLLOWED_UP = "Rho kinase inhibitor"
GIVEN_UP = ("HDAC inhibitor", "mTOR inhibitor", "mitochondrial uncoupler")
"""Mechanisms whose wells the follow-up takes."""

DESIGN = Design(negcon_wells=4, poscon_wells=4, sites_per_well=1)
"""Four wells of each control, fewer of which no separation is stated of; compounds as in the demo's other plates."""


def batch_name(week: int) -> str:
    """Return the name of a week's batch."""
    return f"w{week:02d}"


def lamp(week: int) -> float:
    """Return the share of its light that the lamp gives in a week."""
    age = max(0, week - STEADY_WEEKS)
    return math.exp(-FADING * (FASTER**age - 1) / (FASTER - 1))


def laboratory(week: int) -> Laboratory:
    """Return the laboratory as it is in a week."""
    return with_lamp(find_laboratory(NAME), lamp(week))


def experiment(seed: int, week: int) -> Experiment:
    """Return what lies on its plates: one compound of each mechanism, and the controls."""
    whole = plan_experiment(seed, DESIGN)
    kept: dict[str, str] = {}
    wells: dict[str, str | None] = {}
    for compound in whole.compounds:
        if compound.mechanism is not None and kept.setdefault(compound.mechanism, compound.name) != compound.name:
            wells[compound.name] = None
    if week >= FOLLOW_UP_WEEK:
        wells |= {kept[mechanism]: kept[FOLLOWED_UP] for mechanism in GIVEN_UP}
    return holding(whole, wells)


def dispensed(seed: int, week: int, plates: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return what wells got in truth where that is not what the plate map says; see `simulate_batch`."""
    if week != FAILED_WEEK:
        return {}
    control = next(item.name for item in plan_experiment(seed, DESIGN).compounds if item.pert_type == "poscon")
    return {plates[FAILED_PLATE - 1]: {control: NEGATIVE_CONTROL}}
