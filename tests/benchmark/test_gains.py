"""Gains over aligned tokens in the same cell, by hand."""

import pandas as pd
import pytest

from coda.benchmark.gains import REFERENCE, gains_by_seed

ROWS = [("CODA", "none"), REFERENCE, ("CODA", "coral")]


def scores(*cells: tuple[int, str, str, str, float]) -> pd.DataFrame:
    """Rows of (seed, target, system, alignment, accuracy)."""
    shared = {"source": "a", "level": "image", "metric": "accuracy", "n": 8}
    names = ("seed", "target", "system", "alignment", "value")
    return pd.DataFrame([{**shared, **dict(zip(names, cell, strict=True))} for cell in cells])


def test_differences_are_within_a_seed_and_target():
    found = scores(
        (0, "b", *REFERENCE, 0.50), (1, "b", *REFERENCE, 0.70), (0, "c", *REFERENCE, 0.90), (0, "a", *REFERENCE, 0.95),
        (0, "b", "CODA", "none", 0.60), (1, "b", "CODA", "none", 0.50), (0, "c", "CODA", "none", 0.93),
        (1, "c", "CODA", "none", 0.10), (0, "a", "CODA", "none", 0.10), (0, "b", "CODA", "coral", 0.45),
    )  # fmt: skip
    (table,) = gains_by_seed(found, "a", ROWS, ["b", "c"])
    values = table.values.set_index(["system", "alignment", "target"])
    assert values["mean"].to_dict() == pytest.approx(
        {("CODA", "none", "b"): -0.05, ("CODA", "none", "c"): 0.03, ("CODA", "coral", "b"): -0.05}
    )
    assert values.loc[("CODA", "none", "b"), "sd"] == pytest.approx(0.15 * 2**0.5)
    assert table.shown.to_dict("records") == [
        {"system": "CODA", "b": "-5.0 ± 21.2", "c": "+3.0"},
        {"system": "CODA + CORAL", "b": "-5.0", "c": "–"},
    ]


def test_without_aligned_tokens_there_is_no_table():
    assert gains_by_seed(scores((0, "b", "CODA", "none", 0.6)), "a", ROWS, ["b"]) == []
