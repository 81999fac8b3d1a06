import json
import re
from math import isnan

import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families
from report_inputs import manifest, write_batch, write_run
from servers import moto_server

from coda.adaptation.abstain import withhold
from coda.config import params_digest
from coda.contracts.changed import WhatChanged
from coda.errors import TransientError
from coda.monitoring.batch_numbers import BatchNumbers
from coda.monitoring.summaries import BatchSummary, gate_key
from coda.steps.report import report
from coda.storage.objects import ObjectStore

__all__ = ["moto_server"]


@pytest.fixture
def settings(moto_server, tmp_path):
    return moto_server.settings(tmp_path).model_copy(update={"metrics_dir": str(tmp_path / "metrics")})


def scraped(settings, source):
    path = f"{settings.metrics_dir}/coda_report-{source}.prom"
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        families = list(text_string_to_metric_families(file.read()))
    return {
        (sample.name, *sorted(value for label, value in sample.labels.items() if label != "source")): sample.value
        for family in families
        for sample in family.samples
    }


def test_page_summary_and_metrics_are_kept(settings, tmp_path, demo_params):
    run = write_run(tmp_path, params_digest=params_digest(demo_params))
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    for name, started in (("ingest", 1.0), ("adapt", 5.0)):
        times = {"name": name, "started": started, "seconds": 2.5}
        store.put(f"runs/run-1/steps/{name}.json", json.dumps(times).encode())
    out = tmp_path / "out" / "report"
    result = report(run.dataset, out, params=demo_params, settings=settings, run_id="run-1", **run.arguments())
    assert result == out
    prefix = f"reports/lab_b/b3/{manifest().digest()}/"
    assert store.get(f"{prefix}report.html") == out.read_bytes()
    assert store.get(gate_key("lab_b", "b3", manifest().digest())) == run.gate.read_bytes()
    summary = BatchSummary.parse(store.get(f"{prefix}summary.json"), "summary")
    assert summary.outcome == "release"
    assert summary.drift_before["frechet_to_source"] == 2.5
    found = scraped(settings, "lab_b")
    assert found["coda_batch_plates", "Opera Phenix"] == 3
    assert found["coda_run_seconds", "adaptation"] == 5.0
    assert found["coda_step_seconds", "adapt", "adaptation"] == 2.5
    assert "Time of each step" in out.read_text()


def test_what_changed_is_kept_with_its_pictures_and_its_numbers(settings, tmp_path, demo_params):
    run = write_run(tmp_path, params_digest=params_digest(demo_params))
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    out = tmp_path / "report.html"
    report(run.dataset, out, params=demo_params, settings=settings, run_id="run-1", **run.arguments())
    prefix = f"reports/lab_b/b3/{manifest().digest()}/"
    changed = WhatChanged.parse(store.get(f"{prefix}changed.json"), "changed.json")
    pictures = [item.key for item in store.list(prefix) if item.key.endswith(".png")]
    assert pictures == [f"{prefix}changed-{k}.png" for k in range(len(changed.pairs))]
    assert all(store.get(key).startswith(b"\x89PNG") for key in pictures)
    numbers = BatchNumbers.parse(store.get(f"{prefix}numbers.json"), "numbers").numbers
    found = {(n.measure, n.subject, n.plate): n for n in numbers if n.measure.startswith("two_sample/")}
    assert found["two_sample/against", "", ""].value == 4
    assert found["two_sample/accuracy", "", ""].value == changed.whole.accuracy
    (er,) = [part for part in changed.parts if part.by == "ER"]
    assert found["two_sample/p", "ER", ""].value == er.p_value
    assert found["two_sample/separation", "ER", ""].limit_high == max(er.earlier) < er.separation
    assert found["two_sample/told", "", changed.plates[0].plate].value == changed.plates[0].told
    page = out.read_text()
    assert "What changed against earlier batches" in page
    assert page.count('class="typical"') == len(changed.pairs)
    first = page[page.index("By each stain alone") :]
    assert first.index('<th scope="row">ER <span class="tag warning">stands apart') < first.index('<th scope="row">DNA')


def test_doing_it_twice_changes_nothing(settings, tmp_path, demo_params):
    run = write_run(tmp_path, outcome="keep_incumbent")
    for _ in range(2):
        report(run.dataset, tmp_path / "r.html", params=demo_params, settings=settings, run_id="r", **run.arguments())
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    names = {item.key.rpartition("/")[2] for item in store.list("reports/")}
    pictures = {f"changed-{k}.png" for k in range(6)}
    assert names == {"report.html", "summary.json", "gate.json", "numbers.json", "changed.json", *pictures}
    assert scraped(settings, "lab_b")["coda_gate_not_released_in_a_row",] == 1, "the batch must not meet itself"


def test_a_batch_is_compared_with_the_accepted_ones_before_it(settings, tmp_path, demo_params):
    for day in range(5):
        document = manifest(batch=f"b{day}", plates=("p1",), days=day)
        folder = write_batch(tmp_path / f"{day}", document, verdict="accepted")
        if day == 4:
            import pandas as pd

            index = pd.read_parquet(folder / "index.parquet")
            index["QC_p95_ER"] *= 3
            index.to_parquet(folder / "index.parquet")
        report(tmp_path / f"{day}", tmp_path / "r.html", params=demo_params, settings=settings, run_id=f"r{day}")
        found = scraped(settings, "lab_b")
        assert (("coda_acquisition_robust_z", "ER", "Opera Phenix", "p95") in found) == (day >= 4)
    assert found["coda_acquisition_robust_z", "ER", "Opera Phenix", "p95"] > 5
    assert abs(found["coda_acquisition_robust_z", "DNA", "Opera Phenix", "p95"]) < 5


def test_the_newest_of_several_batches_gives_the_metrics(settings, tmp_path, demo_params):
    write_batch(tmp_path / "d", manifest("lab_a", "b9", ("p1",), days=0), verdict="accepted")
    write_batch(tmp_path / "d", manifest("lab_a", "b1", ("p1", "p2"), days=3), verdict="accepted")
    report(tmp_path / "d", tmp_path / "r.html", params=demo_params, settings=settings, run_id="r")
    assert scraped(settings, "lab_a")["coda_batch_plates", "Opera Phenix"] == 2
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    assert len([item for item in store.list("reports/") if item.key.endswith("report.html")]) == 2


def test_a_broken_summary_of_the_past_does_not_stop_the_report(settings, tmp_path, demo_params, caplog):
    store = ObjectStore(settings.platform, settings.s3_endpoint)
    store.put("reports/lab_b/b0/x/summary.json", b"{not json")
    write_batch(tmp_path / "d", manifest(), verdict="refused")
    out = report(tmp_path / "d", tmp_path / "r.html", params=demo_params, settings=settings, run_id="r")
    assert "Not usable" in out.read_text()
    assert "reports/lab_b/b0/x/summary.json" in caplog.text


def test_a_platform_that_is_away_is_worth_a_retry(settings, tmp_path, demo_params, monkeypatch):
    from coda.steps import report as step

    def away(self, prefix):
        raise TransientError("The object store is away.")

    monkeypatch.setattr(step.ObjectStore, "list", away)
    write_batch(tmp_path / "d", manifest(), verdict="accepted")
    with pytest.raises(TransientError):
        report(tmp_path / "d", tmp_path / "r.html", params=demo_params, settings=settings, run_id="r")


def test_a_refused_batch_has_no_answers_and_no_numbers_about_them(settings, tmp_path, demo_params):
    run = write_run(tmp_path, outcome="refuse")
    for name in ("field", "well", "compound"):
        table = pd.read_parquet(run.predictions / f"{name}.parquet")
        table = table.assign(abstain_reason="")
        withhold(table, table["predicted"] != "", "The gate refused: so.").to_parquet(
            run.predictions / f"{name}.parquet"
        )
    out = tmp_path / "r.html"
    report(run.dataset, out, params=demo_params, settings=settings, run_id="r", **run.arguments())
    assert not re.search(r"\bnan\b", out.read_text(), re.IGNORECASE)
    found = scraped(settings, "lab_b")
    assert not [name for name, *_ in found if name.startswith("coda_prediction")]
    assert not [name for name, value in found.items() if isnan(value)]
