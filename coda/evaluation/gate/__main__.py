"""Write docs/metrics.md from the metrics' declarations: `python -m coda.evaluation.gate docs/metrics.md`."""

import sys
from pathlib import Path

from coda.evaluation.gate.definitions import METRICS
from coda.evaluation.metrics.metric import (
    ALL_FIELDS,
    BY_TREATMENT_FROM_WELLS,
    FEATURES,
    PREDICTIONS,
    TREATED_WELLS,
    Metric,
)

HEAD = f"""# Look up a metric

Look up what a label-free metric says and from what it is computed. Every candidate for a batch is measured by all, on
the same wells; the policy of the [gate](gate.md) says which decide, guard or advise.

*Predictions* are {PREDICTIONS}. *Features* are what {FEATURES.removeprefix("features ")}
(the class token where the released extractor was pretrained for it). Replicates are compared across batches where
earlier ones are archived, else across plates. A metric by treatment has a 95 % bootstrap interval over treatments, and
a policy may decide or guard by it. *Treated wells* are {{treated}}; *limit*: every policy has an absolute one.
Where the last column is empty, a metric by treatment goes {{by_treatment}}, any other takes {{all_fields}}.

Written from the declarations in `coda/evaluation/metrics` by `python -m coda.evaluation.gate docs/metrics.md`.

| metric | says | better | of | from fields to the number |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    names = {"treated": TREATED_WELLS.partition(": ")[2], "by_treatment": f"from {BY_TREATMENT_FROM_WELLS}"}
    return HEAD.format(**names, all_fields=ALL_FIELDS) + "\n".join(_row(metric) for metric in METRICS) + "\n"


def _row(metric: Metric) -> str:
    computed = metric.computed_on.replace(PREDICTIONS, "predictions").replace(FEATURES, "features")
    source = f"; {metric.source}" if metric.source else ""
    better = "more" if metric.better == 1 else "less"
    usual = BY_TREATMENT_FROM_WELLS if metric.by_treatment else ALL_FIELDS
    way = (metric.aggregated if metric.aggregated != usual else "", f"fitted: {metric.fitted_on}")
    cells = (
        f"`{metric.name}`",
        f"{metric.says[:1].upper()}{metric.says[1:]}{source}",
        ", ".join([better, *["by treatment"] * metric.by_treatment, *["limit"] * metric.has_limit]),
        f"{computed}; {metric.wells.partition(':')[0] if metric.wells == TREATED_WELLS else metric.wells}",
        "; ".join(text for text in way if text not in {"", "fitted: nothing"}),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
