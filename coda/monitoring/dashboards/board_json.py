"""Boards as Grafana's JSON."""

from itertools import count
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
)
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from coda.monitoring.dashboards.boards import BOARDS
from coda.monitoring.dashboards.views import Board, Variable, View
from coda.monitoring.metric_names import METRICS, metric_of

DATASOURCE = "prometheus"
"""Uid of the Prometheus data source that the compose stack provisions."""

TAG = "coda"
"""Tag of all dashboards, by which they link to each other."""

Panel = stat.Panel | table.Panel | timeseries.Panel

_LINKED = "* on () group_left (url) max by (url) (coda_site_info) * 1000"
_SOURCE_PAGE = "${site:raw}/site/%s/%s.html"
_AGES = {"ago", "serves for"}
"""Headings of columns that are seconds."""

MARKS = (
    ("Releases and rollbacks", "coda_release_moved_timestamp_seconds", "", "blue",
     "{{source}}: {{outcome}} of {{release}}", "models.html"),
    ("Batches released", "coda_batch_ended_timestamp_seconds", 'outcome="released"', "green", "", ""),
    ("Batches held, or an earlier release kept", "coda_batch_ended_timestamp_seconds",
     'outcome=~"held|incumbent_kept"', "orange", "", ""),
    ("Batches refused or failed", "coda_batch_ended_timestamp_seconds", 'outcome=~"refused|failed"', "red", "", ""),
)  # fmt: skip
"""Marks in every picture over time: heading, metric whose value is a time, matcher, colour, title, page."""


class _Marks(AnnotationQuery, Builder[AnnotationQuery]):
    """Marks at the times that a metric's values are; the SDK does not know these fields of Grafana's Prometheus."""

    def __init__(self, name: str, expr: str, colour: str, title: str, page: str, *, shown: bool) -> None:
        super().__init__(name, _datasource(), enable=shown, icon_color=colour, expr=expr)
        self._title, self._page = title, page

    def build(self) -> AnnotationQuery:
        return self

    def to_json(self) -> dict[str, object]:
        link = f'<a href="{{{{url}}}}/{self._page}">what it says</a>'
        return {
            **super().to_json(), "useValueForTime": True, "titleFormat": self._title, "textFormat": link,
            "tagKeys": "outcome", "step": "1m",
        }  # fmt: skip


def dashboards() -> dict[str, str]:
    """Return the JSON text of each dashboard, by file name."""
    return {f"{board.uid}.json": _json(board) for board in BOARDS}


def _json(board: Board) -> str:
    made = build.Dashboard(board.title).uid(board.uid).description(board.about).tags([TAG]).refresh("1m")
    made = made.time("now-90d", "now").link(_pages()).link(_others())
    for variable in board.variables:
        made = made.with_variable(_variable(variable))
    for marks in MARKS:
        made = made.annotation(_annotation(*marks, batches=board.batches_marked))
    number = count(1)  # Grafana wants distinct panel numbers; the SDK gives none
    for heading, views in board.rows:
        made = made.with_row(build.Row(heading).id(next(number)))
        for view in views:
            made = made.with_panel(_panel(view).id(next(number)))
    return str(JSONEncoder(sort_keys=True, indent=2).encode(made.build())) + "\n"


def _pages() -> build.DashboardLink:
    return build.DashboardLink("Pages about drift").type(DashboardLinkType.LINK).url("${site:raw}/site/index.html")


def _others() -> build.DashboardLink:
    link = build.DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(include_vars=True).keep_time(keep_time=True)


def _annotation(name: str, metric: str, more: str, colour: str, title: str, page: str, *, batches: bool) -> _Marks:
    of_batch = metric == "coda_batch_ended_timestamp_seconds"
    matchers = ",".join(['source=~"$source"', *([more] if more else [])])
    return _Marks(
        name, f"{metric}{{{matchers}}} {_LINKED}", colour, title or "{{source}}/{{batch}}: {{outcome}}",
        "{{page}}" if of_batch else f"site/{page}", shown=batches or colour in ("blue", "red"),
    )  # fmt: skip


def _variable(variable: Variable) -> build.QueryVariable | build.CustomVariable:
    if variable.choices:
        words = ",".join(f"{text} : {value}" for text, value in variable.choices)
        first = VariableOption(text=variable.first[0], value=variable.first[1])
        return build.CustomVariable(variable.name).label(variable.label).values(words).current(first)
    made = build.QueryVariable(variable.name).label(variable.label).query(variable.query).datasource(_datasource())
    made = made.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    if variable.hidden:
        return made.hide(VariableHide.HIDE_VARIABLE)
    made = made.multi(multi=True)
    if variable.every:
        made = made.include_all(include_all=True).all_value(".*")
    if variable.first:
        made = made.current(VariableOption(text=list(variable.first), value=list(variable.first)))
    elif variable.every:
        made = made.current(VariableOption(text="All", value="$__all"))
    return made


def _panel(view: View) -> Panel:
    panel = _shape(view).title(view.title).description(view.about or _description(view)).datasource(_datasource())
    panel = panel.unit(view.unit).span(view.span).height(view.height)
    for query, letter in zip(view.queries, ascii_uppercase, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
        if view.shape != "lines":
            target = target.instant()
        if view.shape == "table":
            target = target.format(PromQueryFormat.TABLE)
        panel = panel.with_target(target)
    if view.limits:
        panel = panel.thresholds(build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(_steps(view.limits)))
    if view.repeat:
        panel = panel.repeat(view.repeat).repeat_direction("h")
    return panel


def _steps(limits: tuple[float, ...]) -> list[Threshold]:
    if len(limits) == 1:
        return [Threshold(value=None, color="green"), Threshold(value=limits[0], color="red")]
    low, high = limits
    return [
        Threshold(value=None, color="red"), Threshold(value=low, color="green"), Threshold(value=high, color="red"),
    ]  # fmt: skip


def _shape(view: View) -> Panel:
    if view.shape == "stat":
        panel = stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
        return panel.no_value("–")
    if view.shape == "table":
        return _table(view)
    # a step holds until the next batch; what lies between two batches was never measured
    lines = timeseries.Panel().line_interpolation(LineInterpolation.STEP_AFTER).legend(
        common.VizLegendOptions().show_legend(show_legend=True).display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
    )  # fmt: skip
    if view.limits:
        lines = lines.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    if view.page and "{{source}}" in view.queries[0].legend:
        source = "${__field.labels.source}"
        lines = lines.data_links([_link(f"Page of {source}", _SOURCE_PAGE % (view.page, source))])
    return lines


def _link(title: str, url: str) -> build.DashboardLink:
    return build.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(target_blank=True)


def _table(view: View) -> table.Panel:
    headings = dict(view.columns)
    panel = table.Panel().show_header(show_header=True)
    steps: list[tuple[str, dict[str, Any]]] = []
    if len(view.queries) > 1:
        steps.append(("joinByField", {"byField": "source", "mode": "outer"}))
    steps.append(("filterFieldsByName", {"include": {"names": list(headings)}}))
    places = {name: place for place, name in enumerate(headings)}
    steps.append(("organize", {"excludeByName": {}, "indexByName": places, "renameByName": headings}))
    for name, options in steps:
        panel = panel.with_transformation(DataTransformerConfig(name, options=options))
    links = {
        "source": ("Page of the source", _SOURCE_PAGE % (view.page, "${__value.raw}")),
        "report": ("Report", "${site:raw}/${__value.raw}"),
    }
    for heading in headings.values():
        properties = []
        if heading in links:
            title, url = links[heading]
            properties.append(DynamicConfigValue("links", [{"title": title, "url": url, "targetBlank": True}]))
        if heading == "report":
            shown = {"type": "regex", "options": {"pattern": ".+", "result": {"text": "open", "index": 0}}}
            properties.append(DynamicConfigValue("mappings", [shown]))
        if heading in _AGES:
            properties.append(DynamicConfigValue("unit", "s"))
        if properties:
            panel = panel.override_by_name(heading, properties)
    return panel


def _description(view: View) -> str:
    # longest names first, so that coda_fields_quarantined_share is not taken for coda_fields_quarantined
    found = []
    rest = " ".join(query.expr for query in view.queries)
    for helper in ("coda_metrics_pushed_timestamp_seconds < $age", "coda_drift_batch_timestamp_seconds < $age"):
        rest = rest.replace(helper, "")  # they say how old a batch may be, not what is shown
    for name in sorted(METRICS, key=len, reverse=True):
        if name in rest:
            rest = rest.replace(name, "")
            metric = metric_of(name)
            found.append(metric.help if metric else "")
    return " ".join(found)


def _datasource() -> DataSourceRef:
    return DataSourceRef(type_val="prometheus", uid=DATASOURCE)
