"""Made-up numbers of candidates, for tests of the gate."""

from typing import Any

import numpy as np

from coda.config.policy import GatePolicy
from coda.contracts.gate import GateReport, Measure
from coda.evaluation.gate.decide import BatchName, decide
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.gate.untrained_features import ReferenceMeasures

POLICY = GatePolicy.model_validate(
    {
        "name": "test", "version": 1, "description": "What most tests decide by.", "baseline": "unadapted",
        "health": {
            "min_marginal_entropy": 0.5, "min_feature_spread": 0.2, "min_rank_share": 0.5, "max_top_class_share": 0.6,
        },
        "deciding": {
            "measure": "agreement", "min_gain": 0.0, "min_lower_gain": 0.0, "min_lower_incumbent": 0.0,
            "min_lower_step": -0.02, "min_treatments": 6,
        },
        "guards": {}, "references": {},
        "approval": {"releases": "automatic", "approvers": (), "sources": {}},
    }
)  # fmt: skip
BATCH = BatchName("lab_b", "2026_01", "0" * 64)
LADDER = ("unadapted", "aligned", "coral", "coda", "coda+aligned", "coda+coral")
HEALTHY = {"marginal_entropy": 0.95, "top_class_share": 0.2, "feature_spread": 0.9, "rankme": 20.0}
NOISE = np.random.default_rng(0).normal(0, 0.05, 24)


def policy(**changes: Any) -> GatePolicy:
    """The policy with some of its sections' values changed: section -> values."""
    content = POLICY.model_dump()
    for section, values in changes.items():
        content[section] = {**content[section], **values}
    return GatePolicy.model_validate(content)


def guard(otherwise: str = "hold", max_fall: float = 0.0, min_treatments: int = 6) -> dict[str, Any]:
    return {"otherwise": otherwise, "max_fall": max_fall, "min_treatments": min_treatments}


def reference(otherwise: str = "hold", min_lower_gain: float = 0.0, min_treatments: int = 6) -> dict[str, Any]:
    kept = {"otherwise": otherwise, "min_lower_gain": min_lower_gain, "min_treatments": min_treatments}
    return {"measure": "replicate_map", **kept}


def by_treatment(level: float, noise: np.ndarray = NOISE) -> dict[str, float]:
    return {f"t{k:02d}": float(level + part) for k, part in enumerate(noise)}


def candidate(
    name: str, level: float, *, noise: np.ndarray = NOISE, finite: bool = True, alarms: tuple[str, ...] = (),
    compared_by: str = "plate", incumbent: bool = False, others: dict[str, dict[str, float]] | None = None,
    **changes: float,
) -> CandidateMeasures:  # fmt: skip
    health = {**HEALTHY, **changes}
    return CandidateMeasures(
        name=name,
        complexity=LADDER.index(name) if name in LADDER else 0 if name == "incumbent" else 9,
        finite=finite,
        classes=8,
        compared_by=compared_by,
        measures={key: Measure(value=value, n=100) for key, value in health.items()},
        by_treatment={"agreement": by_treatment(level, noise), **(others or {})},
        alarms=alarms,
        incumbent=incumbent or name == "incumbent",
    )


def features_of(name: str, values: dict[str, float]) -> ReferenceMeasures:
    """A reference that retrieves replicates so well."""
    return ReferenceMeasures(name=name, says=name, measures={}, by_treatment={"replicate_map": values})


def run(
    *candidates: CandidateMeasures, by: GatePolicy = POLICY, references: tuple[ReferenceMeasures, ...] = ()
) -> GateReport:
    return decide(candidates, by, BATCH, seed=0, samples=200, references=references)
