"""The four dashboards: the fleet, one source, its controls, and operations. They read like the pages about drift."""

from coda.monitoring.dashboards.views import (
    AGE,
    INSTRUMENTS,
    OF_BATCH,
    OF_SOURCE,
    SITE,
    SOURCES,
    Board,
    Query,
    Row,
    Variable,
    View,
    broken,
    judged,
    line,
    number,
    pushed,
)

_ENDED = f"coda_batch_ended_timestamp_seconds{OF_SOURCE}"


def _named(expr: str, name: str) -> str:
    """Return the outcomes that are so, under another name: a table has them beside other outcomes."""
    return f'sum by (source, {name}) (label_replace({expr} == 1, "{name}", "$1", "outcome", "(.*)"))'


_SOURCES = View(
    "Sources",
    (
        Query(f"time() - {_ENDED}"),
        Query(_named(f"coda_drift_level{OF_SOURCE}", "drift")),
        Query(f"max by (source) (abs{judged('coda_drift_cusum_share')})"),
        Query("count by (source) " + judged("coda_drift_rule_broken", 'rule=~"sudden|CUSUM"')),
        Query(f"max by (source, release, method) (coda_release_info{OF_SOURCE})"),
        Query(f"time() - coda_release_moved_timestamp_seconds{OF_SOURCE}"),
    ),
    "table", span=24, height=12,
    columns=(
        ("source", "source"), ("drift", "drift"), ("batch", "newest batch"), ("page", "report"),
        ("outcome", "it ended"), ("Value #A", "ago"), ("Value #C", "furthest CUSUM, of its limit"),
        ("Value #D", "numbers that drift"),
        ("release", "serves"), ("method", "way"), ("Value #F", "serves for"),
    ),
    about="One row a source; the links lead to its page and to the report of its newest batch.",
)  # fmt: skip


def _of_stains(metric: str) -> str:
    return pushed(f'coda_acquisition_value{{source=~"$source",instrument=~"$instrument",metric="{metric}"}}')


_FLEET: tuple[Row, ...] = (
    ("Now", (
        number("Sources that drift",
               f'sum(coda_drift_level{{source=~"$source",outcome="drift"}} and on (source) (time() - {_ENDED} < $age)) '
               f"or 0 * count({_ENDED})", limit=1),
        number("Newest batch refused or failed",
               f'count(coda_batch_ended_timestamp_seconds{{source=~"$source",outcome=~"refused|failed"}}) '
               f"or 0 * count({_ENDED})", limit=1),
        number("Newest batch held",
               f'count(coda_batch_ended_timestamp_seconds{{source=~"$source",outcome="held"}}) or 0 * count({_ENDED})',
               limit=1),
        number("Sources without a batch of that age", f"count(time() - {_ENDED} >= $age) or 0 * count({_ENDED})"),
        number("Batches given up", "max(coda_trigger_dead_letters)", limit=1),
        number("Trigger last looked", "time() - max(coda_trigger_last_poll_timestamp_seconds)", unit="s", limit=900),
        _SOURCES,
        broken("Rules that newest batches break", 'rule!="1-2s"', "source"),
    )),
    ("Over time", (
        line("Furthest CUSUM, as a share of its limit",
             f"max by (source) (abs{judged('coda_drift_cusum_share')})", "{{source}}", limit=1),
        line("Gain over the unadapted model",
             pushed('coda_gate_gain{source=~"$source",metric="value"}'), "{{source}}"),
        line("Batches in a row without a release", pushed(f"coda_gate_not_released_in_a_row{OF_SOURCE}"),
             "{{source}}", limit=2),
        line("Fields accepted",
             pushed(f"coda_batch_fields_accepted{OF_BATCH} / (coda_batch_fields_expected{OF_BATCH} > 0)"),
             "{{source}} {{instrument}}", "percentunit"),
        line("Most frequent predicted class", pushed(f"coda_prediction_top_class_share{OF_SOURCE}"), "{{source}}",
             "percentunit", limit=0.6),
        line("Age of the newest batch", f"time() - {_ENDED}", "{{source}}", "s"),
    )),
)  # fmt: skip

_NUMBER = 'metric=~"$number"'

_SOURCE: tuple[Row, ...] = (
    ("Newest batch", (
        number("Age of the newest batch", f"time() - {_ENDED}", "{{source}}", "s", limit=1209600),
        number("Plates", pushed(f"coda_batch_plates{OF_BATCH}"), "{{source}} {{instrument}}"),
        number("Plates accepted", pushed(f"coda_batch_plates_accepted{OF_BATCH}"), "{{source}} {{instrument}}"),
        number("Fields set aside", pushed(f"coda_fields_quarantined_share{OF_BATCH}"), "{{source}} {{instrument}}",
               "percentunit", limit=0.01),
        number("Files with wrong bytes", pushed(f"coda_digest_mismatches{OF_BATCH}"), "{{source}} {{instrument}}",
               limit=1),
        number("Failed checks against history", pushed(f"coda_history_checks_failed{OF_BATCH}"),
               "{{source}} {{instrument}}"),
        View("What became of it", (
            Query(f"time() - {_ENDED}"),
            Query(_named(pushed(f"coda_batch_verdict{OF_BATCH}"), "quality")),
            Query(_named(pushed(f"coda_gate_outcome{OF_SOURCE}"), "gate")),
            Query(f"max by (source, release, method, extractor, head) (coda_release_info{OF_SOURCE})"),
        ), "table", span=24, height=5, columns=(
            ("source", "source"), ("batch", "batch"), ("page", "report"), ("outcome", "it ended"), ("Value #A", "ago"),
            ("quality", "quality"), ("gate", "gate"), ("release", "serves"), ("method", "way"),
            ("extractor", "extractor"), ("head", "head"),
        ), about="What the newest batch came to; the links lead to its report and to the source's page."),
    )),
    ("Every number against accepted history", (
        View("Deviations", (Query(judged("coda_drift_deviations", _NUMBER), "{{source}} {{instrument}} {{metric}}"),),
             span=12, limits=(-3, 3)),
        View("Slow drift: CUSUM as a share of its limit",
             (Query(judged("coda_drift_cusum_share", _NUMBER), "{{source}} {{instrument}} {{metric}}"),), span=12,
             limits=(-1, 1)),
        View("$number", (
            Query(judged("coda_drift_value", _NUMBER), "{{source}} {{instrument}}"),
            Query(judged("coda_drift_low", _NUMBER), "{{source}} {{instrument}}: usual, from"),
            Query(judged("coda_drift_high", _NUMBER), "{{source}} {{instrument}}: usual, to"),
        ), repeat="number"),
        broken("Rules that the newest batch breaks", 'rule!="1-2s"', "source", 16),
        line("Plates that stand apart", f"sum by (source, group) {judged('coda_drift_plates_apart')}",
             "{{source}} {{group}}"),
    )),
    ("Images: each stain", (
        line("Deviation from accepted history (robust z)", pushed(f"coda_acquisition_robust_z{OF_BATCH}"),
             "{{source}} {{channel}} {{metric}}", limit=5),
        *(line(title, _of_stains(metric), "{{source}} {{channel}}", unit)
          for title, metric, unit in (
              ("Median brightness", "p50", "short"), ("Bright structures (95th percentile)", "p95", "short"),
              ("Near-black pixels", "near_black", "percentunit"), ("Focus (power log-log slope)", "focus", "short"),
              ("Saturated pixels", "saturation", "percentunit"))),
        line("Failed checks by severity", pushed(f"coda_checks_failed{OF_BATCH}"), "{{source}} {{outcome}}"),
        line("Fields set aside", pushed(f"coda_fields_quarantined{OF_BATCH}"), "{{source}} {{instrument}}"),
    )),
    ("Features before and after adaptation", (
        line("Distance before", pushed(f"coda_embedding_drift_before{OF_SOURCE}"), "{{source}} {{metric}}"),
        line("Distance after", pushed(f"coda_embedding_drift_after{OF_SOURCE}"), "{{source}} {{metric}}"),
        line("Place among accepted batches", pushed(f"coda_embedding_drift_percentile{OF_SOURCE}"),
             "{{source}} {{metric}}", "percentunit", limit=0.95),
    )),
    ("Adaptation and gate", (
        line("Measures of the unadapted model", pushed(f"coda_gate_measure_baseline{OF_SOURCE}"),
             "{{source}} {{metric}}"),
        line("Measures of the chosen model", pushed(f"coda_gate_measure_chosen{OF_SOURCE}"), "{{source}} {{metric}}"),
        line("Gain with its 95 % interval", pushed(f"coda_gate_gain{OF_SOURCE}"), "{{source}} {{metric}}"),
        line("Adaptation loss", pushed(f"coda_adaptation_loss{OF_SOURCE}"), "{{source}} {{metric}}"),
        line("Pairable fields", pushed(f"coda_adaptation_pairable_share{OF_SOURCE}"), "{{source}}", "percentunit"),
        line("Unhealthy candidates", pushed(f"coda_gate_unhealthy_candidates{OF_SOURCE}"), "{{source}}", limit=1),
    )),
    ("Predictions", (
        View("Class shares", (Query(judged("coda_drift_value", 'group="Class shares"'), "{{source}} {{metric}}"),),
             unit="percentunit", page="predictions"),
        View("Class shares against history: share of wells that would need another class", (
            Query(judged("coda_drift_value", 'group="Class shares against history"'), "{{source}}"),
            Query(judged("coda_drift_high", 'group="Class shares against history"'), "{{source}}: usual, to"),
        ), unit="percentunit", page="predictions"),
        View("Known compounds that changed class",
             (Query(judged("coda_drift_value", 'group="Compounds of earlier batches"'), "{{source}}"),),
             unit="percentunit", page="predictions"),
        line("Mean confidence", pushed(f"coda_prediction_confidence{OF_SOURCE}"), "{{source}}", "percentunit"),
        line("Entropy of the mean prediction", pushed(f"coda_prediction_marginal_entropy{OF_SOURCE}"), "{{source}}",
             "percentunit"),
        line("Mean entropy", pushed(f"coda_prediction_mean_entropy{OF_SOURCE}"), "{{source}}", "percentunit"),
        line("Changed against unadapted", pushed(f"coda_prediction_changed_share{OF_SOURCE}"), "{{source}}",
             "percentunit"),
        line("Age of the release", f"time() - coda_release_created_timestamp_seconds{OF_SOURCE}", "{{source}}", "s"),
    )),
)  # fmt: skip

_CONTROLLED = 'group="Controls"'
_ZPRIME = 'group="Controls",metric="robust Z\' of the plates"'

_CONTROLS: tuple[Row, ...] = (
    ("Levey-Jennings charts", (
        number("Series of controls that drift",
               "count" + judged("coda_drift_rule_broken", f'{_CONTROLLED},rule=~"sudden|CUSUM"')
               + f" or 0 * count({_ENDED})", span=6, limit=1),
        number("Age of the newest judged batch", f"time() - coda_drift_batch_timestamp_seconds{OF_BATCH}",
               "{{source}} {{instrument}}", "s", span=6, limit=1209600),
        number("Fewest control wells on a plate", pushed(f"coda_negcon_wells{OF_BATCH}"), "{{source}} {{instrument}}",
               span=6),
        number("Lowest robust Z', median of a batch's plates", f"min by (source) {judged('coda_drift_value', _ZPRIME)}",
               "{{source}}", span=6),
        View("Negative controls, in standard deviations from history",
             (Query(judged("coda_drift_deviations", f'{_CONTROLLED},metric=~"negative.*"'), "{{source}} {{metric}}"),),
             span=12, limits=(-3, 3), page="controls"),
        View("Positive controls, in standard deviations from history",
             (Query(judged("coda_drift_deviations", f'{_CONTROLLED},metric=~"positive.*"'), "{{source}} {{metric}}"),),
             span=12, limits=(-3, 3), page="controls"),
        View("CUSUM as a share of its limit",
             (Query(judged("coda_drift_cusum_share", _CONTROLLED), "{{source}} {{metric}}"),), span=12,
             limits=(-1, 1), page="controls"),
        View("Robust Z' of the plates, with what is usual", (
            Query(judged("coda_drift_value", _ZPRIME), "{{source}} {{instrument}}"),
            Query(judged("coda_drift_low", _ZPRIME), "{{source}} {{instrument}}: usual, from"),
            Query(judged("coda_drift_high", _ZPRIME), "{{source}} {{instrument}}: usual, to"),
        ), span=12, page="controls"),
        broken("Rules that controls break", _CONTROLLED, "controls"),
    )),
)  # fmt: skip

_OPERATIONS: tuple[Row, ...] = (
    ("Trigger", (
        number("Batches given up", "max(coda_trigger_dead_letters)", limit=1),
        number("Batches waiting", "max(coda_trigger_queue_length)", limit=20),
        number("Oldest waiting", "max(coda_trigger_oldest_waiting_seconds)", unit="s", limit=14400),
        number("Held up by machines", "max(coda_trigger_held_by_machines)", limit=1),
        number("Trigger last looked", "time() - max(coda_trigger_last_poll_timestamp_seconds)", unit="s", limit=900),
        number("Drift last reckoned", "time() - max(coda_site_read_timestamp_seconds)", unit="s", limit=1800),
        number("Failed runs, one day", 'sum(increase(coda_runs_total{outcome="failed"}[1d]))', limit=1),
        number("Defects, one day", "sum(increase(coda_trigger_defects_total[1d]))", limit=1),
        number("Records that cannot be read", "sum(coda_trigger_unreadable_records)", limit=1),
        number("Unreadable metrics files", "max(coda_metrics_files_unreadable)", limit=1),
        number("Delivery to claim, 95th percentile",
               "histogram_quantile(0.95, sum by (le) (rate(coda_trigger_lag_seconds_bucket[1d])))", unit="s"),
        number("Batches claimed, one day", f"sum(increase(coda_trigger_claims_total{OF_SOURCE}[1d]))"),
    )),
    ("What comes and goes", (
        line("Runs by outcome, one day", "sum by (pipeline, outcome) (increase(coda_runs_total[1d]))",
             "{{pipeline}} {{outcome}}"),
        line("Manifests seen, an hour", "sum by (outcome) (increase(coda_trigger_events_total[1h]))", "{{outcome}}"),
        line("Webhook messages, an hour", "sum by (outcome) (increase(coda_trigger_webhook_requests_total[1h]))",
             "{{outcome}}"),
        line("Queue messages, an hour", "sum by (outcome) (increase(coda_trigger_queue_messages_total[1h]))",
             "{{outcome}}"),
        line("Notifications, one day", "sum by (outcome) (increase(coda_trigger_notifications_total[1d]))",
             "{{outcome}}"),
        line("Producers' clocks ahead", pushed(f"coda_batch_clock_ahead_seconds{OF_SOURCE}"), "{{source}}", "s",
             limit=300),
    )),
    ("Runs", (
        line("Seconds by step, newest run", f"sum by (step) {pushed(f'coda_step_seconds{OF_SOURCE}')}", "{{step}}",
             "s", 12),
        line("Seconds by step, newest failed run", f"sum by (step) (coda_failed_run_step_seconds{OF_SOURCE})",
             "{{step}}", "s", 12),
        line("Seconds of the run", pushed(f"coda_run_seconds{OF_SOURCE}"), "{{source}} {{pipeline}}", "s"),
        line("Seconds of the adaptation", pushed(f"coda_adaptation_seconds{OF_SOURCE}"), "{{source}}", "s"),
        line("From delivery to decision", pushed(f"coda_batch_decision_seconds{OF_SOURCE}"), "{{source}}", "s"),
        line("Since a batch went through", f"time() - coda_last_success_timestamp_seconds{OF_SOURCE}",
             "{{source}} {{pipeline}}", "s"),
        line("Since a run failed for good", f"time() - coda_last_failure_timestamp_seconds{OF_SOURCE}", "{{source}}",
             "s"),
        line("Since a run left the page of a failure", f"time() - coda_failed_run_timestamp_seconds{OF_SOURCE}",
             "{{source}} {{pipeline}}", "s"),
        line("Age of the producer's manifest", f"time() - coda_batch_created_timestamp_seconds{OF_SOURCE}",
             "{{source}} {{instrument}}", "s", 12),
        line("Age of what steps pushed", f"time() - coda_metrics_pushed_timestamp_seconds{OF_SOURCE}", "{{source}}",
             "s", 12),
    )),
)  # fmt: skip

_ONE = Variable("source", "Source", SOURCES.query)
_NUMBERS = Variable(
    "number", "Numbers", 'label_values(coda_drift_value{source=~"$source"}, metric)', every=True,
    first=(
        "cells a field", "share of fields set aside", "embedding distance to the training source, before adaptation",
        "mean confidence", "gain of what the gate chose", "distance of class shares to history",
    ),
)  # fmt: skip

BOARDS: tuple[Board, ...] = (
    Board("CODA: fleet", "coda-fleet", "All sources at a glance: what came, what serves, what drifts.",
          (SOURCES, INSTRUMENTS, AGE, SITE), _FLEET, batches_marked=False),
    Board("CODA: a source", "coda-source", "Every number of a source, or of a few, against its own history.",
          (_ONE, INSTRUMENTS, _NUMBERS, AGE, SITE), _SOURCE),
    Board("CODA: controls", "coda-controls", "Control wells as laboratories watch them: Levey-Jennings charts.",
          (SOURCES, INSTRUMENTS, AGE, SITE), _CONTROLS),
    Board("CODA: operations", "coda-operations", "Whether the machinery runs: trigger, runs, messages.",
          (SOURCES, AGE, SITE), _OPERATIONS, batches_marked=False),
)  # fmt: skip
"""All dashboards."""
