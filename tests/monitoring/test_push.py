import logging
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import free_port
from strangers import ANSWERS, stranger

from coda.monitoring.push import Sample, build_registry, create, push, textfile
from coda.settings import Settings

PLATES = Sample("coda_batch_plates", 3, {"source": "lab_b", "instrument": "Opera Phenix"})
AGE = Sample("coda_last_success_timestamp_seconds", 1.7e9, {"source": "lab_b", "pipeline": "adaptation"})


def settings(**changes):
    values = {
        "landing": "s3://landing", "platform": "s3://platform", "mlflow_uri": "sqlite://", "data_registry": "r",
        "data_remote": "s3://r", "checkpoints": "c",
    }  # fmt: skip
    return Settings(**values, **changes)


@pytest.fixture
def gateway():
    """A server that keeps what was pushed, standing where a Pushgateway would."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            received.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()
    thread.join()


def values(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_push_replaces_one_group_for_each_job_and_source(gateway):
    address, received = gateway
    assert push([PLATES, AGE], job="coda_report", source="lab_b", settings=settings(pushgateway=address))
    [(path, body)] = received
    assert path == "/metrics/job/coda_report/source/lab_b"
    assert values(body) == {
        ("coda_batch_plates", (("instrument", "Opera Phenix"), ("source", "lab_b"))): 3.0,
        ("coda_last_success_timestamp_seconds", (("pipeline", "adaptation"), ("source", "lab_b"))): 1.7e9,
    }


def test_without_a_gateway_the_numbers_go_to_a_file_of_the_source(tmp_path):
    folder = tmp_path / "metrics"
    assert push([PLATES], job="coda_report", source="lab_b", settings=settings(metrics_dir=str(folder)))
    path = textfile(folder, "coda_report", "lab_b")
    assert [item.name for item in folder.iterdir()] == [path.name] == ["coda_report-lab_b.prom"]
    assert list(values(path.read_text()).values()) == [3.0]


def test_a_gateway_that_is_away_is_a_warning_and_the_file_is_written_all_the_same(tmp_path, caplog):
    config = settings(pushgateway=f"127.0.0.1:{free_port()}", metrics_dir=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert not push([PLATES], job="coda_report", source="lab_b", settings=config)
    assert "the run continues" in caplog.text
    assert config.pushgateway in caplog.text
    assert textfile(tmp_path, "coda_report", "lab_b").is_file()


@pytest.mark.parametrize(
    "case", ["sign-in page", "redirect to a sign-in page", "403 of a mesh", "502 page of a gateway"]
)
def test_a_page_in_place_of_the_gateway_takes_no_numbers_in_silence(case, caplog):
    with stranger(*ANSWERS[case][:3]) as server, caplog.at_level(logging.WARNING):
        config = settings(pushgateway=f"127.0.0.1:{server.server_port}")
        assert not push([PLATES], job="coda_report", source="lab_b", settings=config)
    assert "the run continues" in caplog.text


@pytest.mark.parametrize("address", ["http://[broken", "no such host:1", "127.0.0.1:notaport"])
def test_an_address_that_cannot_be_used_is_a_warning_too(address, caplog):
    with caplog.at_level(logging.WARNING):
        assert not push([PLATES], job="coda_report", source="lab_b", settings=settings(pushgateway=address))
    assert "the run continues" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with caplog.at_level(logging.WARNING):
        assert not push([PLATES], job="coda_report", source="lab_b", settings=settings(metrics_dir=str(blocked)))
    assert str(blocked) in caplog.text


def test_nothing_is_pushed_where_nothing_is_configured():
    assert push([PLATES], job="coda_report", source="lab_b", settings=settings())


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (Sample("coda_surprise", 1), "not a declared gauge"),
        (Sample("coda_runs_total", 1, {"pipeline": "training", "outcome": "failed"}), "not a declared gauge"),
        (Sample("coda_batch_plates", 1, {"source": "lab_b"}), "instrument"),
        (Sample("coda_batch_plates", 1, {"source": "lab_b", "instrument": "x", "batch": "b1"}), "batch"),
    ],
)
def test_a_number_that_is_not_declared_is_a_mistake_of_the_program(sample, words):
    with pytest.raises(ValueError, match=words):
        build_registry([sample])


def test_a_number_of_another_source_is_refused():
    with pytest.raises(ValueError, match="lab_b"):
        push([PLATES], job="coda_report", source="lab_c", settings=settings())


def test_the_trigger_gets_the_kind_that_is_declared():
    registry = build_registry([])
    create("coda_runs_total", registry).labels(pipeline="training", outcome="failed").inc()
    create("coda_trigger_lag_seconds", registry).observe(70)
    assert registry.get_sample_value("coda_runs_total", {"pipeline": "training", "outcome": "failed"}) == 1.0
    assert registry.get_sample_value("coda_trigger_lag_seconds_bucket", {"le": "300.0"}) == 1.0
    with pytest.raises(KeyError):
        create("coda_surprise", registry)


def test_a_step_pushes_though_numbers_of_several_processes_were_asked_for(tmp_path):
    """As a component is started: without the command line, in an environment that is not ours."""
    program = (
        "from types import SimpleNamespace as S\nfrom coda.monitoring.push import Sample, push\n"
        "labels = {'source': 'lab_b', 'instrument': 'Phenix'}\n"
        "samples = [Sample('coda_batch_plates', 3, labels), Sample('coda_batch_plates', 4, labels)]\n"
        f"settings = S(pushgateway=None, metrics_dir={str(tmp_path / 'metrics')!r})\n"
        "assert push(samples, job='coda_report', source='lab_b', settings=settings)\n"
    )
    absent = tmp_path / "absent"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(absent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "metrics" / "coda_report-lab_b.prom").read_text()
    assert "# TYPE coda_batch_plates gauge" in text
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'coda_batch_plates{instrument="Phenix",source="lab_b"} 4.0'
    ]
    assert not absent.exists()
