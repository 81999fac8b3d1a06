"""Metrics against a real Prometheus and Pushgateway, and the alert rules through promtool."""

import json
import shutil
import urllib.error
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
import yaml
from prometheus_processes import eventually, get, process, promtool, query
from report_inputs import write_run
from servers import free_port

from coda.contracts import StepRecord
from coda.monitoring.alerts import ALERTS
from coda.monitoring.endpoint import serve
from coda.monitoring.facts import samples, summarise
from coda.monitoring.inputs import gather
from coda.monitoring.push import push
from coda.settings import Settings

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        not all(shutil.which(name) for name in ("prometheus", "prometheus-pushgateway", "promtool")),
        reason="prometheus, prometheus-pushgateway and promtool are not installed (apt-get install prometheus "
        "prometheus-pushgateway)",
    ),
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory, root):
    """Pushgateway, the text file endpoint, and a Prometheus that scrapes both and loads the alert rules."""
    folder = tmp_path_factory.mktemp("prometheus")
    gateway, prometheus = free_port(), free_port()
    textfiles = folder / "metrics"
    with ExitStack() as ending:
        server, thread, endpoint = serve(textfiles, 0)
        ending.callback(thread.join)
        ending.callback(server.server_close)
        ending.callback(server.shutdown)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(root / "docker" / "prometheus" / "alerts.yml")],
            "scrape_configs": [
                {"job_name": name, "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for name, port in (("pushgateway", gateway), ("textfiles", endpoint))
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        listen = "--web.listen-address=127.0.0.1"
        ending.enter_context(process("prometheus-pushgateway", f"{listen}:{gateway}", log=folder / "pushgateway.log"))
        ending.enter_context(
            process(
                "prometheus",
                f"{listen}:{prometheus}",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                log=folder / "prometheus.log",
            )
        )
        eventually(lambda: get(f"http://127.0.0.1:{gateway}/-/ready"))
        eventually(lambda: get(f"http://127.0.0.1:{prometheus}/-/ready"))
        yield f"http://127.0.0.1:{prometheus}", f"127.0.0.1:{gateway}", textfiles


def batch_samples(folder, **changes):
    run = write_run(folder, **changes)
    inputs = gather(run.dataset, **run.arguments())
    batch = inputs.batches[0]
    # alerts on a batch end by themselves after days, so it is a batch of now
    summary = summarise(inputs, batch, datetime.now(UTC))
    return samples(inputs, batch, summary, [], [StepRecord(name="ingest", seconds=3.0)])


def settings(**changes):
    values = {
        "landing": "s3://landing", "platform": "s3://platform", "mlflow_uri": "sqlite://", "data_registry": "r",
        "data_remote": "s3://r", "checkpoints": "c",
    }  # fmt: skip
    return Settings(**values, **changes)


def test_a_pushed_batch_is_scraped_queried_and_replaced_by_the_next(stack, tmp_path):
    address, gateway, _ = stack
    found = batch_samples(tmp_path / "a")
    assert push(found, job="coda_report", source="lab_b", settings=settings(pushgateway=gateway))
    [plates] = eventually(lambda: query(address, 'coda_batch_plates{job="coda_report",source="lab_b"}'))
    assert float(plates["value"][1]) == 3.0
    assert plates["metric"]["instrument"] == "Opera Phenix"
    expected = {item.name for item in found}
    everything = '{job="coda_report",__name__=~"coda_.*"}'  # a query may meet a scrape that is only half stored
    eventually(lambda: {item["metric"]["__name__"] for item in query(address, everything)} == expected)
    alert = 'ALERTS{alertname="CodaDigestMismatch",alertstate="firing",source="lab_b"}'
    assert eventually(lambda: query(address, alert)), "one file of this batch has other bytes"
    refused = [item for item in found if item.name in ("coda_batch_plates", "coda_batch_verdict")]
    assert push(refused, job="coda_report", source="lab_b", settings=settings(pushgateway=gateway))
    eventually(lambda: not query(address, 'coda_gate_outcome{source="lab_b"}'))
    assert eventually(lambda: query(address, 'coda_batch_plates{source="lab_b"}')), "the source itself is still there"


def test_text_files_are_scraped_through_the_endpoint(stack, tmp_path):
    address, _, textfiles = stack
    renamed = [
        type(item)(item.name, item.value, {**item.labels, "source": "lab_c"}) for item in batch_samples(tmp_path)
    ]
    assert push(renamed, job="coda_report", source="lab_c", settings=settings(metrics_dir=str(textfiles)))
    [plates] = eventually(lambda: query(address, 'coda_batch_plates{source="lab_c"}'))
    assert plates["metric"]["job"] == "textfiles"
    assert float(query(address, "coda_metrics_files_unreadable")[0]["value"][1]) == 0.0


@pytest.mark.parametrize("expression", sorted({alert.expr for alert in ALERTS}))
def test_prometheus_can_parse_each_expression(stack, expression):
    address, _, _ = stack
    assert json.loads(get(f"{address}/api/v1/format_query", query=expression))["status"] == "success"
    query(address, expression)


def test_prometheus_loaded_all_rules(stack):
    address, _, _ = stack
    groups = json.loads(get(f"{address}/api/v1/rules"))["data"]["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} == {alert.name for alert in ALERTS}


def test_a_broken_expression_would_be_noticed(stack):
    address, _, _ = stack
    with pytest.raises(urllib.error.HTTPError):
        get(f"{address}/api/v1/format_query", query="sum by (coda_batch_plates")


def test_promtool_accepts_the_rules(root):
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(root / "docker/prometheus/alerts.yml"))


def test_the_rules_fire_when_they_should_and_not_else(root, tmp_path):
    cases = yaml.safe_load((root / "tests/services/alert_rules_test.yml").read_text())
    tried = {case["alertname"] for group in cases["tests"] for case in group["alert_rule_test"]}
    assert tried == {alert.name for alert in ALERTS}, "each alert has a case"
    cases["rule_files"] = [str(root / "docker/prometheus/alerts.yml")]
    files = []
    # days evaluated each minute take a minute of CPU
    for interval in {case["interval"] for case in cases["tests"]}:
        chosen = [case for case in cases["tests"] if case["interval"] == interval]
        files.append(tmp_path / f"{interval}.yml")
        files[-1].write_text(yaml.safe_dump({**cases, "evaluation_interval": interval, "tests": chosen}))
    promtool("test", "rules", *map(str, files))
