"""Measures of features between batches and against no training, each against another implementation or brute force."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from coda.adaptation.references import PERCENTILES, pixel_statistics
from coda.evaluation.gate.untrained_features import measure_reference, standardised_by
from coda.evaluation.metrics.cka import linear_cka
from coda.evaluation.metrics.control_distance import control_distance
from coda.evaluation.metrics.controls import control_accuracy, control_map
from coda.evaluation.metrics.metric_result import Grouping
from coda.evaluation.metrics.predictability import batch_predictability
from coda.evaluation.metrics.retrieval import replicate_map


def test_linear_cka_equals_the_alignment_of_centred_gram_matrices() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 8))
    centre = np.eye(30) - np.full((30, 30), 1 / 30)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert linear_cka(x, y).value == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_linear_cka_is_one_for_a_rotation_and_low_for_noise() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 6))
    turned, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert linear_cka(3 * x @ turned + 5, x).value == pytest.approx(1.0)
    assert linear_cka(rng.normal(size=(400, 6)), x).value < 0.05
    assert linear_cka(np.ones((400, 6)), x).n == 0
    assert linear_cka(x[:1], x[:1]).n == 0
    assert linear_cka(x, np.where(np.arange(400) == 7, np.inf, x.T).T).n == 0


@pytest.mark.parametrize(("groups", "seed"), [(2, 0), (3, 1), (4, 2)])
def test_batch_predictability_equals_scikit_learn_fold_by_fold(groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    treatments = [f"t{k % 11:02d}" for k in range(90)]
    batches = [f"b{k}" for k in rng.integers(0, groups, 90)]
    shift = rng.normal(size=(groups, 6))
    x = rng.normal(size=(90, 6)) + 0.5 * shift[[int(name[1:]) for name in batches]]
    x[:, 3] = 7.0  # a constant feature must not divide by zero
    t, b = np.array(treatments), np.array(batches)
    predicted = np.empty(90, dtype=b.dtype)
    for fold in range(5):
        held_out = np.isin(t, np.unique(t)[fold::5])
        scaler = StandardScaler().fit(x[~held_out])
        reader = RidgeClassifier(alpha=1.0).fit(scaler.transform(x[~held_out]), b[~held_out])
        predicted[held_out] = reader.predict(scaler.transform(x[held_out]))
    chance = 1 / groups
    expected = (balanced_accuracy_score(b, predicted) - chance) / (1 - chance)
    score = batch_predictability(x, treatments, batches)
    assert score.value == pytest.approx(expected)
    assert score.n == 90


def test_a_batch_that_only_a_known_treatment_gives_away_is_not_predicted() -> None:
    """Each treatment has its own mark of the batch: nothing of it carries over to treatments never seen."""
    rng = np.random.default_rng(0)
    treatments = [f"t{k % 20:02d}" for k in range(400)]
    batches = [f"b{(k // 20) % 2}" for k in range(400)]
    signs = rng.choice([-1.0, 1.0], (20, 40))
    x = np.array([signs[k % 20] * (1 if (k // 20) % 2 else -1) for k in range(400)]) + 0.1 * rng.normal(size=(400, 40))
    assert abs(batch_predictability(x, treatments, batches).value) < 0.35
    plain = x + 2.0 * np.array([(k // 20) % 2 for k in range(400)])[:, None]
    assert batch_predictability(plain, treatments, batches).value > 0.9
    assert batch_predictability(x, treatments, ["b0"] * 400).n == 0
    assert batch_predictability(x, ["t"] * 400, batches).n == 0


def wells(seed: int, rows: int = 60) -> tuple[np.ndarray, Grouping, np.ndarray]:
    rng = np.random.default_rng(seed)
    treatments = [f"t{k}" for k in rng.integers(0, 8, rows)]
    design = Grouping.of(treatments, [f"b{k}" for k in rng.integers(0, 3, rows)])
    return rng.normal(size=(rows, 5)), design, np.isin(treatments, ["t0", "t3", "t5"])


@pytest.mark.parametrize("seed", range(3))
def test_positive_controls_are_told_apart_as_scikit_learns_neighbours_do(seed: int) -> None:
    x, design, controls = wells(seed)
    hits: dict[str, list[bool]] = {}
    for k in np.flatnonzero(controls):
        rest = np.flatnonzero(controls & (design.group != design.group[k]))
        if design.treatment[k] not in design.treatment[rest]:
            continue
        search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(x[rest])
        nearest = rest[search.kneighbors(x[k : k + 1], return_distance=False)[0, 0]]
        hits.setdefault(design.names[design.treatment[k]], []).append(
            bool(design.treatment[nearest] == design.treatment[k])
        )
    expected = {name: float(np.mean(found)) for name, found in hits.items()}
    assert control_accuracy(x, design, controls).by_treatment == pytest.approx(expected)


def test_a_single_positive_control_is_retrieved_but_never_confused() -> None:
    x, design, _ = wells(0)
    one = design.treatment == design.names.index("t3")
    assert control_accuracy(x, design, one).n == 0
    assert control_accuracy(x, design, np.zeros(60, dtype=bool)).n == 0
    every = replicate_map(x, design)
    assert control_map(every, {"t3"}).value == every.by_treatment["t3"]
    assert control_map(every, set()).n == 0


def control_rows(batches: int) -> pd.DataFrame:
    kinds = ["negcon"] * 4 + ["trt"] * 2
    return pd.DataFrame(
        [
            {
                "Metadata_Source": "lab", "Metadata_Batch": f"b{batch}", "Metadata_Plate": f"p{batch}",
                "Metadata_Well": f"A{well:02d}", "Metadata_pert_type": kind,
            }
            for batch in range(batches) for well, kind in enumerate(kinds) for _ in range(2)
        ]
    )  # fmt: skip


def test_the_distance_of_controls_is_the_mean_discrepancy_over_pairs_of_batches() -> None:
    rows, rng = control_rows(3), np.random.default_rng(0)
    x = rng.normal(size=(len(rows), 4)) + 2.0 * (rows["Metadata_Batch"] == "b2").to_numpy()[:, None]
    negcon = (rows["Metadata_pert_type"] == "negcon").to_numpy()
    means = x[negcon].reshape(12, 2, 4).mean(axis=1)
    distances = np.sqrt(((means[:, None] - means[None]) ** 2).sum(axis=2))
    gamma = 1 / (2 * np.median(distances[np.triu_indices(12, 1)]) ** 2)
    parts, pairs = means.reshape(3, 4, 4), []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        inside = [(rbf_kernel(parts[k], gamma=gamma).sum() - 4) / 12 for k in (i, j)]
        pairs.append(sum(inside) - 2 * rbf_kernel(parts[i], parts[j], gamma=gamma).mean())
    score = control_distance(rows, x)
    assert score.value == pytest.approx(np.mean(pairs))
    assert score.n == 12
    x[~negcon] = 1e6
    assert control_distance(rows, x).value == pytest.approx(np.mean(pairs))
    assert control_distance(control_rows(1), x[:12]).n == 0


def test_pixel_statistics_equal_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 20, 30)).astype(np.uint8)
    images[1, 0] = 255
    found = pixel_statistics(images).reshape(3, 2, -1)
    flat = images.reshape(3, 2, -1)
    assert found[..., 0] == pytest.approx(flat.mean(axis=2))
    assert found[..., 1] == pytest.approx(flat.std(axis=2), abs=1e-3)
    for place, percentile in enumerate(PERCENTILES, start=2):
        assert found[..., place] == pytest.approx(np.percentile(flat, percentile, axis=2, method="inverted_cdf"))


def test_references_are_standardised_on_the_wells_that_alignments_are_fitted_on() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(["b0", "b1"], 20)
    x = rng.normal(size=(40, 3)) * 5 + 100 * (groups == "b1")[:, None]
    every = standardised_by(x, groups, np.ones(40, dtype=bool))
    for name in ("b0", "b1"):
        assert every[groups == name].mean(axis=0) == pytest.approx(0, abs=1e-12)
        assert every[groups == name].std(axis=0) == pytest.approx(1)
    controls = np.arange(40) % 4 == 0
    by_controls = standardised_by(x, groups, controls)
    assert by_controls[controls & (groups == "b0")].mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert standardised_by(x, groups, np.zeros(40, dtype=bool)) == pytest.approx(every)
    assert not standardised_by(np.full((4, 2), 3.0), np.array(["b"] * 4), np.ones(4, dtype=bool)).any()


def test_a_reference_that_sees_the_treatment_retrieves_it_in_spite_of_the_batch() -> None:
    rows = pd.concat([control_rows(2)] * 5, ignore_index=True)
    copy = np.repeat(np.arange(5), len(rows) // 5)
    rows["Metadata_Well"] = [f"{well}-{k}" for well, k in zip(rows["Metadata_Well"], copy, strict=True)]
    rows["Metadata_Treatment"] = [
        "DMSO" if kind == "negcon" else f"t{k}" for kind, k in zip(rows["Metadata_pert_type"], copy, strict=True)
    ]
    effect = np.random.default_rng(0).normal(size=(5, 4))[copy]
    x = effect + 50.0 * (rows["Metadata_Batch"] == "b1").to_numpy()[:, None]
    groups, everywhere = rows["Metadata_Batch"].to_numpy(str), np.ones(len(rows), dtype=bool)
    found = measure_reference("pixels", rows, x.astype(np.float32), groups, everywhere, samples=50, seed=0)
    assert found.measures["replicate_map"].value == pytest.approx(1.0, abs=1e-6)
    assert set(found.by_treatment["replicate_map"]) == {f"t{k}" for k in range(5)}
    assert "standardised" in found.says
