"""Thresholds of the gate from a calibration: limits that no useful model violates, and the rule that errs least."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from coda.config.policy import GatePolicy, Guard, Health
from coda.evaluation.gate.definitions import BY_TREATMENT
from studies.gate_calibration.calibration_gate import GateSet, gate_outcomes
from studies.gate_calibration.calibration_ranks import useful

Run = Mapping[str, Any]

USEFUL_SHARE = 0.8
"""A model is useful if it has at least this share of the accuracy of the best one of its run."""

STEP = 0.05
"""Limits are rounded to this, away from the useful models."""

TIE = 0.005
"""Difference in mean regret that is no reason to change a rule: half a field of 96."""

STEPS = (-0.04, -0.02, 0.0)
BY_INTERVAL: Mapping[str, tuple[float, ...]] = {
    "min_gain": (0.0, 0.01, 0.02), "min_lower_gain": (-0.02, 0.0, 0.01), "min_lower_step": STEPS,
}  # fmt: skip
BY_ERROR: Mapping[str, tuple[float, ...]] = {
    "min_gain": (0.0, 0.02, 0.05), "max_error": (0.01, 0.05, 0.1), "min_lower_step": STEPS,
}  # fmt: skip
"""Values of the deciding rule that are tried, by the kind of test that the policy asks for."""


def grid_of(policy: GatePolicy) -> Mapping[str, tuple[float, ...]]:
    """Return the values of the deciding rule that are tried beside a policy's own."""
    return BY_INTERVAL if policy.deciding.max_error is None else BY_ERROR


@dataclass(frozen=True)
class Derived:
    """A policy that follows from a calibration.

    Attributes:
        policy: The policy, with the version of the next one.
        reasons: How each value came about, in sentences.
        tried: Every rule that was tried: its values, releases worse than none by more than the margin, mean regret.
        limits: Each health limit: measure, worst useful model, what the collapsed models have, the limit.
    """

    policy: GatePolicy
    reasons: tuple[str, ...]
    tried: pd.DataFrame
    limits: pd.DataFrame


def derive_policy(
    runs: Sequence[Run], sets: Sequence[GateSet], ranks: pd.DataFrame, present: GatePolicy, *, samples: int
) -> Derived:
    """Derive a policy from the runs that thresholds are chosen on.

    1. *Health*: a limit stays as it is while no useful model (`USEFUL_SHARE` of the best accuracy of its run) violates
       it and every collapsed one does. Where a useful one violates it, it goes just beyond that one; where a collapsed
       one passes, it goes halfway between the worst useful and the best collapsed one, if they do not overlap.
    2. *Deciding measure*: of those that have a value for each treatment, the one with the best correlation within
       runs, broken models among them, since telling those apart is the gate's first task. What decided before guards.
    3. *Rule*: of all values of `grid_of`, with guards as they are or as remarks, the smallest mean regret among those
       that release no more models worse than none (by the margin) than the present policy does. What lies within
       `TIE` of it is a tie, which goes to the values nearest to the present ones.

    Args:
        runs: Results of the targets.
        sets: The candidates of these runs.
        ranks: `studies.gate_calibration.calibration_ranks.rank_table` of these runs.
        present: The policy in use.
        samples: Bootstrap samples over treatments.
    """
    limits = health_limits(runs, present.health)
    health = present.health.model_copy(update=dict(zip(limits["limit_of"], limits["limit"], strict=True)))
    measure = str(
        ranks[ranks["metric"].isin(BY_TREATMENT)].sort_values("with_broken", ascending=False)["metric"].iloc[0]
    )
    guards = {name: guard for name, guard in present.guards.items() if name != measure}
    if measure != present.deciding.measure:
        least = present.deciding.min_treatments
        guards[present.deciding.measure] = Guard(max_fall=0.0, min_treatments=least, otherwise="hold")
    start = present.model_copy(update={"version": present.version + 1, "health": health, "guards": guards})
    tried, rules = [], []
    for rule in _rules(start, measure):
        outcomes = gate_outcomes(sets, rule, samples=samples)
        tried.append(_row(rule, outcomes, present))
        rules.append(rule)
    table = pd.DataFrame(tried)
    allowed = int(gate_outcomes(sets, present, samples=samples)["worse_margin"].sum())
    admissible = table[table["worse_margin"] <= allowed]
    pool = admissible if len(admissible) else table[table["worse_margin"] == table["worse_margin"].min()]
    tied = pool[pool["regret"] <= pool["regret"].min() + TIE]
    best = int(tied.sort_values(["distance", "regret"], kind="stable").index[0])
    reasons = (
        *(_told(dict(row)) for _, row in limits.iterrows()),
        f"{measure} decides: best correlation within runs, broken models included, of those with a value a treatment.",
        (
            f"{len(table)} rules were tried; {len(admissible)} release no more models worse than none than "
            f"{present.title} ({allowed} of {len(sets)}). The smallest mean regret of them is "
            f"{pool['regret'].min():.4f}; of those within {TIE:g} of it the nearest to {present.title} is taken, "
            f"{tried[best]['regret']:.4f}."
        ),
    )
    return Derived(rules[best], reasons, table, limits)


def health_limits(runs: Sequence[Run], present: Health) -> pd.DataFrame:
    """Return the health limits that follow from useful and collapsed models.

    Returns:
        One row a limit: ``limit_of`` (its name in the policy), ``measure``, ``useful`` (its worst), ``collapsed`` (its
        best), ``present``, ``limit``, and ``why``.
    """
    rows = []
    for name, (measure, sign) in _LIMITS.items():
        if getattr(present, name) is None:
            continue
        good = [value for run in runs for entry in run["models"] if _is_useful(run, entry)
                if (value := _value(run, entry, measure)) is not None]  # fmt: skip
        bad = [value for run in runs for entry in run["models"] if entry["model"] == "collapsed"
               if (value := _value(run, entry, measure)) is not None]  # fmt: skip
        worst, caught = min(sign * value for value in good), max((sign * value for value in bad), default=-math.inf)
        now = sign * getattr(present, name)
        if now > worst:
            limit, why = math.floor(worst / STEP + 1e-9) * STEP, "a useful model violated it"
        elif caught < now:
            limit, why = now, "no useful model violates it, and every collapsed one does"
        elif caught < worst:
            limit = math.floor((worst + caught) / 2 / STEP + 1e-9) * STEP
            # rounding must not let a collapsed model through that a limit between the two would stop
            limit, why = limit if limit > caught else (worst + caught) / 2, "a collapsed model passed it"
        else:
            limit, why = now, "a collapsed model passes it, and so would useful ones fall with any limit that stops it"
        rows.append({
            "limit_of": name, "measure": measure, "useful": sign * worst, "collapsed": sign * caught,
            "present": sign * now, "limit": min(max(round(sign * limit, 3), 0.0), 1.0), "why": why,
        })  # fmt: skip
    return pd.DataFrame(rows)


_LIMITS = {
    "min_marginal_entropy": ("marginal_entropy", 1), "min_feature_spread": ("feature_spread", 1),
    "min_rank_share": ("rankme", 1), "max_top_class_share": ("top_class_share", -1),
    "max_top_class_excess": ("top_class_excess", -1),
}  # fmt: skip
"""Limit -> measure, and whether more (1) or less (-1) of it is better."""


def _is_useful(run: Run, entry: Mapping[str, Any]) -> bool:
    best = max(other["field_accuracy"] for other in run["models"] if useful(other))
    return useful(entry) and entry["field_accuracy"] >= USEFUL_SHARE * best


def _value(run: Run, entry: Mapping[str, Any], measure: str) -> float | None:
    if measure == "top_class_excess":
        share, even = entry["metrics"].get("top_class_share"), 1 / max(entry["measures"]["classes"], 1)
        return None if share is None else float((share - even) / (1 - even))
    value: float | None = entry["metrics"].get(measure)
    if value is None or measure != "rankme":
        return value
    first = next(other for other in run["models"] if useful(other) and not other["adapted"])
    return float(value / first["metrics"]["rankme"])


def _rules(start: GatePolicy, measure: str) -> list[GatePolicy]:
    rules, grid = [], grid_of(start)
    for values in itertools.product(*grid.values()):
        for remarks_only in (False, True):
            deciding = start.deciding.model_copy(update={"measure": measure, **dict(zip(grid, values, strict=True))})
            guards = {
                name: guard.model_copy(update={"otherwise": "advice"}) if remarks_only else guard
                for name, guard in start.guards.items()
            }
            rules.append(start.model_copy(update={"deciding": deciding, "guards": guards}))
    return rules


def _row(rule: GatePolicy, outcomes: pd.DataFrame, present: GatePolicy) -> dict[str, Any]:
    numbers = {name: getattr(rule.deciding, name) for name in grid_of(rule)}
    changed = sum(abs(value - getattr(present.deciding, name)) for name, value in numbers.items())
    held = any(guard.otherwise == "hold" for guard in rule.guards.values())
    holds_now = any(guard.otherwise == "hold" for guard in present.guards.values())
    return {
        "measure": rule.deciding.measure, **numbers, "guards": "as they are" if held else "remarks",
        "worse": int(outcomes["worse"].sum()), "worse_margin": int(outcomes["worse_margin"].sum()),
        "held": int((outcomes["outcome"] == "hold").sum()), "regret": float(outcomes["regret"].mean()),
        "distance": changed + STEP * (held != holds_now),
    }  # fmt: skip


def _told(row: Mapping[Any, Any]) -> str:
    found = f"worst useful model {row['useful']:.3f}, best collapsed one {row['collapsed']:.3f}"
    return f"{row['limit_of']} {row['limit']:g} (so far {row['present']:g}): {row['why']} ({found})."
