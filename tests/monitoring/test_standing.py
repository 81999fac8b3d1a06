"""How a source stands, as metrics: what the pages say of it, in numbers that a scrape can take."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from servers import moto_server
from simulated_history import START, Story, frame_of, release, write_history

from coda.monitoring.push import Sample
from coda.monitoring.site import build_site
from coda.monitoring.site.build import KNOWN, Now, standings
from coda.monitoring.site.lines import source_of
from coda.monitoring.standing import SUDDEN, Standing, StandingMetrics, drift_samples, release_samples, standing_of
from coda.storage.objects import ObjectStore

__all__ = ["moto_server"]


@pytest.fixture
def store(moto_server, tmp_path):
    settings = moto_server.settings(tmp_path)
    return ObjectStore(settings.platform, settings.s3_endpoint)


def told(source, name, **labels):
    found = drift_samples({source.name: standing_of(source)})
    return [item for item in found if item.name == name and labels.items() <= item.labels.items()]


@pytest.fixture(scope="module")
def stepped():
    return source_of("lab_b", frame_of("lab_b", 16, 4, Story("step", 14)))


def test_a_step_is_told_with_its_number_its_limits_and_the_rules_it_breaks(stepped):
    labels = {"group": "Acquisition", "metric": "bright structures, ER", "instrument": "Opera Phenix"}
    value, low, deviations = (
        told(stepped, f"coda_drift_{name}", **labels)[0].value for name in ("value", "low", "deviations")
    )
    assert value < low
    assert deviations < -3
    rules = {item.labels["rule"] for item in told(stepped, "coda_drift_rule_broken", **labels)}
    assert {"1-3s", SUDDEN} <= rules
    level = {item.labels["outcome"]: item.value for item in told(stepped, "coda_drift_level")}
    assert level == {"drift": 1, "steady": 0, "watch": 0, "unknown": 0}


def test_the_metrics_and_the_pages_judge_alike(stepped):
    place = int(stepped.usable[-1])
    sudden, slow = ({line.name for line in lines} for lines in stepped.drifting(place))
    broken = [(item.labels["metric"], item.labels["rule"]) for item in told(stepped, "coda_drift_rule_broken")]
    assert {name for name, rule in broken if rule == SUDDEN} == sudden
    assert {name for name, rule in broken if rule == "CUSUM"} == slow
    shares = {item.labels["metric"]: item.value for item in told(stepped, "coda_drift_cusum_share")}
    assert {name for name, share in shares.items() if abs(share) > 1} == slow


def test_before_there_is_history_there_are_numbers_and_no_judgement():
    young = source_of("lab_b", frame_of("lab_b", 3, 4))
    assert told(young, "coda_drift_value")
    for name in ("low", "high", "deviations", "cusum_share", "rule_broken"):
        assert not told(young, f"coda_drift_{name}"), name
    assert [item.labels["outcome"] for item in told(young, "coda_drift_level") if item.value] == ["unknown"]


def test_a_refused_batch_is_the_newest_and_judges_nothing():
    source = source_of("lab_b", frame_of("lab_b", 24, 4))  # number 23 is refused
    [ended] = told(source, "coda_batch_ended_timestamp_seconds")
    assert (ended.labels["batch"], ended.labels["outcome"]) == ("b0023", "refused")
    [judged] = told(source, "coda_drift_batch_timestamp_seconds")
    assert judged.labels["batch"] == "b0022"
    assert judged.value < ended.value


def test_each_microscope_has_its_own_newest_batch():
    frame = frame_of("lab_b", 12, 4)
    other = frame["batch"].isin(["b0001", "b0003", "b0005"])
    frame["instrument"] = np.where(other, "Operetta", "Opera Phenix")
    found = told(source_of("lab_b", frame), "coda_drift_batch_timestamp_seconds")
    assert {item.labels["instrument"]: item.labels["batch"] for item in found} == {
        "Operetta": "b0005", "Opera Phenix": "b0011",
    }  # fmt: skip


def test_what_serves_is_the_newest_move_also_after_a_rollback():
    moves = [
        release("lab_b", 2, START, sequence=2),
        release("lab_b", 1, START, "rollback", 3),
        release("lab_b", 1, START),
    ]
    found = {item.name: item for item in release_samples(moves)}
    assert found["coda_release_info"].labels["release"] == "lab_b-0001"
    assert found["coda_release_moved_timestamp_seconds"].labels["outcome"] == "rollback"


def test_what_builds_the_pages_leaves_how_each_source_stands(store):
    for k, name in enumerate(("lab_b", "lab_c")):
        write_history(store, name, 8, 2, seed=k)
    build_site(store, Now())
    first = standings(store)
    assert set(first) == {"lab_b", "lab_c"}
    assert all(isinstance(standing, Standing) for standing in first.values())
    build_site(store, Now(running=[{"batch": "x/y", "state": "running", "since": "now"}]))
    assert standings(store) == first, "kept, though no page of a source was built again"
    store.put(KNOWN, b'{"sources": {"lab_b": {"row": 1}}}')
    assert standings(store) == {}, "of another release of this program: nothing is guessed"


def test_a_scrape_sees_one_look_and_nothing_of_the_one_before():
    metrics, registry = StandingMetrics(), CollectorRegistry()
    registry.register(metrics)
    metrics.replace([Sample("coda_drift_level", 1, {"source": "gone", "outcome": "drift"})])
    assert b'source="gone"' in generate_latest(registry)
    metrics.replace([Sample("coda_drift_level", 1, {"source": "lab_b", "outcome": "drift"})])
    text = generate_latest(registry)
    assert b'source="lab_b"' in text
    assert b"gone" not in text
