import re
from datetime import UTC, datetime

import pytest
from report_inputs import write_run
from simulated_history import START, frame_of, release

from coda.contracts import RunRecord, StepRecord
from coda.monitoring.endpoint import UNREADABLE
from coda.monitoring.facts import samples, summarise
from coda.monitoring.metric_names import INFO_LABELS, LABELS, METRICS, metric_of
from coda.monitoring.report import gather
from coda.monitoring.site.lines import source_of
from coda.monitoring.standing import drift_samples, release_samples, standing_of
from coda.monitoring.summaries import MIN_BATCHES
from coda.steps.conclude import samples_of_failure
from coda.trigger.metrics import TriggerMetrics


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_metric_has_a_proper_name_and_labels_that_do_not_grow(metric):
    assert re.fullmatch(r"coda_[a-z][a-z0-9_]*", metric.name)
    assert metric.help.endswith(".")
    assert set(metric.labels) <= LABELS | (INFO_LABELS if metric.kind == "info" else set())
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_no_label_names_a_batch_a_plate_a_well_or_a_run_but_of_the_newest():
    labels = {label for metric in METRICS.values() for label in metric.labels if metric.kind != "info"}
    assert not [label for label in labels if re.search(r"batch|plate|well|run|digest|image|page", label)]


def test_series_of_a_histogram_belong_to_it_and_those_of_a_gauge_do_not_exist():
    assert metric_of("coda_trigger_lag_seconds_bucket") is METRICS["coda_trigger_lag_seconds"]
    assert metric_of("coda_batch_plates_bucket") is None
    assert metric_of("coda_nothing") is None


def failed_run_samples():
    now, steps = datetime.now(UTC), (StepRecord(name="ingest", seconds=3.0),)
    record = RunRecord(
        run_id="r", pipeline="adaptation", started_at=now, finished_at=now, outcome="failed", sentence="It failed.",
        batches=("lab/b1",), manifest_digests=(), code_version="1", params_digest="0" * 64, seed=0, steps=steps,
    )  # fmt: skip
    return list(samples_of_failure(record, "lab"))


def test_every_declared_metric_is_really_produced(tmp_path):
    run = write_run(tmp_path)
    inputs = gather(run.dataset, **run.arguments())
    batch = inputs.batches[0]
    summary = summarise(inputs, batch, batch.manifest.created_at)
    history = [
        summary.model_copy(update={"manifest_digest": f"{k}" * 64, "batch": f"b-{k}"}) for k in range(MIN_BATCHES)
    ]
    made = {item.name for item in samples(inputs, batch, summary, history, [StepRecord(name="ingest", seconds=3.0)])}
    made |= {item.name for item in failed_run_samples()}
    standing = standing_of(source_of("lab_b", frame_of("lab_b", 24, 4)))  # the newest of them is refused
    made |= {item.name for item in drift_samples({"lab_b": standing})}
    made |= {item.name for item in release_samples([release("lab_b", 1, START)])}
    scraped = {family.name for family in TriggerMetrics().registry.collect()}
    declared = {name.removesuffix("_total") for name in METRICS}
    of_the_pages = {"coda_site_info", "coda_site_read_timestamp_seconds"}  # tests/trigger/test_trigger_pages.py
    assert made | scraped | {UNREADABLE} | of_the_pages == declared
