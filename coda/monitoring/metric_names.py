"""Every metric of the project, once: name, kind, family, help and labels.

Dashboards, alert rules, the batch steps and the trigger take their names from here; a test holds them to it. A label
is one of `LABELS` and never a batch, plate, well or run: labels that grow with the data would fill Prometheus. What a
number belongs to in detail is in the batch report and in the info metrics: one series a source at a time, which carries
its labels (`INFO_LABELS`) until the next batch or release replaces it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter", "histogram", "info"]
Family = Literal[
    "arrival", "integrity", "acquisition", "embedding", "prediction", "adaptation", "registry", "drift", "platform",
    "trigger",
]  # fmt: skip

PREFIX = "coda_"

CLOCKS_DIFFER_S = 300.0
"""Seconds by which the clocks of two well-kept machines may differ."""

LABELS = frozenset({"source", "instrument", "channel", "group", "metric", "rule", "step", "outcome", "pipeline"})
"""Labels any metric may have; each takes few values that do not grow with the number of batches."""

INFO_LABELS = frozenset({"release", "method", "extractor", "head", "alignment", "batch", "page", "url"})
"""Further labels of info metrics, which have one series a source (and microscope) at a time."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Name as it is exposed, with its unit; counters end in ``_total``.
        kind: Prometheus kind; an info metric is a gauge whose labels tell: its value is 1, or when they came to be so.
        family: What it is about; the dashboards have one row for each.
        help: One sentence for the person who reads the dashboard.
        labels: Label names, in the order they are declared.
        buckets: Upper bounds of a histogram's buckets, in the metric's unit.
    """

    name: str
    kind: Kind
    family: Family
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_HOURS = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0)
_SOURCE = ("source",)
_MICROSCOPE = ("source", "instrument")

_ARRIVAL = (
    Metric("coda_batch_plates", "gauge", "arrival", "Plates in the newest batch.", _MICROSCOPE),
    Metric("coda_batch_plates_accepted", "gauge", "arrival", "Plates of the newest batch accepted.", _MICROSCOPE),
    Metric("coda_batch_fields_expected", "gauge", "arrival", "Fields the newest batch should have.", _MICROSCOPE),
    Metric("coda_batch_fields_accepted", "gauge", "arrival", "Fields of the newest batch that are used.", _MICROSCOPE),
    Metric(
        "coda_batch_created_timestamp_seconds", "gauge", "arrival",
        "When the producer finished the newest batch that was processed.", _MICROSCOPE,
    ),
    Metric(
        "coda_batch_clock_ahead_seconds", "gauge", "arrival",
        "Seconds by which the newest batch's manifest was made in the future; the producer's clock is wrong.", _SOURCE,
    ),
    Metric(
        "coda_batch_decision_seconds", "gauge", "arrival",
        "Seconds from the producer's manifest to the decision on the newest batch.", _SOURCE,
    ),
)  # fmt: skip

_INTEGRITY = (
    Metric(
        "coda_fields_quarantined", "gauge", "integrity", "Fields of the newest batch that were set aside.", _MICROSCOPE
    ),
    Metric(
        "coda_fields_quarantined_share", "gauge", "integrity",
        "Share of the newest batch's expected fields that were set aside.", _MICROSCOPE,
    ),
    Metric(
        "coda_digest_mismatches", "gauge", "integrity",
        "Files of the newest batch whose bytes are not the ones in the manifest.", _MICROSCOPE,
    ),
    Metric(
        "coda_checks_failed", "gauge", "integrity",
        "Quality checks the newest batch failed; outcome is the severity: critical, warning or info.",
        ("source", "instrument", "outcome"),
    ),
    Metric(
        "coda_history_checks_failed", "gauge", "integrity",
        "Failed checks against the accepted history of the same microscope.", _MICROSCOPE,
    ),
    Metric(
        "coda_batch_verdict", "gauge", "integrity",
        "1 for the verdict on the newest batch (accepted, accepted_with_warnings, refused), 0 for the others.",
        ("source", "instrument", "outcome"),
    ),
    Metric(
        "coda_negcon_wells", "gauge", "integrity",
        "Fewest negative-control wells on an accepted plate of the newest batch.", _MICROSCOPE,
    ),
)  # fmt: skip

_ACQUISITION = (
    Metric(
        "coda_acquisition_value", "gauge", "acquisition",
        "Median over the newest batch's fields of an image statistic of one stain (p50, p95, near_black, focus, "
        "saturation).",
        ("source", "instrument", "channel", "metric"),
    ),
    Metric(
        "coda_acquisition_robust_z", "gauge", "acquisition",
        "Distance of coda_acquisition_value from the median of earlier accepted batches of the same microscope, "
        "in scaled median absolute deviations.",
        ("source", "instrument", "channel", "metric"),
    ),
)  # fmt: skip

_EMBEDDING = (
    Metric(
        "coda_embedding_drift_before", "gauge", "embedding",
        "Distance in the features before adaptation (metric: frechet_to_source, tokens to the source's tokens as a "
        "share of their variance; mmd_controls, negative controls between batches or plates).",
        ("source", "metric"),
    ),
    Metric(
        "coda_embedding_drift_after", "gauge", "embedding", "The same distance after adaptation.", ("source", "metric")
    ),
    Metric(
        "coda_embedding_drift_percentile", "gauge", "embedding",
        "Share of earlier accepted batches of the source with a smaller distance before adaptation than the newest, "
        "0 to 1.",
        ("source", "metric"),
    ),
)  # fmt: skip

_PREDICTION = (
    Metric(
        "coda_prediction_top_class_share", "gauge", "prediction",
        "Share of the newest batch's fields that are predicted as the most frequent class.", _SOURCE,
    ),
    Metric(
        "coda_prediction_marginal_entropy", "gauge", "prediction",
        "Entropy of the mean prediction, as a share of the logarithm of the number of classes.", _SOURCE,
    ),
    Metric("coda_prediction_mean_entropy", "gauge", "prediction",
           "Mean entropy of a field's prediction, as a share of the logarithm of the number of classes.", _SOURCE),
    Metric("coda_prediction_confidence", "gauge", "prediction", "Mean probability of the predicted class.", _SOURCE),
    Metric(
        "coda_prediction_changed_share", "gauge", "prediction",
        "Share of fields that the released model and the unadapted one predict differently.", _SOURCE,
    ),
)  # fmt: skip

_ADAPTATION = (
    Metric(
        "coda_gate_measure_baseline", "gauge", "adaptation",
        "Label-free measure of the model that would serve without adaptation.", ("source", "metric"),
    ),
    Metric(
        "coda_gate_measure_chosen", "gauge", "adaptation",
        "Label-free measure of the model the gate chose.", ("source", "metric"),
    ),
    Metric(
        "coda_gate_gain", "gauge", "adaptation",
        "Gain of the chosen model over the baseline in the deciding measure (metric: value, low, high).",
        ("source", "metric"),
    ),
    Metric(
        "coda_gate_outcome", "gauge", "adaptation",
        "1 for the gate's decision on the newest batch (release, keep_incumbent, hold, refuse), 0 for the others.",
        ("source", "outcome"),
    ),
    Metric(
        "coda_gate_unhealthy_candidates", "gauge", "adaptation",
        "Candidates of the newest batch that failed a health check, such as collapse.", _SOURCE,
    ),
    Metric(
        "coda_gate_not_released_in_a_row", "gauge", "adaptation",
        "Newest batches of the source in a row that ended without a release.", _SOURCE,
    ),
    Metric("coda_adaptation_loss", "gauge", "adaptation", "Adaptation loss (metric: first, last).",
           ("source", "metric")),
    Metric("coda_adaptation_pairable_share", "gauge", "adaptation",
           "Share of fields with a partner image of the same treatment in another group.", _SOURCE),
    Metric("coda_adaptation_seconds", "gauge", "adaptation", "Seconds the adaptation took.", _SOURCE),
)  # fmt: skip

_REGISTRY = (
    Metric(
        "coda_release_info", "info", "registry", "Release that serves the source.",
        ("source", "release", "method", "alignment", "extractor", "head"),
    ),
    Metric("coda_release_created_timestamp_seconds", "gauge", "registry",
           "When the release that serves the source was made.", _SOURCE),
    Metric("coda_release_moved_timestamp_seconds", "info", "registry",
           "When the release that serves the source came to serve it (outcome: promote, rollback).",
           ("source", "release", "outcome")),
)  # fmt: skip

_SERIES = ("source", "instrument", "group", "metric")

_DRIFT = (
    Metric("coda_batch_ended_timestamp_seconds", "info", "drift",
           "When the newest batch of the source ended, and how (released, incumbent_kept, held, refused, failed); page "
           "is what tells of it.", ("source", "batch", "outcome", "page")),
    Metric("coda_drift_batch_timestamp_seconds", "info", "drift",
           "When the newest batch ended that the drift rules judged: neither refused nor failed.",
           ("source", "instrument", "batch", "page")),
    Metric("coda_drift_level", "gauge", "drift",
           "1 for what the pages say of the source (steady, watch, drift, unknown: too few batches), 0 for the others.",
           ("source", "outcome")),
    Metric("coda_drift_value", "gauge", "drift", "A number of the newest judged batch, as the pages name it.", _SERIES),
    Metric("coda_drift_low", "gauge", "drift",
           "Three standard deviations below the mean of accepted history, wider while that is short.", _SERIES),
    Metric("coda_drift_high", "gauge", "drift", "Three standard deviations above that mean.", _SERIES),
    Metric("coda_drift_deviations", "gauge", "drift",
           "Distance of coda_drift_value from accepted history in standard deviations (Q statistic: standard normal "
           "while the process is steady).", _SERIES),
    Metric("coda_drift_cusum_share", "gauge", "drift",
           "Sum of deviations to one side (CUSUM) as a share of its limit: beyond -1 or 1 is a slow drift.", _SERIES),
    Metric("coda_drift_rule_broken", "gauge", "drift",
           "1 for each rule that the newest judged batch breaks (Westgard's, CUSUM; sudden: as rare as one in 500 "
           "batches over all numbers of the source); absent else.", (*_SERIES, "rule")),
    Metric("coda_drift_plates_apart", "gauge", "drift",
           "Plates of the newest judged batch that stand apart from the others in this number.", _SERIES),
    Metric("coda_site_info", "info", "drift", "Address of the pages about drift, for links.", ("url",)),
    Metric("coda_site_read_timestamp_seconds", "gauge", "drift",
           "When the trigger last read the table of batches and the release log."),
)  # fmt: skip

_PLATFORM = (
    Metric("coda_step_seconds", "gauge", "platform", "Seconds of each step of the newest run.",
           ("source", "pipeline", "step")),
    Metric("coda_run_seconds", "gauge", "platform", "Seconds of the newest run up to its report.",
           ("source", "pipeline")),
    Metric("coda_last_success_timestamp_seconds", "gauge", "platform",
           "When a batch of the source last went through to its report.", ("source", "pipeline")),
    Metric("coda_last_failure_timestamp_seconds", "gauge", "platform",
           "When a run of the source last failed; its page lies beside the batch's states in the ledger.", _SOURCE),
    Metric("coda_failed_run_timestamp_seconds", "gauge", "platform",
           "When the newest run of the source that failed left its page.", ("source", "pipeline")),
    Metric("coda_failed_run_step_seconds", "gauge", "platform",
           "Seconds of each step that ended in the newest run of the source that failed.",
           ("source", "pipeline", "step")),
    Metric("coda_metrics_pushed_timestamp_seconds", "gauge", "platform", "When these metrics were written.", _SOURCE),
    Metric("coda_metrics_files_unreadable", "gauge", "platform", "Metrics files that could not be read."),
    Metric("coda_runs_total", "counter", "platform",
           "Finished runs by outcome (released, incumbent_kept, held, refused, failed).", ("pipeline", "outcome")),
)  # fmt: skip

_TRIGGER = (
    Metric("coda_trigger_events_total", "counter", "trigger",
           "Manifests seen, by outcome (claimed, repeated, invalid).", ("outcome",)),
    Metric("coda_trigger_claims_total", "counter", "trigger", "Batches claimed for a run.", _SOURCE),
    Metric("coda_trigger_webhook_requests_total", "counter", "trigger",
           "Messages sent to the webhook, by outcome (recorded, repeated, unauthorised, unreadable, limited, away).",
           ("outcome",)),
    Metric("coda_trigger_queue_length", "gauge", "trigger", "Batches that wait for a run or have one in progress."),
    Metric("coda_trigger_oldest_waiting_seconds", "gauge", "trigger", "Age of the oldest batch still waiting."),
    Metric("coda_trigger_dead_letters", "gauge", "trigger", "Batches whose run failed for good, held for a person."),
    Metric("coda_trigger_held_by_machines", "gauge", "trigger",
           "Batches held since machines were lost or services away; opened again by themselves."),
    Metric("coda_trigger_defects_total", "counter", "trigger",
           "Errors nobody expected, by what they delayed (outcome: version, arrival, round).", ("outcome",)),
    Metric("coda_trigger_unreadable_records", "gauge", "trigger",
           "Records that cannot be read and that nobody mends (outcome: state, pointer).", ("outcome",)),
    Metric("coda_trigger_queue_messages_total", "counter", "trigger",
           "Messages of the queue, by outcome (recorded, elsewhere, unreadable, kept).", ("outcome",)),
    Metric("coda_trigger_notifications_total", "counter", "trigger",
           "Notifications to the operator's receiver, by outcome (delivered, failed, given_up).", ("outcome",)),
    Metric("coda_trigger_last_poll_timestamp_seconds", "gauge", "trigger", "When the trigger last looked for batches."),
    Metric("coda_trigger_lag_seconds", "histogram", "trigger",
           "Seconds from a manifest's creation to its claim.", (), _HOURS),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for family in (
        _ARRIVAL, _INTEGRITY, _ACQUISITION, _EMBEDDING, _PREDICTION, _ADAPTATION, _REGISTRY, _DRIFT, _PLATFORM,
        _TRIGGER,
    )
    for metric in family
}  # fmt: skip
"""Name -> metric."""

SERIES_SUFFIXES = ("_bucket", "_sum", "_count")
"""What Prometheus appends to a histogram's name."""


def metric_of(series: str) -> Metric | None:
    """Return the metric behind a series name, or None for a name that is not declared."""
    if series in METRICS:
        return METRICS[series]
    for suffix in SERIES_SUFFIXES:
        metric = METRICS.get(series.removesuffix(suffix))
        if metric is not None and metric.kind == "histogram":
            return metric
    return None
