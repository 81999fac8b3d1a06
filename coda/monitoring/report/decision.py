"""Tables of the decision: what the gate saw of every way of serving, what guards the choice, and each fit scope."""

from collections.abc import Sequence
from typing import Any

from coda.contracts.gate import Compared, GateReport
from coda.contracts.recipe import RECIPES
from coda.evaluation.gate.definitions import BY_NAME
from coda.evaluation.gate.phrases import REFERENCES


def gate_tables(gate: GateReport) -> list[dict[str, Any]]:
    """Return the gate's tables, the measures that matter most and the others."""
    names = [name for name in BY_NAME if any(name in score.measures for score in gate.candidates)]
    names += sorted({name for score in gate.candidates for name in score.measures} - set(names))
    first = [name for name in names if name in BY_NAME and BY_NAME[name].main]
    return [_gate_table(gate, first), _gate_table(gate, [name for name in names if name not in first])]


def _gate_table(gate: GateReport, names: Sequence[str]) -> dict[str, Any]:
    """Return one table: a row a candidate, a column a measure, with intervals."""
    return {
        "measures": [{"name": name, "words": BY_NAME[name].says if name in BY_NAME else name} for name in names],
        "rows": [
            {
                "name": score.name,
                "words": candidate_words(score.name),
                "chosen": score.name == gate.chosen,
                "baseline": score.name == gate.baseline,
                "incumbent": score.name == gate.incumbent,
                "healthy": score.healthy,
                "reasons": score.health_reasons,
                "gain": score.gain,
                "gain_over_incumbent": score.gain_over_incumbent,
                "cells": [score.measures.get(name) for name in names],
            }
            for score in gate.candidates
        ],
    }


def candidate_words(name: str) -> str:
    """Return a description of a candidate."""
    if name == "incumbent":
        return "model that serves this laboratory now"
    return RECIPES[name].report if name in RECIPES else name


ROLE_WORDS = {
    "health": "limit: below it a way is out",
    "decides": "decides",
    "guards": "guards: may stop or hold a choice",
    "advice": "for reading",
}
"""Role of a measure -> what it means, for the table of fit scopes."""

CONSEQUENCES = {"veto": "it may not serve", "hold": "a person must decide", "advice": "a remark"}
"""What the policy makes of a comparison that was not passed."""


def comparison_rows(gate: GateReport) -> list[dict[str, Any]]:
    """Return one row for each comparison that could be made, those of the way that was chosen first."""
    ordered = sorted(gate.candidates, key=lambda score: score.name != gate.chosen)
    there = {gate.baseline, gate.incumbent}
    return [
        {
            "name": score.name,
            "measure": item.measure,
            "against": REFERENCES.get(item.against, item.against),
            "gain": item.gain,
            "passed": item.passed,
            "told": _told(item, new=score.name not in there),
        }
        for score in ordered
        for item in score.compared
        if item.gain is not None
    ]


def _told(item: Compared, *, new: bool) -> str:
    if item.passed is None:
        return "too few compounds to say"
    if item.passed:
        return "passed"
    # what serves already needs nobody's agreement to go on
    return f"not passed: {CONSEQUENCES[item.otherwise]}" if new else "not passed"


def scope_rows(gate: GateReport) -> list[dict[str, str]]:
    """Return the fit scope of each measure, what decides and guards first."""
    order = ("decides", "guards", "health", "advice")
    return [
        {**scope.model_dump(), "role": ROLE_WORDS[scope.role]}
        for scope in sorted(gate.scopes, key=lambda scope: order.index(scope.role))
    ]


def deciders(gate: GateReport) -> str:
    """Return who decides what is held, as the beginning of a sentence."""
    return " or ".join(gate.approvers) if gate.approvers else "A person who may promote"


def promotion_command(run_id: str) -> str:
    """Return what lets a held release serve, as it is typed."""
    return f'coda registry promote {run_id} --reason "..."'
