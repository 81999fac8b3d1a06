"""Who hears of an alert: through amtool, and from a pushed number to a chat's webhook, all of it real."""

import json
import re
import shutil
import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from prometheus_processes import eventually, get, process, tool
from servers import free_port

from coda.monitoring.alerts import ALERTS
from coda.monitoring.push import Sample, push
from coda.monitoring.routes import FOLDER, REPEAT
from coda.settings import Settings

PROGRAMS = ("prometheus", "prometheus-pushgateway", "prometheus-alertmanager", "amtool")
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        not all(shutil.which(name) for name in PROGRAMS),
        reason=f"not all of {', '.join(PROGRAMS)} are installed (apt-get install prometheus-alertmanager ...)",
    ),
]


@pytest.fixture
def configured(root):
    return root / "docker" / "alertmanager" / "alertmanager.yml"


def test_amtool_accepts_the_configuration(configured):
    assert "3 receivers" in tool("amtool", "check-config", str(configured))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_each_alert_goes_to_the_receiver_of_its_tier(configured, alert):
    labels = (f"alertname={alert.name}", f"severity={alert.tier}", "source=lab_b")
    said = tool("amtool", "config", "routes", "test", f"--config.file={configured}", *labels)
    assert said.split() == [alert.tier]


@contextmanager
def chat():
    """Incoming webhooks of a chat, one path a channel; yields its address and what was written there."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.path.strip("/"), json.loads(body)["attachments"][0]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def stack(root, configured, tmp_path):
    """Pushgateway, Prometheus with the alert rules, Alertmanager with the routes, and the chat."""
    gateway, prometheus, manager = free_port(), free_port(), free_port()
    with ExitStack() as ending:
        address, told = ending.enter_context(chat())
        for tier in REPEAT:
            (tmp_path / f"alert-{tier}").write_text(f"{address}/{tier}")
        text = configured.read_text().replace(FOLDER, str(tmp_path))
        (tmp_path / "alertmanager.yml").write_text(re.sub(r"(group_(?:wait|interval)): \w+", r"\1: 3s", text))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(root / "docker" / "prometheus" / "alerts.yml")],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
            "scrape_configs": [
                {
                    "job_name": "pushgateway", "honor_labels": True,
                    "static_configs": [{"targets": [f"127.0.0.1:{gateway}"]}],
                }
            ],
        }  # fmt: skip
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        listen = "--web.listen-address=127.0.0.1"
        commands = {
            "prometheus-pushgateway": [f"{listen}:{gateway}"],
            "prometheus-alertmanager": [
                f"{listen}:{manager}", f"--config.file={tmp_path / 'alertmanager.yml'}", "--cluster.listen-address=",
                f"--storage.path={tmp_path / 'silences'}",
            ],
            "prometheus": [
                f"{listen}:{prometheus}", f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
            ],
        }  # fmt: skip
        for name, arguments in commands.items():
            ending.enter_context(process(name, *arguments, log=tmp_path / f"{name}.log"))
        for port in (gateway, manager, prometheus):
            eventually(lambda port=port: get(f"http://127.0.0.1:{port}/-/ready"))
        values = {
            "landing": "s3://landing", "platform": "s3://platform", "mlflow_uri": "sqlite://", "data_registry": "r",
            "data_remote": "s3://r", "checkpoints": "c", "pushgateway": f"127.0.0.1:{gateway}",
        }  # fmt: skip
        yield Settings(**values), f"http://127.0.0.1:{manager}", told


def test_a_cause_is_told_in_its_channel_and_its_consequence_waits(stack):
    """Controls that drift, and the images of the same batch with them; another laboratory's images drift alone."""
    settings, manager, told = stack
    now = datetime.now(UTC).timestamp()
    for source, groups in (("lab_b", {"Controls": "negative controls", "Acquisition": "focus, ER"}),
                           ("lab_c", {"Acquisition": "focus, ER"})):  # fmt: skip
        scope = {"source": source, "instrument": "Phenix"}
        found = [Sample("coda_drift_batch_timestamp_seconds", now, {**scope, "batch": "b1", "page": "p"})]
        found += [
            Sample("coda_drift_rule_broken", 1, {**scope, "group": group, "metric": name, "rule": "CUSUM"})
            for group, name in groups.items()
        ]
        if source == "lab_c":
            found.append(Sample("coda_site_info", 1, {"url": "https://coda.example.org"}))
        assert push(found, job="drift", source=source, settings=settings)
    eventually(lambda: {channel for channel, _ in told} >= {"same-day", "weekly"})
    [note] = [note for channel, note in told if channel == "same-day"]
    assert note["title"] == "CodaControlsDrift: lab_b (firing, same-day)"
    assert (
        "negative controls left its history (CUSUM). https://coda.example.org/site/controls/lab_b.html" in note["text"]
    )
    assert "docs/runbooks/CodaControlsDrift.md" in note["text"]

    def suppressed():
        alerts = json.loads(get(f"{manager}/api/v2/alerts"))
        return [item["labels"] for item in alerts if item["status"]["inhibitedBy"]]

    [waits] = eventually(suppressed)
    assert (waits["alertname"], waits["source"]) == ("CodaSlowDrift", "lab_b")
    slow = [note["title"] for channel, note in told if channel == "weekly" and "CodaSlowDrift" in note["title"]]
    assert slow == ["CodaSlowDrift: lab_c (firing, weekly)"]
