from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from report_inputs import CLASSES, manifest, write_batch, write_run
from scipy.stats import entropy

from coda.contracts import StepRecord
from coda.monitoring.facts import digest_mismatches, negcon_wells, samples, summarise
from coda.monitoring.inputs import gather
from coda.monitoring.push import build_registry


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def inputs(run):
    return gather(run.dataset, **run.arguments())


def numbers(inputs, history=(), steps=()):
    batch = inputs.batches[0]
    summary = summarise(inputs, batch, batch.manifest.created_at + timedelta(hours=2))
    found = samples(inputs, batch, summary, history, steps)
    build_registry(found)  # all of them are declared, with the right labels
    rest = {"source", "instrument", "pipeline"}
    result = {}
    for item in found:
        key = (item.name, *(value for label, value in sorted(item.labels.items()) if label not in rest))
        assert key not in result, "a series is given once"
        result[key] = item.value
    return result


def test_arrival_and_integrity_are_those_of_the_quality_report(inputs):
    found = numbers(inputs)
    assert found["coda_batch_plates",] == 3
    assert found["coda_batch_fields_expected",] == 144
    assert found["coda_fields_quarantined",] == 2
    assert found["coda_fields_quarantined_share",] == pytest.approx(2 / 144)
    assert found["coda_digest_mismatches",] == 1
    assert found["coda_checks_failed", "warning"] == 1
    assert found["coda_checks_failed", "critical"] == 0
    verdicts = {key[1]: value for key, value in found.items() if key[0] == "coda_batch_verdict"}
    assert verdicts == {"accepted": 0, "accepted_with_warnings": 1, "refused": 0}
    assert found["coda_batch_decision_seconds",] == 7200
    assert found["coda_negcon_wells",] == 4


def test_image_statistics_are_medians_over_fields(inputs):
    column = inputs.batches[0].index["QC_p95_AGP"]
    assert numbers(inputs)["coda_acquisition_value", "AGP", "p95"] == pytest.approx(float(np.median(column)))


def test_predictions_are_judged_on_treated_fields_only(inputs, run):
    table = inputs.predictions["field"]
    treated = table[table["Metadata_pert_type"] == "trt"]
    p = treated[[f"p_{name}" for name in CLASSES]].to_numpy()
    found = numbers(inputs)
    top = treated["predicted"].value_counts(normalize=True).max()
    assert found["coda_prediction_top_class_share",] == pytest.approx(top)
    assert found["coda_prediction_mean_entropy",] == pytest.approx(
        entropy(p, axis=1, base=len(CLASSES)).mean(), rel=1e-4
    )
    answers = inputs.candidates.predictions["unadapted"].set_index("image_id").loc[treated["image_id"]]
    before = answers[[f"p_{name}" for name in CLASSES]].idxmax(axis=1).str.removeprefix("p_")
    changed = np.mean(before.to_numpy() != treated["predicted"].to_numpy())
    assert found["coda_prediction_changed_share",] == pytest.approx(changed)


def test_changed_answers_are_compared_by_mechanism_and_not_by_place(inputs):
    table = inputs.predictions["field"]
    reordered = table[
        [*(name for name in table.columns if not name.startswith("p_")), *(f"p_{c}" for c in CLASSES[::-1])]
    ]
    before = {**inputs.candidates.predictions, "unadapted": reordered}
    same = replace(inputs, candidates=replace(inputs.candidates, predictions=before))
    assert numbers(same)["coda_prediction_changed_share",] == 0


def test_the_gate_and_the_adaptation_are_told(inputs):
    found = numbers(inputs, steps=[StepRecord(name="ingest", seconds=3), StepRecord(name="adapt", seconds=30)])
    assert found["coda_gate_outcome", "release"] == 1
    assert found["coda_gate_outcome", "refuse"] == 0
    assert found["coda_gate_measure_baseline", "agreement"] == pytest.approx(0.31)
    assert found["coda_gate_measure_chosen", "agreement"] == pytest.approx(0.58)
    assert found["coda_gate_gain", "low"] == pytest.approx(0.23)
    assert found["coda_gate_unhealthy_candidates",] == 1
    assert found["coda_gate_not_released_in_a_row",] == 0
    assert found["coda_adaptation_loss", "last"] == pytest.approx(4.2)
    assert found["coda_adaptation_pairable_share",] == pytest.approx(0.98)
    assert found["coda_embedding_drift_before", "frechet_to_source"] == pytest.approx(2.5)
    assert found["coda_embedding_drift_after", "frechet_to_source"] == pytest.approx(0.4)
    assert found["coda_step_seconds", "adapt"] == 30
    assert found["coda_run_seconds",] == 33


def test_what_is_unknown_is_left_out_and_never_zero(tmp_path):
    write_batch(tmp_path, manifest(), verdict="refused")
    found = numbers(gather(tmp_path))
    names = {key[0] for key in found}
    assert found["coda_batch_verdict", "refused"] == 1
    assert found["coda_batch_fields_accepted",] == 0
    unknown = ("coda_prediction", "coda_gate", "coda_embedding", "coda_acquisition", "coda_negcon")
    assert not [name for name in names if name.startswith(unknown)]


def test_a_plate_without_any_control_counts_as_zero(inputs):
    batch = inputs.batches[0]
    index = batch.index.copy()
    index.loc[index["Metadata_Plate"] == "p2", "Metadata_pert_type"] = "trt"
    changed = batch.__class__(**{**vars(batch), "index": index})
    assert negcon_wells(changed) == {"p1": 4, "p2": 0, "p3": 4}


def test_only_changed_bytes_count_as_mismatch(inputs):
    batch = inputs.batches[0]
    assert digest_mismatches(batch) == 1, "a truncated image alone is no change of bytes"
