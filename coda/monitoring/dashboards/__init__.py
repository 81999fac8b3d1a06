"""Grafana dashboards as code.

The JSON that is written stands under version control beside the compose stack; a test holds it to this package, and
another holds every metric in it to `coda.monitoring.metric_names`.
"""

from coda.monitoring.dashboards.board_json import DATASOURCE, dashboards

__all__ = ["DATASOURCE", "dashboards"]
