"""A scrape endpoint over the text files of the batch steps: what stands in for a Pushgateway on one machine."""

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from coda.monitoring.listening import listening
from coda.monitoring.metric_names import METRICS

log = logging.getLogger(__name__)

UNREADABLE = "coda_metrics_files_unreadable"


class TextfileCollector(Collector):
    """Reads every ``*.prom`` file of a folder at each scrape and exposes them as one set of metrics.

    Where two files hold the same series, the newer file wins. A file that cannot be read is left out and counted in
    `coda_metrics_files_unreadable`, so a half-broken folder still says something.
    """

    def __init__(self, folder: Path) -> None:
        """Remember the folder; it may not exist yet."""
        self.folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield one metric for each name in the files, and the count of files that could not be read."""
        kinds: dict[str, tuple[str, str]] = {}
        samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], Sample]] = {}
        unreadable = 0
        for path in self._files():
            try:
                families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, IndexError, KeyError) as error:  # what the parser raises for broken lines
                log.warning("The metrics file %s cannot be read (%s); it is left out.", path, error)
                unreadable += 1
                continue
            for family in families:
                kinds[family.name] = (family.documentation, family.type)
                known = samples.setdefault(family.name, {})
                for sample in family.samples:
                    known[sample.name, tuple(sorted(sample.labels.items()))] = sample
        for name, (documentation, kind) in sorted(kinds.items()):
            metric = Metric(name, documentation, kind)
            metric.samples = list(samples[name].values())
            yield metric
        yield GaugeMetricFamily(UNREADABLE, METRICS[UNREADABLE].help, value=unreadable)

    def _files(self) -> list[Path]:
        stamped = []
        for path in self.folder.glob("*.prom"):
            try:
                stamped.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:  # replaced between listing and reading
                continue
        return [path for _, path in sorted(stamped)]


def serve(folder: Path, port: int, *, host: str = "127.0.0.1") -> tuple[WSGIServer, Thread, int]:
    """Expose the metrics files of a folder at ``http://host:port/metrics``.

    Args:
        folder: `Settings.metrics_dir`.
        port: TCP port; 0 takes a free one.
        host: Address to bind; loopback unless the operator says otherwise.

    Returns:
        The server (call `shutdown` and `server_close` to stop it), its thread, and the port it listens on.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(TextfileCollector(folder))
    with listening("The metrics endpoint", host, port):
        server, thread = start_http_server(port, addr=host, registry=registry)
    return server, thread, int(server.server_port)
