"""Golden: the files beside the compose stack are what the code makes, and name nothing that does not exist."""

import json
import re

import pytest
import yaml
from typer.testing import CliRunner

from coda.cli.monitoring import app
from coda.monitoring.alerts import ALERTS, rule_resource_yaml, rules, rules_yaml
from coda.monitoring.dashboards import DATASOURCE, dashboards
from coda.monitoring.metric_names import METRICS, metric_of
from coda.monitoring.routes import route_resource_yaml, routes_yaml
from coda.trigger.site import SERVED

SERIES = re.compile(r"\bcoda_[a-z0-9_]+")
SELECTOR = re.compile(r"(coda_[a-z0-9_]+)\{([^}]*)\}")


def unknown_names(expression):
    return [name for name in SERIES.findall(expression) if metric_of(name) is None]


def strange_labels(expression):
    """Labels of a selector that its metric does not have."""
    found = []
    for name, inside in SELECTOR.findall(expression):
        metric = metric_of(name)
        labels = set(re.findall(r'(\w+)\s*[=!]~?"', inside))
        found += sorted(labels - set(metric.labels if metric else ()))
    return found


def panels(document):
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def targets(document):
    return [target for panel in panels(document) for target in panel["targets"]]


@pytest.mark.parametrize("name", dashboards())
def test_dashboard_file_is_what_the_code_makes(root, name):
    for folder in ("docker/grafana/dashboards", "k8s/components/grafana"):
        assert (root / folder / name).read_text() == dashboards()[name], "run `coda monitoring dashboards`"
        assert {path.name for path in (root / folder).glob("*.json")} == set(dashboards())


def test_alert_file_is_what_the_code_makes(root):
    assert (root / "docker" / "prometheus" / "alerts.yml").read_text() == rules_yaml(), "run `coda monitoring alerts`"
    resource = (root / "k8s/components/prometheus-operator/rules.yaml").read_text()
    assert resource == rule_resource_yaml(), "run `coda monitoring alerts`"
    assert (root / "docker/alertmanager/alertmanager.yml").read_text() == routes_yaml(), "run `coda monitoring alerts`"
    routes = (root / "k8s/components/prometheus-operator/routes.yaml").read_text()
    assert routes == route_resource_yaml(), "run `coda monitoring alerts`"


@pytest.mark.parametrize("name", dashboards())
def test_panels_have_numbers_a_data_source_a_query_and_words(name):
    document = json.loads(dashboards()[name])
    identifiers = [panel["id"] for panel in document["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    assert len(panels(document)) >= 9
    for panel in panels(document):
        assert panel["datasource"] == {"type": "prometheus", "uid": DATASOURCE}
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
        for target in panel["targets"]:
            assert not unknown_names(target["expr"]), panel["title"]
            assert not strange_labels(target["expr"]), panel["title"]
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            known = {label for name in SERIES.findall(target["expr"]) for label in metric_of(name).labels}
            assert legend <= known, panel["title"]


@pytest.mark.parametrize("name", dashboards())
def test_queries_and_links_use_variables_that_the_dashboard_has(name):
    document = json.loads(dashboards()[name])
    known = {variable["name"] for variable in document["templating"]["list"]}
    text = json.dumps([document["panels"], document["annotations"], document["links"]])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"1", "__value", "__field"}
    assert used <= known
    assert {"source", "site", "age"} <= known


def test_links_lead_to_pages_that_the_trigger_serves():
    served = set()
    for text in dashboards().values():
        for url in re.findall(r"\$\{site:raw\}(/[^\"]+)", text):
            path = re.sub(r"\$\{__(value\.raw|field\.labels\.source)\}", "lab_b", url)
            path = path.replace("/lab_b", f"/reports/lab_b/b1/{'0' * 64}/report.html", 1) if path == "/lab_b" else path
            assert SERVED.match(path.lstrip("/")), url
            served.add(path.split("/")[2] if path.startswith("/site") else "report")
    assert served == {"index.html", "source", "controls", "predictions", "report"}


def test_the_panels_of_a_row_do_not_overlap():
    for text in dashboards().values():
        taken = set()
        for panel in json.loads(text)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert place["x"] + place["w"] <= 24
            assert not taken & cells, panel["title"]
            taken |= cells


def test_every_metric_is_on_a_dashboard():
    documents = [json.loads(text) for text in dashboards().values()]
    told = [target["expr"] for document in documents for target in targets(document)]
    told += [variable.get("query", "") for document in documents for variable in document["templating"]["list"]]
    shown = {metric_of(name).name for text in told for name in SERIES.findall(text)}
    assert shown == set(METRICS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_names_known_metrics_and_labels_and_has_a_runbook(root, alert):
    assert not unknown_names(alert.expr)
    assert not strange_labels(alert.expr)
    runbook = root / "docs" / "runbooks" / f"{alert.name}.md"
    text = runbook.read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert f"`{alert.expr}`" in text, "the runbook shows another rule"
    assert f"**{alert.tier}**" in text
    assert all(heading in text for heading in ("## What it means", "## Where to look", "## What to do"))
    known = {label for name in SERIES.findall(alert.expr) for label in metric_of(name).labels}
    assert set(re.findall(r"\$labels\.(\w+)", alert.summary)) <= known


def test_no_runbook_is_left_over_and_the_index_lists_all(root):
    pages = {path.stem for path in (root / "docs" / "runbooks").glob("Coda*.md")}
    assert pages == {alert.name for alert in ALERTS}
    index = (root / "docs" / "runbooks" / "README.md").read_text()
    assert all(f"[{name}]({name}.md)" in index for name in pages)


def test_links_and_commands_of_the_runbooks_exist(root):
    from coda.cli import COMMANDS

    for path in (root / "docs" / "runbooks").glob("*.md"):
        text = path.read_text()
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert (path.parent / link).resolve().is_file(), f"{path.name}: {link}"
        for verb in re.findall(r"`coda (\w+)", text):
            assert verb in COMMANDS, f"{path.name}: coda {verb}"


def test_rules_carry_tier_and_runbook():
    document = yaml.safe_load(rules_yaml())
    assert document == rules()
    listed = [rule for group in document["groups"] for rule in group["rules"]]
    assert len(listed) == len(ALERTS)
    assert {rule["labels"]["severity"] for rule in listed} == {"page", "same-day", "weekly"}
    assert all(rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md" for rule in listed)


def test_the_command_writes_both_and_notices_a_changed_file(tmp_path):
    runner = CliRunner()
    path = tmp_path / "rules" / "alerts.yml"
    places = ["--path", str(path), "--routes", str(tmp_path / "routes.yml"), "--kubernetes", str(tmp_path / "k8s")]
    assert runner.invoke(app, ["alerts", *places]).exit_code == 0
    assert runner.invoke(app, ["alerts", *places, "--check"]).exit_code == 0
    path.write_text(path.read_text().replace("> 0", "> 1"))
    failed = runner.invoke(app, ["alerts", *places, "--check"])
    assert failed.exit_code != 0
    assert str(path) in str(failed.exception)
    assert runner.invoke(app, ["dashboards", "--folder", str(tmp_path), "--check"]).exit_code != 0
