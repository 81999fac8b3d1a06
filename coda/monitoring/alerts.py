"""Alert rules as code. Each alert has a tier and a runbook of its own name.

Three tiers say when a person looks: ``page`` now, ``same-day`` within the working day, ``weekly`` at the weekly review.
Drift is compared with the source's own accepted history, never with a fixed number: batches of Cell Painting always
differ, and a fixed limit would fire on each of them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import yaml

Tier = Literal["page", "same-day", "weekly"]

RUNBOOKS = "docs/runbooks"


@dataclass(frozen=True)
class Alert:
    """One rule.

    Attributes:
        name: Name of the alert and of its runbook.
        tier: When a person must look.
        expr: PromQL that is true while the alert holds.
        hold: How long it must be true before it fires, as Prometheus writes durations.
        summary: One sentence; may use ``{{ $labels.x }}`` and ``{{ $value }}``.
    """

    name: str
    tier: Tier
    expr: str
    hold: str
    summary: str


def _of_late(expr: str, days: int) -> str:
    """Return a rule about the newest batch of a source that holds for some days after the batch, and not for ever.

    The gauges stay what they are until the source's next batch, which may come in months or never.
    """
    inner = f"({expr})" if " or " in expr else expr
    return f"{inner} and on (source) time() - coda_metrics_pushed_timestamp_seconds < {days} * 86400"


def _judged_of_late(expr: str, days: int) -> str:
    """Return a rule about the newest batch that the drift rules judged, of a source and microscope; as `_of_late`."""
    age = "time() - coda_drift_batch_timestamp_seconds"
    return f"{expr} and on (source, instrument) {age} < {days} * 86400"


ALERTS: tuple[Alert, ...] = (
    Alert(
        "CodaDigestMismatch", "page", _of_late("coda_digest_mismatches > 0", 3), "0m",
        "{{ $value }} file(s) of the newest batch of {{ $labels.source }} are not the bytes the manifest promises.",
    ),
    Alert(
        "CodaPredictionCollapse", "page",
        _of_late("coda_prediction_top_class_share > 0.9 or coda_prediction_marginal_entropy < 0.2", 3), "0m",
        "Nearly all fields of the newest batch of {{ $labels.source }} are predicted as one class.",
    ),
    Alert(
        "CodaDeadLetters", "page", "coda_trigger_dead_letters > 0", "5m",
        "{{ $value }} batch(es) were given up after repeated failures and wait for a person.",
    ),
    Alert(
        "CodaTriggerSilent", "page",
        "time() - coda_trigger_last_poll_timestamp_seconds > 900 or absent(coda_trigger_last_poll_timestamp_seconds)",
        "5m",
        "The trigger has not looked for new batches for a quarter of an hour.",
    ),
    Alert(
        "CodaBatchRefused", "same-day", _of_late('coda_batch_verdict{outcome="refused"} == 1', 3), "0m",
        "The newest batch of {{ $labels.source }} ({{ $labels.instrument }}) was refused; its report says why.",
    ),
    Alert(
        "CodaQuarantineHigh", "same-day", _of_late("coda_fields_quarantined_share > 0.01", 3), "0m",
        "{{ $value | humanizePercentage }} of the newest batch's fields of {{ $labels.source }} were set aside.",
    ),
    Alert(
        "CodaControlsMissing", "same-day", _of_late("coda_negcon_wells < 4", 3), "0m",
        "A plate of the newest batch of {{ $labels.source }} has only {{ $value }} negative-control wells.",
    ),
    Alert(
        "CodaControlsDrift", "same-day",
        _judged_of_late('coda_drift_rule_broken{group="Controls",rule=~"sudden|CUSUM"}', 3), "0m",
        "Controls of {{ $labels.source }} ({{ $labels.instrument }}): {{ $labels.metric }} left its history "
        "({{ $labels.rule }}).",
    ),
    Alert(
        "CodaGateKeptTwice", "same-day", _of_late("coda_gate_not_released_in_a_row >= 2", 3), "0m",
        "The last {{ $value }} batches of {{ $labels.source }} ended without a release.",
    ),
    Alert(
        "CodaUnhealthyCandidates", "same-day", _of_late("coda_gate_unhealthy_candidates > 0", 3), "0m",
        "{{ $value }} candidate(s) for the newest batch of {{ $labels.source }} failed a health check.",
    ),
    Alert(
        "CodaRunFailures", "same-day", 'increase(coda_runs_total{outcome="failed"}[6h]) >= 3', "0m",
        "{{ $value | humanize }} {{ $labels.pipeline }} runs failed within six hours.",
    ),
    Alert(
        "CodaBatchWaiting", "same-day", "coda_trigger_oldest_waiting_seconds > 14400", "10m",
        "A batch has been waiting for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "CodaReleaseMissing", "same-day",
        # what serves is told by the trigger: one that is silent has an alert of its own
        "coda_gate_outcome{outcome=\"release\"} == 1 and on () coda_site_read_timestamp_seconds "
        "unless on (source) coda_release_info", "10m",
        "The gate released a model for {{ $labels.source }}, but no release is recorded.",
    ),
    Alert(
        "CodaMetricsUnreadable", "same-day", "coda_metrics_files_unreadable > 0", "15m",
        "{{ $value }} metrics file(s) cannot be read; numbers on the dashboards are missing.",
    ),
    Alert(
        "CodaProducerClock", "same-day", _of_late("coda_batch_clock_ahead_seconds > 300", 3), "0m",
        "The newest manifest of {{ $labels.source }} was made {{ $value | humanizeDuration }} in the future.",
    ),
    Alert(
        "CodaDefects", "same-day", "sum by (outcome) (increase(coda_trigger_defects_total[6h])) > 0", "0m",
        "The trigger met errors that nobody expected ({{ $labels.outcome }}); what they were about waits.",
    ),
    Alert(
        "CodaRecordsUnreadable", "same-day", "coda_trigger_unreadable_records > 0", "5m",
        "{{ $value }} record(s) of the platform cannot be read ({{ $labels.outcome }}), and nobody mends them.",
    ),
    Alert(
        "CodaMessagesUnreadable", "same-day",
        'sum by (outcome) (increase(coda_trigger_queue_messages_total{outcome="unreadable"}[6h])) > 0', "0m",
        "Messages of the queue cannot be read; what they told of is found by listing alone, if at all.",
    ),
    Alert(
        "CodaNothingArrived", "weekly", "time() - coda_last_success_timestamp_seconds > 14 * 86400", "1h",
        "No batch of {{ $labels.source }} went through for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "CodaAcquisitionDrift", "weekly", _of_late("abs(coda_acquisition_robust_z) > 5", 8), "0m",
        "{{ $labels.channel }} {{ $labels.metric }} of {{ $labels.source }} ({{ $labels.instrument }}) is "
        "{{ $value | humanize }} standard deviations from its history.",
    ),
    Alert(
        "CodaSlowDrift", "weekly",
        _judged_of_late('coda_drift_rule_broken{group!="Controls",rule="CUSUM"}', 8), "0m",
        "{{ $labels.metric }} of {{ $labels.source }} ({{ $labels.instrument }}) drifts slowly: deviations to one "
        "side added up to more than the limit.",
    ),
    Alert(
        "CodaSuddenDrift", "weekly",
        _judged_of_late('coda_drift_rule_broken{group!="Controls",rule="sudden"}', 8), "0m",
        "{{ $labels.metric }} of {{ $labels.source }} ({{ $labels.instrument }}) is further from its history than one "
        "batch in 500 would be by chance.",
    ),
    Alert(
        "CodaEmbeddingDrift", "weekly", _of_late("coda_embedding_drift_percentile >= 0.95", 8), "0m",
        "The newest batch of {{ $labels.source }} lies further away ({{ $labels.metric }}) than nearly all accepted "
        "batches.",
    ),
    Alert(
        "CodaTopClassDoubled", "weekly",
        _of_late(
            "coda_prediction_top_class_share > 2 * avg_over_time(coda_prediction_top_class_share[30d] offset 1d)", 8
        ),
        "0m",
        "The most frequent class of {{ $labels.source }} is twice as frequent as in the last month.",
    ),
    Alert(
        "CodaSlowDecision", "weekly", _of_late("coda_batch_decision_seconds > 86400", 8), "0m",
        "The newest batch of {{ $labels.source }} took {{ $value | humanizeDuration }} from delivery to decision.",
    ),
)  # fmt: skip
"""All alerts, in the order of their tiers."""


def rules(alerts: tuple[Alert, ...] = ALERTS) -> dict[str, Any]:
    """Return the Prometheus rule file as data: one group for each tier."""
    groups = []
    for tier in ("page", "same-day", "weekly"):
        members = [_rule(alert) for alert in alerts if alert.tier == tier]
        if members:
            groups.append({"name": f"coda-{tier}", "rules": members})
    return {"groups": groups}


def rules_yaml() -> str:
    """Return the rule file's text, with a first line that says where it comes from."""
    return _text(rules())


def rule_resource_yaml() -> str:
    """Return the same rules as a resource of the Prometheus operator (PrometheusRule)."""
    metadata = {"name": "coda", "labels": {"role": "alert-rules"}}
    return _text(
        {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": rules()}
    )


def _text(document: dict[str, Any]) -> str:
    text = yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)
    return (
        f"# Written by `coda monitoring alerts` from coda/monitoring/alerts.py; a test holds the two together.\n{text}"
    )


def _rule(alert: Alert) -> dict[str, Any]:
    # Prometheus asks itself where the pages are; where it does not know, the annotation is empty
    part = "controls" if 'group="Controls"' in alert.expr else "source"
    path = f"/site/{part}/{{{{ $labels.source }}}}.html"
    page = f'{{{{ range query "coda_site_info" }}}}{{{{ .Labels.url }}}}{path}{{{{ end }}}}'
    of_source = "$labels.source" in alert.summary
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.hold,
        "labels": {"severity": alert.tier},
        "annotations": {
            "summary": alert.summary,
            "runbook_url": f"{RUNBOOKS}/{alert.name}.md",
            **({"page": page} if of_source else {}),
        },
    }
