"""A metric is declared in one place, and everything that is said of it comes from there."""

import subprocess
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from coda.config.policy import TreatmentMeasure
from coda.evaluation.gate.__main__ import page
from coda.evaluation.gate.definitions import BY_NAME, METRICS
from coda.evaluation.metrics.metric import Metric, MetricInputs
from coda.evaluation.metrics.metric_result import MetricResult

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_says_what_the_declarations_say() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page(), "python -m coda.evaluation.gate docs/metrics.md"


def test_every_name_stands_once_and_can_be_put_in_a_sentence() -> None:
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert bool(metric.quantity) == metric.by_treatment, f"{metric.name}: sentences speak of gains by treatment"
        assert metric.says
        assert not metric.says.endswith(".")
    assert {metric.name for metric in METRICS if metric.by_treatment} == set(get_args(TreatmentMeasure))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("NUCLEAR_NORM", {"metrics/nuclear_norm.py", "gate/definitions.py"}),
        ("BATCH_PREDICTABILITY", {"metrics/predictability.py", "gate/definitions.py"}),
        ("CONTROL_ACCURACY", {"metrics/controls.py", "gate/definitions.py"}),
    ],
)
def test_a_metric_takes_its_own_file_and_a_line_in_the_list(name: str, files: set[str]) -> None:
    """One that a policy may name takes a word in `TreatmentMeasure`, too; that is all (docs/architecture.md)."""
    metric = next(item for item in METRICS if item.name == name.lower())
    command = ["git", "grep", "-lwE", f'{name}|"{metric.name}"', "--", "coda", "components", "pipelines"]
    found = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    policy = {"coda/config/policy.py"} if metric.by_treatment else set()
    assert {path for path in found if path.endswith(".py")} == {f"coda/evaluation/{file}" for file in files} | policy


def table() -> pd.DataFrame:
    """Return two batches of two plates, four compounds, a control and one positive control."""
    kinds = [
        *[("trt", f"c{number}") for number in range(4)],
        ("poscon", "taxol"),
        ("negcon", "DMSO"),
        ("negcon", "DMSO"),
    ]
    rows = [
        {
            "Metadata_Source": "lab", "Metadata_Batch": batch, "Metadata_Plate": f"{batch}-{plate}",
            "Metadata_Well": f"A{well:02d}", "Metadata_Site": site, "Metadata_Treatment": name,
            "Metadata_Compound": name, "Metadata_pert_type": kind,
        }
        for batch in ("b1", "b2") for plate in (1, 2) for well, (kind, name) in enumerate(kinds) for site in (1, 2)
    ]  # fmt: skip
    random = np.random.default_rng(3)
    p = random.dirichlet(np.ones(3), len(rows))
    return pd.DataFrame(rows).assign(**{f"p_{k}": p[:, k] for k in range(3)})


def test_results_do_not_hang_on_who_asks_first() -> None:
    rows, features = table(), np.random.default_rng(4).normal(size=(56, 5))
    forwards, backwards = MetricInputs(rows, features, features + 1), MetricInputs(rows, features, features + 1)
    one = {metric.name: forwards.result(metric) for metric in METRICS}
    other = {metric.name: backwards.result(metric) for metric in reversed(METRICS)}
    assert {name: repr(result) for name, result in one.items()} == {name: repr(other[name]) for name in one}
    assert all(result.n for name, result in one.items() if name != "control_accuracy"), "one control is never confused"


def test_a_metric_is_computed_once_for_all_who_ask() -> None:
    asked: list[int] = []

    def count(batch: MetricInputs) -> MetricResult:
        asked.append(len(batch.rows))
        return MetricResult(0.5, 1)

    metric, batch = Metric(name="own", says="a number", better=1, of=count), MetricInputs(table(), np.zeros((56, 2)))
    assert batch.result(metric) == batch.result(metric) == MetricResult(0.5, 1)
    assert asked == [40], "negative controls are left to metrics that ask for all wells"
