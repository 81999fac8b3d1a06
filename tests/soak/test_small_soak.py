"""A soak of a few batches: the harness itself works, and so does what it watches."""

import tempfile
from pathlib import Path

import pytest

from tests.soak.figures import summary_of, table_of
from tests.soak.soak import Size, soak

FAULTS = ("trigger killed", "step killed", "object store unanswered", "events repeated")


@pytest.mark.timeout(900)
def test_a_few_batches_with_faults_each_end_exactly_once():
    # the path of a socket must be short, and pytest's own folders are deep
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        outcome = soak(Path(folder), Size(batches=5, sources=2, seed=1, limit_s=600, faults=FAULTS))
        summary = summary_of(outcome)
    assert outcome.findings.clean, table_of(outcome)
    assert summary["accepted"] == summary["released_once"] >= 3
    assert summary["refused"] >= 1
    assert set(summary["kinds"]) <= set(FAULTS)
    assert summary["kinds"]["trigger killed"] == 1
    assert summary["triggers"] == 2
    assert summary["peak_rss_mib"] > 10
