"""Policies on the same sets of candidates: every kind of broken model is there, and counts are what was decided."""

import pandas as pd
import pytest

from coda.config import load_params
from studies.gate_calibration.calibration_gate import MARGIN
from studies.gate_calibration.calibration_models import BROKEN
from studies.gate_calibration.policy_comparison import compare_policies, summarise_policy
from tests.benchmark.conftest import DESIGN


@pytest.fixture(scope="module")
def comparison(short, plates, root):
    named = ("gate-v4", "gate-v5")
    policies = [load_params(root / "params.yaml", [], [f"gate.policy={name}"]).gate.policy for name in named]
    return compare_policies(
        short, plates / "calibration", policies, seeds=[3], runs=("lab_a:lab_c:1.0:balanced",),
        design={**DESIGN, "negcon_wells": 3, "poscon_wells": 2},
    )  # fmt: skip


def test_every_policy_decides_on_every_kind_of_model(comparison):
    assert comparison.runs == 1, [outcome.cause for outcome in comparison.outcomes]
    assert set(comparison.decisions) == {"gate-v4", "gate-v5"}
    for decisions in comparison.decisions.values():
        assert set(decisions["candidates"]) == {"coda", "oda", *BROKEN}
        assert set(decisions.loc[decisions["broken"], "candidates"]) == set(BROKEN)
    one, other = (table.set_index("candidates") for table in comparison.decisions.values())
    assert one[["unadapted", "best"]].equals(other[["unadapted", "best"]]), "they see the same sets"


def test_the_numbers_of_the_gate_alone_are_kept(comparison):
    for outcome in comparison.outcomes:
        for entry in (outcome.result or {}).get("models", ()):
            assert entry["metrics"] == {}
            assert "@" not in entry["model"]


def test_a_summary_counts_what_was_decided():
    row = {"run": 0, "candidates": "coda", "chosen": "coda", "missed": False, "worse": False}
    decisions = pd.DataFrame(
        [
            {**row, "broken": False, "outcome": "release", "unadapted": 0.4, "served": 0.6, "best": 0.6},
            {**row, "broken": False, "outcome": "keep_incumbent", "unadapted": 0.4, "served": 0.4, "best": 0.5},
            {**row, "broken": False, "outcome": "release", "unadapted": 0.4, "served": 0.3, "best": 0.4},
            {**row, "broken": True, "outcome": "release", "unadapted": 0.4, "served": 0.2, "best": 0.4},
            {**row, "broken": True, "outcome": "refuse", "unadapted": 0.4, "served": 0.125, "best": 0.4},
            {**row, "broken": True, "outcome": "hold", "unadapted": 0.4, "served": 0.4, "best": 0.4 + MARGIN / 2},
        ]
    )
    decisions["worse_margin"] = [False, False, True, True, False, False]
    decisions["broken_released"] = [False, False, False, True, False, False]
    decisions["regret"] = decisions["best"] - decisions["served"]
    sound, broken, every = summarise_policy(decisions)
    assert (sound["sets"], sound["released"], sound["worse"], sound["gainful"]) == (3, 2, 1, 2)
    assert sound["power"] == 0.5
    assert sound["regret"] == pytest.approx((0 + 0.1 + 0.1) / 3)
    assert (broken["sets"], broken["caught"], broken["refused"], broken["held"]) == (3, 2, 1, 1)
    assert broken["power"] != broken["power"], "no set in which anything was to be gained"
    assert (every["sets"], every["worse"]) == (6, 2)
