import os
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from coda.errors import ConfigError
from coda.monitoring.endpoint import UNREADABLE, TextfileCollector, serve
from coda.monitoring.push import Sample, push
from coda.settings import Settings


def write(folder, source, plates, job="coda_report"):
    settings = Settings(
        landing="s3://l", platform="s3://p", mlflow_uri="sqlite://", data_registry="r", data_remote="s3://r",
        checkpoints="c", metrics_dir=str(folder),
    )  # fmt: skip
    labels = {"source": source, "instrument": "Phenix"}
    assert push([Sample("coda_batch_plates", plates, labels)], job=job, source=source, settings=settings)


def scrape(folder):
    registry = CollectorRegistry()
    registry.register(TextfileCollector(folder))
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert len({family.name for family in families}) == len(families), "each metric is exposed once"
    return {
        (sample.name, sample.labels.get("source")): sample.value for family in families for sample in family.samples
    }


def test_files_of_several_sources_become_one_metric(tmp_path):
    write(tmp_path, "lab_b", 3)
    write(tmp_path, "lab_c", 5)
    assert scrape(tmp_path) == {
        ("coda_batch_plates", "lab_b"): 3.0,
        ("coda_batch_plates", "lab_c"): 5.0,
        (UNREADABLE, None): 0.0,
    }


def test_the_newer_file_wins_where_two_hold_one_series(tmp_path):
    for job, plates, at in (("a", 7, 2000), ("b", 1, 1000)):
        write(tmp_path, "lab_b", plates, job=job)
        os.utime(tmp_path / f"{job}-lab_b.prom", (at, at))
    assert scrape(tmp_path)["coda_batch_plates", "lab_b"] == 7.0


@pytest.mark.parametrize("content", [b'coda_batch_plates{source="x" 3', b"\xff\xfe\x00", b"coda_batch_plates three\n"])
def test_a_broken_file_is_left_out_and_counted(tmp_path, content, caplog):
    write(tmp_path, "lab_b", 3)
    (tmp_path / "broken.prom").write_bytes(content)
    found = scrape(tmp_path)
    assert found[UNREADABLE, None] == 1.0
    assert found["coda_batch_plates", "lab_b"] == 3.0
    assert "broken.prom" in caplog.text


def test_a_folder_that_does_not_exist_yet_exposes_no_batch(tmp_path):
    assert scrape(tmp_path / "later") == {(UNREADABLE, None): 0.0}


def test_the_endpoint_answers_with_what_is_in_the_folder_now(tmp_path):
    server, thread, port = serve(tmp_path, 0)
    try:
        write(tmp_path, "lab_b", 4)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'coda_batch_plates{instrument="Phenix",source="lab_b"} 4.0' in text


@pytest.mark.parametrize("host", ["::1", "::", "127.0.0.1", "localhost"])
def test_the_endpoint_listens_on_addresses_of_both_families(tmp_path, host, answers_ipv6):
    if ":" in host and not answers_ipv6:
        pytest.skip("this machine has no ::1")
    write(tmp_path, "lab_b", 4)
    server, thread, port = serve(tmp_path, 0, host=host)
    at = {"::1": "[::1]", "::": "[::1]"}.get(host, host)
    try:
        with urllib.request.urlopen(f"http://{at}:{port}/metrics", timeout=5) as answer:
            assert b"coda_batch_plates" in answer.read()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_told_in_one_sentence(tmp_path, port):
    with pytest.raises(ConfigError) as caught:
        serve(tmp_path, port)
    assert caught.value.message.endswith("0-65535.")
    assert ".." not in str(caught.value)
