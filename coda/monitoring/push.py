"""Metrics of batch steps: to a Pushgateway, or to a text file that the endpoint exposes.

A batch step lives for minutes, so nothing can scrape it. It pushes one group for each source and job: the next batch
of the source replaces the group whole, and no series outlives what it says. Watching never stops the work: a push
that fails is a warning in the log.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.request import HTTPHandler, Request, build_opener

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, push_to_gateway, write_to_textfile
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from coda.monitoring.metric_names import METRICS
from coda.settings import Settings

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Sample:
    """One number of a declared metric.

    Attributes:
        name: A gauge or info metric of `coda.monitoring.metric_names`.
        value: The number, in the metric's unit.
        labels: A value for each label of the metric.
    """

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def create(name: str, registry: CollectorRegistry) -> Gauge | Counter | Histogram:
    """Create a declared metric in a registry, for a service that keeps it while it lives (the trigger).

    Raises:
        KeyError: The metric is not declared in `coda.monitoring.metric_names`.
    """
    metric = METRICS[name]
    if metric.kind == "counter":
        return Counter(name.removesuffix("_total"), metric.help, metric.labels, registry=registry)
    if metric.kind == "histogram":
        return Histogram(name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
    return Gauge(name, metric.help, metric.labels, registry=registry)


class _Fixed(Collector):
    """Numbers that are known already. A `Gauge` would share them by files where PROMETHEUS_MULTIPROC_DIR is set."""

    def __init__(self, values: Mapping[str, Mapping[tuple[str, ...], float]]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for name, series in self._values.items():
            family = GaugeMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
            for labels, value in series.items():
                family.add_metric(labels, value)
            yield family


def build_registry(samples: Iterable[Sample]) -> CollectorRegistry:
    """Put samples into a registry of their own.

    Raises:
        ValueError: A metric is not declared, is no gauge, or a sample has other labels than declared.
    """
    values: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in samples:
        metric = METRICS.get(sample.name)
        if metric is None or metric.kind not in ("gauge", "info"):
            raise ValueError(f"{sample.name} is not a declared gauge; declare it in coda/monitoring/metric_names.py")
        if set(sample.labels) != set(metric.labels):
            raise ValueError(f"{sample.name} has labels {sorted(sample.labels)}, declared are {sorted(metric.labels)}")
        values.setdefault(sample.name, {})[tuple(str(sample.labels[name]) for name in metric.labels)] = sample.value
    registry = CollectorRegistry()
    registry.register(_Fixed(values))
    return registry


def textfile(folder: Path, job: str, source: str) -> Path:
    """Return the file that holds the metrics of one job and source."""
    return folder / f"{job}-{source}.prom"


def _sender(
    url: str, method: str, timeout: float | None, headers: Sequence[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    """Send as prometheus_client does, and take no page for a Pushgateway: its success has no content."""

    def send() -> None:
        request = Request(url, data=data, headers=dict(headers), method=method)  # noqa: S310  an address of the settings
        with build_opener(HTTPHandler).open(request, timeout=timeout) as answer:
            if answer.read(1):
                kind = answer.headers.get("Content-Type", "unknown type")
                message = f"an answer of {kind} that no Pushgateway gives; a sign-in page, say"
                raise OSError(message)

    return send


def push(samples: Iterable[Sample], *, job: str, source: str, settings: Settings) -> bool:
    """Push the metrics of one job and source to where the settings say; earlier ones of the group are replaced.

    Args:
        samples: Gauges; those with a `source` label must carry this source.
        job: Constant name of the job, for example ``coda_report``.
        source: Laboratory the metrics are about.
        settings: `pushgateway` and `metrics_dir`; both, one or none may be set.

    Returns:
        Whether everything that is configured has the metrics. Failures are logged, never raised.

    Raises:
        ValueError: The samples are not declared: a mistake in the program, not in the network.
    """
    samples = list(samples)
    strangers = {sample.labels["source"] for sample in samples if "source" in sample.labels} - {source}
    if strangers:
        raise ValueError(f"metrics of {sorted(strangers)} in the push of {source}")
    registry = build_registry(samples)
    done = True
    if settings.pushgateway:
        try:
            push_to_gateway(
                settings.pushgateway, job=job, grouping_key={"source": source}, registry=registry, timeout=TIMEOUT_S,
                handler=_sender,
            )  # fmt: skip
        except (OSError, HTTPException, ValueError) as error:  # ValueError: an address urllib cannot read
            log.warning(
                "The metrics of %s did not reach the Pushgateway at %s (%s); the run continues.",
                source, settings.pushgateway, error,
            )  # fmt: skip
            done = False
    if settings.metrics_dir:
        folder = Path(settings.metrics_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_to_textfile(str(textfile(folder, job, source)), registry)
        except OSError as error:
            log.warning("The metrics of %s were not written to %s (%s); the run continues.", source, folder, error)
            done = False
    return done
