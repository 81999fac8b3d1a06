"""Grafana dashboards as code: the fleet at a glance, and one page a source.

The JSON that is written stands under version control beside the compose stack; a test holds it to this file, and
another holds every metric in it to `coda.monitoring.names`.
"""

from dataclasses import dataclass
from itertools import count
from typing import Literal

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from coda.monitoring.names import METRICS, metric_of

DATASOURCE = "prometheus"
"""Uid of the Prometheus data source that the compose stack provisions."""

Shape = Literal["stat", "lines", "table"]


@dataclass(frozen=True)
class View:
    """One panel.

    Attributes:
        title: Heading in words of the field.
        expr: PromQL.
        legend: Legend, with ``{{label}}``.
        shape: How it is drawn.
        unit: Grafana unit: ``short``, ``percentunit``, ``s``, ``dateTimeAsIso``.
        span: Width in twenty-fourths of the page.
        limit: Value from which the number is drawn in red, where there is one.
    """

    title: str
    expr: str
    legend: str
    shape: Shape = "lines"
    unit: str = "short"
    span: int = 8
    limit: float | None = None


Row = tuple[str, tuple[View, ...]]
Panel = stat.Panel | table.Panel | timeseries.Panel

_SOURCE = '{source="$source"}'

FLEET: tuple[Row, ...] = (
    ("Now", (
        View("Batches held for a person", "coda_trigger_dead_letters", "held", "stat", span=4, limit=1),
        View("Batches waiting", "coda_trigger_queue_length", "waiting", "stat", span=4, limit=20),
        View("Oldest waiting", "coda_trigger_oldest_waiting_seconds", "age", "stat", "s", 4, 14400),
        View("Refused newest batches", 'sum(coda_batch_verdict{outcome="refused"})', "refused", "stat",
             span=4, limit=1),
        View("Failed runs, one day", 'sum(increase(coda_runs_total{outcome="failed"}[1d]))', "failed", "stat",
             span=4, limit=1),
        View("Trigger last looked", "time() - coda_trigger_last_poll_timestamp_seconds", "ago", "stat", "s", 4, 900),
    )),
    ("Arrival", (
        View("Fields accepted of the newest batch",
             "coda_batch_fields_accepted / (coda_batch_fields_expected > 0)", "{{source}} {{instrument}}",
             unit="percentunit"),
        View("From delivery to decision", "coda_batch_decision_seconds", "{{source}}", unit="s"),
        View("Producers' clocks ahead", "coda_batch_clock_ahead_seconds", "{{source}}", unit="s", limit=300),
        View("Since a run last failed", "time() - coda_last_failure_timestamp_seconds", "{{source}}", unit="s"),
        View("Since the last batch went through", "time() - coda_last_success_timestamp_seconds",
             "{{source}} {{pipeline}}", unit="s"),
    )),
    ("Decisions", (
        View("Verdict on the newest batch", "coda_batch_verdict == 1", "{{source}} {{outcome}}", "table", span=8),
        View("Gate's decision on the newest batch", "coda_gate_outcome == 1", "{{source}} {{outcome}}", "table",
             span=8),
        View("Releases that serve", "coda_release_info", "{{source}}", "table", span=8),
        View("Gain over the unadapted model", 'coda_gate_gain{metric="value"}', "{{source}}"),
        View("Batches in a row without a release", "coda_gate_not_released_in_a_row", "{{source}}", limit=2),
        View("Most frequent predicted class", "coda_prediction_top_class_share", "{{source}}", unit="percentunit",
             limit=0.6),
    )),
    ("Platform", (
        View("Runs by outcome", "sum by (pipeline, outcome) (increase(coda_runs_total[1d]))",
             "{{pipeline}} {{outcome}}"),
        View("Seconds by step, newest run", "sum by (step) (coda_step_seconds)", "{{step}}", unit="s"),
        View("Events by outcome", "sum by (outcome) (rate(coda_trigger_events_total[1h]))", "{{outcome}}"),
        View("Webhook messages by outcome", "sum by (outcome) (rate(coda_trigger_webhook_requests_total[1h]))",
             "{{outcome}}"),
        View("Batches claimed, one day", "sum by (source) (increase(coda_trigger_claims_total[1d]))", "{{source}}"),
        View("Delivery to claim, 95th percentile",
             "histogram_quantile(0.95, sum by (le) (rate(coda_trigger_lag_seconds_bucket[1d])))", "p95", unit="s"),
        View("Unreadable metrics files", "coda_metrics_files_unreadable", "files", "stat", span=4, limit=1),
        View("Records that cannot be read", "sum(coda_trigger_unreadable_records)", "records", "stat", span=4, limit=1),
        View("Defects, one day", "sum(increase(coda_trigger_defects_total[1d]))", "defects", "stat", span=4, limit=1),
        View("Held up by machines", "coda_trigger_held_by_machines", "held", "stat", span=4, limit=1),
        View("Queue messages by outcome", "sum by (outcome) (rate(coda_trigger_queue_messages_total[1h]))",
             "{{outcome}}"),
        View("Notifications, one day", "sum by (outcome) (increase(coda_trigger_notifications_total[1d]))",
             "{{outcome}}"),
    )),
)  # fmt: skip
"""Rows of the fleet dashboard."""

ONE_SOURCE: tuple[Row, ...] = (
    ("Newest batch", (
        View("Plates", f"coda_batch_plates{_SOURCE}", "{{instrument}}", "stat", span=4),
        View("Plates accepted", f"coda_batch_plates_accepted{_SOURCE}", "{{instrument}}", "stat", span=4),
        View("Fields set aside", f"coda_fields_quarantined_share{_SOURCE}", "{{instrument}}", "stat", "percentunit", 4,
             0.01),
        View("Files with wrong bytes", f"coda_digest_mismatches{_SOURCE}", "{{instrument}}", "stat", span=4, limit=1),
        View("Fewest control wells", f"coda_negcon_wells{_SOURCE}", "{{instrument}}", "stat", span=4),
        View("Age of the batch", f"time() - coda_batch_created_timestamp_seconds{_SOURCE}", "{{instrument}}", "stat",
             "s", 4),
    )),
    ("Images: each stain against its own history", (
        View("Deviation from accepted history", f"coda_acquisition_robust_z{_SOURCE}",
             "{{instrument}} {{channel}} {{metric}}", span=24, limit=5),
        View("Median brightness", 'coda_acquisition_value{source="$source",metric="p50"}',
             "{{instrument}} {{channel}}"),
        View("Bright structures (95th percentile)", 'coda_acquisition_value{source="$source",metric="p95"}',
             "{{instrument}} {{channel}}"),
        View("Near-black pixels", 'coda_acquisition_value{source="$source",metric="near_black"}',
             "{{instrument}} {{channel}}", unit="percentunit"),
        View("Focus (power log-log slope)", 'coda_acquisition_value{source="$source",metric="focus"}',
             "{{instrument}} {{channel}}"),
        View("Saturated pixels", 'coda_acquisition_value{source="$source",metric="saturation"}',
             "{{instrument}} {{channel}}", unit="percentunit"),
        View("Failed checks by severity", f"coda_checks_failed{_SOURCE}", "{{instrument}} {{outcome}}"),
        View("Failed checks against history", f"coda_history_checks_failed{_SOURCE}", "{{instrument}}"),
        View("Fields set aside", f"coda_fields_quarantined{_SOURCE}", "{{instrument}}"),
    )),
    ("Features before and after adaptation", (
        View("Distance before", f"coda_embedding_drift_before{_SOURCE}", "{{metric}}"),
        View("Distance after", f"coda_embedding_drift_after{_SOURCE}", "{{metric}}"),
        View("Place among accepted batches", f"coda_embedding_drift_percentile{_SOURCE}", "{{metric}}",
             unit="percentunit", limit=0.95),
    )),
    ("Adaptation and gate", (
        View("Measures of the unadapted model", f"coda_gate_measure_baseline{_SOURCE}", "{{metric}}"),
        View("Measures of the chosen model", f"coda_gate_measure_chosen{_SOURCE}", "{{metric}}"),
        View("Gain with its 95 % interval", f"coda_gate_gain{_SOURCE}", "{{metric}}"),
        View("Adaptation loss", f"coda_adaptation_loss{_SOURCE}", "{{metric}}"),
        View("Pairable fields", f"coda_adaptation_pairable_share{_SOURCE}", "share", unit="percentunit"),
        View("Time of adaptation", f"coda_adaptation_seconds{_SOURCE}", "seconds", unit="s"),
        View("Unhealthy candidates", f"coda_gate_unhealthy_candidates{_SOURCE}", "candidates", limit=1),
    )),
    ("Predictions", (
        View("Most frequent class", f"coda_prediction_top_class_share{_SOURCE}", "share", unit="percentunit",
             limit=0.6),
        View("Entropy of the mean prediction", f"coda_prediction_marginal_entropy{_SOURCE}", "of the maximum",
             unit="percentunit"),
        View("Mean entropy", f"coda_prediction_mean_entropy{_SOURCE}", "of the maximum", unit="percentunit"),
        View("Mean confidence", f"coda_prediction_confidence{_SOURCE}", "confidence", unit="percentunit"),
        View("Changed against unadapted", f"coda_prediction_changed_share{_SOURCE}", "share", unit="percentunit"),
        View("Age of the release", f"time() - coda_release_created_timestamp_seconds{_SOURCE}", "age", unit="s"),
    )),
    ("Platform", (
        View("Seconds by step", f"coda_step_seconds{_SOURCE}", "{{pipeline}} {{step}}", unit="s", span=12),
        View("Seconds by step, newest failed run", f"coda_failed_run_step_seconds{_SOURCE}", "{{pipeline}} {{step}}",
             unit="s", span=12),
        View("Since a run failed", f"time() - coda_failed_run_timestamp_seconds{_SOURCE}", "{{pipeline}}", unit="s",
             span=6),
        View("Seconds of the run", f"coda_run_seconds{_SOURCE}", "{{pipeline}}", unit="s", span=6),
        View("Age of these numbers", f"time() - coda_metrics_pushed_timestamp_seconds{_SOURCE}", "age", "stat", "s", 6),
    )),
)  # fmt: skip
"""Rows of the dashboard of one source."""


def dashboards() -> dict[str, str]:
    """Return the JSON text of each dashboard, by file name."""
    fleet = _dashboard("CODA: fleet", "coda-fleet", "All sources at a glance.", FLEET)
    source = _dashboard(
        "CODA: one source", "coda-source", "Arrival, drift, adaptation and predictions of one source.", ONE_SOURCE
    ).with_variable(
        build.QueryVariable("source")
        .label("Source")
        .query("label_values(coda_batch_plates, source)")
        .datasource(_datasource())
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
    return {"coda-fleet.json": _json(fleet.build()), "coda-source.json": _json(source.build())}


def expressions() -> list[str]:
    """Return every PromQL expression of the dashboards, with a source put in for the variable."""
    views = [view for rows in (FLEET, ONE_SOURCE) for _, members in rows for view in members]
    return [view.expr.replace("$source", "lab_a") for view in views]


def _dashboard(title: str, uid: str, description: str, rows: tuple[Row, ...]) -> build.Dashboard:
    board = build.Dashboard(title).uid(uid).description(description).tags(["coda"]).refresh("1m").time("now-30d", "now")
    number = count(1)  # Grafana wants distinct panel numbers; the SDK gives none
    for heading, views in rows:
        board = board.with_row(build.Row(heading).id(next(number)))
        for view in views:
            board = board.with_panel(_panel(view).id(next(number)))
    return board


def _panel(view: View) -> Panel:
    query = prometheus.Dataquery().expr(view.expr).legend_format(view.legend).ref_id("A")
    if view.shape != "lines":
        query = query.instant()
    if view.shape == "table":
        query = query.format(PromQueryFormat.TABLE)
    panel = _shape(view.shape).title(view.title).description(_description(view.expr)).datasource(_datasource())
    panel = panel.unit(view.unit).span(view.span).height(4 if view.shape == "stat" else 8).with_target(query)
    if view.limit is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=view.limit, color="red")]
        panel = panel.thresholds(build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return panel


def _shape(shape: Shape) -> Panel:
    if shape == "stat":
        return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    if shape == "table":
        return table.Panel().show_header(show_header=True)
    legend = common.VizLegendOptions().show_legend(show_legend=True)
    return timeseries.Panel().legend(legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))


def _description(expr: str) -> str:
    # longest names first, so that coda_fields_quarantined_share is not taken for coda_fields_quarantined
    found = []
    rest = expr
    for name in sorted(METRICS, key=len, reverse=True):
        if name in rest:
            rest = rest.replace(name, "")
            metric = metric_of(name)
            found.append(metric.help if metric else "")
    return " ".join(found)


def _datasource() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid=DATASOURCE)


def _json(model: Dashboard) -> str:
    return str(JSONEncoder(sort_keys=True, indent=2).encode(model)) + "\n"
