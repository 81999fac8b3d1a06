"""What the gate does with every set of candidates of a calibration, and what that was worth by the truth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from coda.config.policy import GatePolicy
from coda.evaluation.gate.decide import BatchName, decide
from coda.evaluation.gate.measures import CandidateMeasures
from coda.evaluation.gate.untrained_features import ReferenceMeasures
from studies.gate_calibration.calibration_models import BROKEN

Run = Mapping[str, Any]

MARGIN = 0.02
"""Accuracy below which a loss or a missed gain is left to chance: with 96 fields, two of them."""


@dataclass(frozen=True)
class GateSet:
    """Candidates of one run that a gate chooses from.

    Attributes:
        run: Number of the run.
        target: Source of the plates.
        seed: Seed of the bootstrap.
        name: Name of the adapted model among them.
        candidates: Their numbers.
        references: Numbers of features without training, on the same wells.
        accuracy: Candidate -> true field accuracy.
        adapted: Names of the candidates that were adapted.
    """

    run: int
    target: str
    seed: int
    name: str
    candidates: tuple[CandidateMeasures, ...]
    references: tuple[ReferenceMeasures, ...]
    accuracy: Mapping[str, float]
    adapted: frozenset[str]

    @property
    def broken(self) -> bool:
        """Whether the adapted model was deliberately broken."""
        return self.name in BROKEN


def gate_sets(runs: Sequence[Run]) -> list[GateSet]:
    """Return every set of candidates of these runs (results of `calibration_target.Target`)."""
    found = []
    for number, run in enumerate(runs):
        for name, group in run["sets"].items():
            entries = [run["models"][place] for place in group["candidates"]]
            references = run["references"][group["references"]]
            found.append(
                GateSet(
                    number, run["target"], run["seed"], name,
                    tuple(CandidateMeasures.model_validate_json(json.dumps(entry["measures"])) for entry in entries),
                    tuple(ReferenceMeasures.model_validate_json(json.dumps(item)) for item in references),
                    {entry["measures"]["name"]: entry["field_accuracy"] for entry in entries},
                    frozenset(entry["measures"]["name"] for entry in entries if entry["adapted"]),
                )
            )  # fmt: skip
    return found


def gate_outcomes(sets: Sequence[GateSet], policy: GatePolicy, *, samples: int) -> pd.DataFrame:
    """Let the gate decide on every set of candidates, as the pipeline's judge does, without an incumbent.

    Args:
        sets: What it chooses from.
        policy: What it decides by.
        samples: Bootstrap samples over treatments.

    Returns:
        One row a set: ``run``, ``candidates`` (name of the adapted model), ``broken``, ``outcome``, ``chosen``; field
        accuracies ``unadapted``, ``served`` (after the decision; a refusal counts as guessing) and ``best``;
        ``worse`` (released at a lower accuracy than the unadapted model's), ``worse_margin`` (by more than `MARGIN`),
        ``missed`` (not released although a candidate was better by more than `MARGIN`), ``broken_released``, and
        ``regret`` (best minus served).
    """
    return pd.DataFrame([_outcome(item, policy, samples) for item in sets])


def summarise_outcomes(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return counts and means for each kind of set, for the sound ones, the broken ones, and all.

    Returns:
        One row each: ``candidates``, ``sets``, ``released``, ``held``, ``kept``, ``refused``; sums of ``worse``,
        ``worse_margin``, ``missed``, ``broken_released``; means of ``gain`` (served minus unadapted) and ``regret``.
    """
    parts = [(str(name), part) for name, part in outcomes.groupby("candidates", sort=False)]
    parts += [("sound", outcomes[~outcomes["broken"]]), ("broken", outcomes[outcomes["broken"]]), ("all", outcomes)]
    return pd.DataFrame(
        [
            {
                "candidates": name, "sets": len(part),
                **{word: int((part["outcome"] == outcome).sum()) for word, outcome in _WORDS.items()},
                **{word: int(part[word].sum()) for word in ("worse", "worse_margin", "missed", "broken_released")},
                "gain": float((part["served"] - part["unadapted"]).mean()), "regret": float(part["regret"].mean()),
            }
            for name, part in parts
        ]
    )  # fmt: skip


NO_DIGEST = "0" * 64
"""A calibration is about no delivered batch."""

_WORDS = {"released": "release", "held": "hold", "kept": "keep_incumbent", "refused": "refuse"}


def _outcome(item: GateSet, policy: GatePolicy, samples: int) -> dict[str, Any]:
    batch = BatchName(item.target, "calibration", NO_DIGEST)
    report = decide(
        item.candidates, policy, batch, seed=item.seed, samples=samples, references=item.references
    )  # fmt: skip
    before, best = item.accuracy[policy.baseline], max(item.accuracy.values())
    released = report.outcome == "release"
    # what is held, or kept, is the baseline: calibrations have no incumbent
    serving = report.chosen if released and report.chosen is not None else policy.baseline
    # a refusal withholds all predictions: it counts as guessing, else refusing would look free
    served = item.accuracy[serving] if report.fit_to_predict else 1 / max(item.candidates[0].classes, 1)
    return {
        "run": item.run, "candidates": item.name, "broken": item.broken, "outcome": report.outcome,
        "chosen": report.chosen, "unadapted": before, "served": served, "best": best,
        "worse": released and served < before, "worse_margin": released and served < before - MARGIN,
        "missed": not released and best > before + MARGIN,
        "broken_released": released and item.broken and serving in item.adapted, "regret": best - served,
    }  # fmt: skip
