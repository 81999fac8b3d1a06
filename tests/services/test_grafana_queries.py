"""Every query of every dashboard, asked of a real Prometheus that holds forty replayed batches and fifty sources."""

import json
import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_processes import eventually, get, process, promtool, query
from replayed_history import EVERY, LABORATORIES, openmetrics, replay
from servers import free_port

from coda.monitoring.alerts import ALERTS
from coda.monitoring.dashboards import dashboards

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        not all(shutil.which(name) for name in ("prometheus", "promtool")),
        reason="prometheus and promtool are not installed (apt-get install prometheus)",
    ),
]

END = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SOURCES = 50


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replayed")
    replayed = replay(END)
    assert replayed.batches == 40
    assert openmetrics(replayed, END, folder / "history.txt") > 50_000
    promtool("tsdb", "create-blocks-from", "openmetrics", str(folder / "history.txt"), str(folder / "data"))
    (folder / "prometheus.yml").write_text("global: {}\n")
    port = free_port()
    command = (
        "prometheus", f"--web.listen-address=127.0.0.1:{port}", f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=100y",
    )  # fmt: skip
    with process(*command, log=folder / "prometheus.log"):
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: get(f"{address}/-/ready"))
        yield address


def values_of(address, definition, **chosen):
    """What Grafana offers for a variable `label_values(selector, label)`."""
    selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", definition).groups()
    start, end = END - timedelta(days=90), END
    url = f"{address}/api/v1/label/{label}/values"
    answer = get(url, **{"match[]": filled(selector, chosen), "start": start.timestamp(), "end": end.timestamp()})
    return json.loads(answer)["data"]


def filled(text, chosen):
    """Put chosen values in as Grafana does for Prometheus: several as alternatives, letters of expressions escaped."""
    for name, value in chosen.items():
        put = value
        if not isinstance(value, str):
            escaped = [re.sub(r"[$^*{}\[\]'+?.()|\\]", r"\\\\\g<0>", item) for item in value]
            put = f"({'|'.join(escaped)})"
        text = re.sub(rf"\$(?:{name}\b|\{{{name}\}})", lambda _, put=put: put, text)
    assert "$" not in text.replace('"$1"', ""), text
    return text


def variables(document, address, sources):
    """What is chosen when a dashboard is opened, with these sources."""
    chosen = {}
    for variable in document["templating"]["list"]:
        name = variable["name"]
        if name == "source":
            chosen[name] = sources
        elif variable["type"] == "custom":
            chosen[name] = variable["current"]["value"]
        else:
            offered = values_of(address, variable["query"], **chosen)
            assert offered, name
            chosen[name] = offered[0] if variable["hide"] else ".*" if variable.get("allValue") else offered
    return chosen


def asked(document):
    return [
        (panel["title"], target["refId"], target["expr"])
        for panel in document["panels"] if panel["type"] != "row" for target in panel["targets"]
    ]  # fmt: skip


ALL = ".*"
BY_NAME = [f"site_{n:02d}" for n in range(SOURCES - 3)] + ["lab_b", "lab_c", "lab_d"]
CHOICES = {"all": ALL, "one": ["lab_b"], "every one by name": BY_NAME}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", dashboards())
def test_every_query_has_an_answer(prometheus, name, choice):
    document = json.loads(dashboards()[name])
    chosen = variables(document, prometheus, CHOICES[choice])
    only_lab_c = {"coda_failed_run", "coda_last_failure"}  # the one batch that failed is another laboratory's
    silent = [
        (title, expr)
        for title, ref, expr in asked(document)
        if not query(prometheus, filled(expr, chosen), time=END.timestamp())
        and not (choice == "one" and any(part in expr for part in only_lab_c))
    ]
    assert not silent


def test_a_source_variable_offers_all_fifty(prometheus):
    for name, text in dashboards().items():
        found = {item["name"]: item for item in json.loads(text)["templating"]["list"]}
        assert len(values_of(prometheus, found["source"]["query"])) == SOURCES, name
        assert found["source"]["multi"]
    [table] = [panel for panel in json.loads(dashboards()["coda-fleet.json"])["panels"] if panel["title"] == "Sources"]
    rows = query(prometheus, filled(table["targets"][0]["expr"], {"source": BY_NAME}), time=END.timestamp())
    assert {row["metric"]["source"] for row in rows} == set(BY_NAME)


def test_lines_over_time_have_every_judged_batch(prometheus):
    """A gauge holds the newest batch alone; what was scraped over time is the line over all of them."""
    lab = LABORATORIES[0]
    judged = 'coda_drift_value{source="lab_b",metric="bright structures, ER"}'
    answer = get(
        f"{prometheus}/api/v1/query_range", query=judged, start=(END - EVERY * (lab.batches + 2)).timestamp(),
        end=END.timestamp(), step=4 * 3600,
    )  # fmt: skip
    [line] = json.loads(answer)["data"]["result"]
    assert len({value for _, value in line["values"]}) == lab.batches - len(lab.refused)


@pytest.mark.parametrize("name", dashboards())
def test_no_old_number_is_shown_as_if_it_were_of_now(prometheus, name):
    """When the newest batches are older than wanted, only ages and what still holds are shown."""
    document = json.loads(dashboards()[name])
    chosen = variables(document, prometheus, ALL) | {"age": "3600"}  # the newest batches ended four hours ago
    held = r"time\(\)|coda_trigger|coda_runs_total|coda_release|coda_batch_ended|coda_drift_level|coda_metrics_files"
    held += "|coda_failed_run"
    shown = [
        (title, expr)
        for title, _, expr in asked(document)
        if "< $age" in expr
        and any(float(row["value"][1]) for row in query(prometheus, filled(expr, chosen), time=END.timestamp()))
    ]
    assert not shown
    unbounded = [
        (title, expr)
        for title, _, expr in asked(document)
        if "$age" not in expr and not re.search(held, filled(expr, chosen))
    ]
    assert not unbounded, "it tells of a batch, however old that is"


def test_marks_are_at_the_times_of_batches_and_releases(prometheus):
    found = json.loads(dashboards()["coda-source.json"])["annotations"]["list"]
    step, start = 4 * 3600, END - EVERY * 26
    marks = {}
    for item in found:
        expr = filled(item["expr"], {"source": ["lab_b", "lab_c"]})
        answer = get(
            f"{prometheus}/api/v1/query_range", query=expr, start=start.timestamp(), end=END.timestamp(), step=step
        )
        for series in json.loads(answer)["data"]["result"]:
            assert series["metric"]["url"] == "https://coda.example.org"
            for _, value in series["values"]:
                marks.setdefault(item["name"], set()).add((series["metric"]["source"], float(value) / 1000))
    lab_b, lab_c, _ = LABORATORIES
    first = END - timedelta(hours=4) - EVERY * (lab_b.batches - 1)
    refused = (first + EVERY * lab_b.refused[0]).timestamp()
    failed = (END - timedelta(hours=4) - EVERY * (lab_c.batches - 1 - lab_c.failed[0])).timestamp()
    assert marks["Batches refused or failed"] == {("lab_b", refused), ("lab_c", failed)}
    assert len([1 for source, _ in marks["Batches released"] if source == "lab_b"]) == lab_b.batches - 1
    assert {source for source, _ in marks["Releases and rollbacks"]} == {"lab_b", "lab_c"}


def firing(prometheus, name):
    [alert] = [alert for alert in ALERTS if alert.name == name]
    return query(prometheus, alert.expr, time=END.timestamp())


def test_the_rules_tell_the_ageing_lamp_from_the_failed_control(prometheus):
    slow = firing(prometheus, "CodaSlowDrift")
    images = [row["metric"] for row in slow if row["metric"]["group"] == "Acquisition"]
    assert {(found["source"], found["metric"]) for found in images} == {("lab_b", "bright structures, ER")}
    controls = firing(prometheus, "CodaControlsDrift")
    assert {row["metric"]["source"] for row in controls} >= {"lab_c"}
    assert "positive controls, bright structures, AGP" in {row["metric"]["metric"] for row in controls}
    for name in ("CodaTriggerSilent", "CodaBatchRefused", "CodaNothingArrived", "CodaDeadLetters"):
        assert not firing(prometheus, name), name
