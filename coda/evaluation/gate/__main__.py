"""Write docs/metrics.md from the metrics' declarations: `python -m coda.evaluation.gate docs/metrics.md`."""

import sys
from pathlib import Path

from coda.evaluation.gate.definitions import METRICS
from coda.evaluation.metrics.metric import FEATURES, PREDICTIONS, Metric

HEAD = f"""# Metrics

Look up here what a label-free metric says, where it is computed and from what. Every candidate for a batch is measured
by all of them, on the same wells; which of them decide, guard or only advise is said by the gate's policy
([gate](gate.md)). This page is written from the declarations in `coda/evaluation/metrics`
(`python -m coda.evaluation.gate docs/metrics.md`).

*Predictions* are {PREDICTIONS}.
*Features* are what {FEATURES.removeprefix("features ")}
(the class token where the released extractor was pretrained for it). Replicates are compared across batches where
earlier ones are archived, else across plates. A metric with a value for each treatment has a 95 % bootstrap interval
over treatments, and a policy may decide or guard by it.

"""


def page() -> str:
    """Return the page."""
    return HEAD + "\n".join(_section(metric) for metric in METRICS)


def _section(metric: Metric) -> str:
    computed = metric.computed_on.replace(PREDICTIONS, "predictions").replace(FEATURES, "features")
    rows = {
        "computed on": f"{computed}; {metric.wells}",
        "fitted": metric.fitted_on,
        "from fields to the number": metric.aggregated,
        "a value for each treatment": "yes" if metric.by_treatment else "no",
        "better": "more" if metric.better == 1 else "less",
        "absolute limit in every policy": "yes" if metric.has_limit else "no",
        "source": metric.source or "this project",
    }
    lines = [f"| {name} | {text} |" for name, text in rows.items()]
    says = metric.says[:1].upper() + metric.says[1:]
    return "\n".join([f"## `{metric.name}`", "", f"{says}.", "", "| | |", "|---|---|", *lines, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
