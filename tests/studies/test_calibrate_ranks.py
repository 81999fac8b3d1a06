"""Rank correlations of metrics with the truth, against scipy and by construction."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from studies.gate_calibration.calibration_estimates import estimate_table
from studies.gate_calibration.calibration_metrics import BETTER
from studies.gate_calibration.calibration_models import AS_THEY_ARE, SHUFFLED_MAP
from studies.gate_calibration.calibration_ranks import rank_table, spearman


def entry(accuracy: float, *, model="coda", way="none", view=AS_THEY_ARE, broken=False, **metrics):
    return {
        "model": model, "way": way, "view": view, "broken": broken, "adapted": model != "unadapted",
        "field_accuracy": accuracy, "metrics": metrics,
    }  # fmt: skip


def made_up_runs(seed: int, *, runs: int = 5, models: int = 8, noise: float = 0.1):
    """Runs in which agreement follows accuracy, and top_class_share goes against it, as they should."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        shift = rng.uniform(0, 5)  # another level in every run: only ranks within a run, or changes, can be compared
        accuracies = rng.uniform(0.2, 0.9, models)
        entries = [
            entry(
                a, model="unadapted" if k == 0 else f"coda@{k}", agreement=a + shift + noise * rng.standard_normal(),
                top_class_share=shift - a, lidar=rng.standard_normal(),
            )
            for k, a in enumerate(accuracies)
        ]  # fmt: skip
        found.append({"models": entries})
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_correlation_is_scipys_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, (2, 20)).astype(float)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)


def test_there_is_no_correlation_with_few_models_or_where_nothing_differs():
    assert np.isnan(spearman(np.arange(3.0), np.arange(3.0)))
    assert np.isnan(spearman(np.ones(9), np.arange(9.0)))


def test_within_is_the_mean_over_runs_and_less_is_turned_around():
    runs = made_up_runs(0)
    table = rank_table(runs).set_index("metric")
    assert set(table.index) == set(BETTER)
    assert table.loc["top_class_share", "within"] == pytest.approx(1)
    assert table.loc["top_class_share", "change"] == pytest.approx(1)
    own = [
        spearmanr([e["metrics"]["agreement"] for e in run["models"]], [e["field_accuracy"] for e in run["models"]])
        for run in runs
    ]
    row = table.loc["agreement"]
    assert row["within"] == pytest.approx(np.mean([result.statistic for result in own]))
    assert row["within_low"] <= row["within"] <= row["within_high"]
    assert row["runs"] == len(runs)
    assert np.isnan(table.loc["kbet", "within"])
    assert table.loc["kbet", "runs"] == 0


def test_the_interval_of_noise_holds_zero_and_the_best_metric_comes_first():
    runs = made_up_runs(1, runs=12)
    table = rank_table(runs)
    assert table["metric"].iloc[0] == "top_class_share"
    noise = table.set_index("metric").loc["lidar"]
    assert noise["within_low"] < 0 < noise["within_high"]
    assert rank_table(runs).equals(table), "the same seed gives the same intervals"


def test_changes_are_pooled_over_runs_against_the_unadapted_model():
    runs = made_up_runs(2)
    x, y = [], []
    for run in runs:
        first, *others = run["models"]
        x += [e["metrics"]["agreement"] - first["metrics"]["agreement"] for e in others]
        y += [e["field_accuracy"] - first["field_accuracy"] for e in others]
    row = rank_table(runs).set_index("metric").loc["agreement"]
    assert row["change"] == pytest.approx(spearmanr(x, y).statistic)


def test_what_adaptation_changed_is_measured_against_the_same_alignment():
    run = {
        "models": [
            entry(0.3, model="unadapted", agreement=0.0), entry(0.6, model="unadapted", way="coral", agreement=0.9),
            *(entry(0.3 + a, agreement=0.1 * a, model=f"coda@{k}") for k, a in enumerate((0.1, 0.2))),
            # with CORAL adaptation hurts, and agreement says so; against the raw model it would look like a gain
            *(entry(0.6 - a, way="coral", agreement=0.9 - a, model=f"coda@{k}") for k, a in enumerate((0.1, 0.2))),
        ]
    }  # fmt: skip
    row = rank_table([run]).set_index("metric").loc["agreement"]
    assert row["adaptation"] == pytest.approx(1)
    changed = dict(run, models=[*run["models"][:4], *(dict(e, field_accuracy=0.9) for e in run["models"][4:])])
    assert rank_table([changed]).set_index("metric").loc["agreement"]["adaptation"] < 0


def test_broken_models_count_only_where_they_should_and_other_plate_maps_never():
    runs = made_up_runs(3, noise=0.0)
    for run in runs:
        run["models"] += [
            entry(0.1, model="collapsed", broken=True, agreement=99.0),
            entry(0.0, model="unadapted", view=SHUFFLED_MAP, agreement=999.0),
        ]
    row = rank_table(runs).set_index("metric").loc["agreement"]
    assert row["within"] == pytest.approx(1)
    expected = [
        spearmanr(*np.array([(e["metrics"]["agreement"], e["field_accuracy"]) for e in run["models"][:-1]]).T).statistic
        for run in runs
    ]
    assert row["with_broken"] == pytest.approx(np.mean(expected))


def test_no_run_gives_a_table_without_numbers():
    assert rank_table([])["within"].isna().all()


def test_errors_of_estimates_are_told_by_kind_of_model_beside_a_constant():
    models = [
        entry(0.2, model="unadapted", predicted_accuracy=0.5), entry(0.6, model="unadapted", predicted_accuracy=0.5),
        entry(0.4, predicted_accuracy=0.9), entry(0.1, predicted_accuracy=0.3, broken=True),
        entry(0.1, view=SHUFFLED_MAP, broken=True, predicted_accuracy=0.9),
    ]  # fmt: skip
    table = estimate_table([{"models": models}]).set_index(["estimate", "of"])
    assert list(table.index) == [("ATC", "without adaptation"), ("ATC", "adapted"), ("ATC", "broken")]
    before = table.loc["ATC", "without adaptation"]
    assert before["models"] == 2
    assert before["bias"] == pytest.approx(0.1)
    assert before["error"] == pytest.approx(0.2)
    assert before["constant"] == pytest.approx(0.2), "says no more than the mean does"
    assert before["error_90"] == pytest.approx(0.28)
    assert table.loc["ATC", "adapted"]["error"] == pytest.approx(0.5)
    assert table.loc["ATC", "broken"]["models"] == 1, "not of wells that are other wells"
    assert estimate_table([]).empty
